"""Inversion: encoders behind one call, and the refinement in W and in W+."""

import dataclasses

import pytest
import torch
from tiny_erasure import config as tiny_config

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.faces.small import HeadsInversion
from guide_hub.inversion import Inverter
from guide_hub.inversion.pose import pose_label
from guide_hub.latents import LatentSpace
from guide_hub.networks import choose
from guide_hub.recipe import Inversion, Networks, Recipe


class Pixels:
    """In place of both networks: a distance and an embedding of the small picture."""

    def __call__(self, a, b=None):
        if b is None:
            return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(a, 16).flatten(1), dim=1)
        return (a - b).square().flatten(1).mean(1)


class Layers:
    """An encoder that gives every layer a latent of its own."""

    def start(self, crops, space):
        rows = torch.randn(len(crops), *space.w_avg.shape[1:], generator=torch.Generator().manual_seed(5))
        return space.w_avg + rows, torch.full((len(crops), 3), 0.1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return EG3D(tiny_config()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def crops():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1


def test_any_encoder_gives_the_start(model, crops):
    found = Inverter(model, Inversion("encoder"), Pixels(), Pixels(), Layers())(crops)
    ws, pose = Layers().start(crops, LatentSpace(model))
    assert torch.equal(found.ws, ws)
    assert torch.equal(found.c, pose_label(pose))
    ignored = Inverter(model, Inversion("optimize"), Pixels(), Pixels(), Layers()).start(crops)
    assert torch.equal(ignored[0], model.w_avg.expand(2, model.num_ws, -1))


def test_the_bundles_encoder_answers_in_w(model, crops):
    torch.manual_seed(2)
    ws, pose = HeadsInversion().eval().start(crops, LatentSpace(model))
    assert (ws.shape, pose.shape) == ((2, model.num_ws, 32), (2, 3))
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert not torch.equal(ws[0], ws[1])


@pytest.mark.parametrize("encoder", [None, Layers()], ids=["W", "W+"])
def test_the_refinement_stays_in_the_starts_space(model, crops, encoder):
    inverter = Inverter(model, Inversion(steps=1, lr=0.2), Pixels(), Pixels(), encoder)
    start, _ = inverter.start(crops)
    found = inverter(crops).ws
    assert found.shape == start.shape
    moved = (found - start).flatten(1).norm(dim=1)  # the first step's length is set, in either space
    torch.testing.assert_close(
        moved, torch.full((2,), 0.2 * inverter.space.median_offset()), rtol=0.05, atol=0
    )
    steps = found - start
    assert torch.equal(steps, steps[:, :1].expand_as(steps)) == (encoder is None)


def test_the_recipe_chooses_the_encoder():
    config = tiny_config()

    def chosen(name=None, backend="auto"):
        recipe = Recipe(networks=Networks(inversion=name), inversion=Inversion(backend))
        return choose(config, recipe).inversion

    assert chosen() == "heads-inversion"
    assert chosen("goae:/weights/encoder_FFHQ.pt") == "goae:/weights/encoder_FFHQ.pt"
    assert chosen("goae", "optimize") is None  # its weights are not needed then
    config = dataclasses.replace(config, domain={})
    assert chosen() is None
    with pytest.raises(InputError, match="no inversion network 'lpips-vgg'"):
        chosen("lpips-vgg")


def test_a_path_of_the_encoder_stays_private():
    recipe = Recipe(networks=Networks(inversion="goae:/home/ann/encoder_FFHQ.pt"))
    assert "ann" not in recipe.to_yaml()
    assert "inversion: goae" in recipe.to_yaml()
    assert recipe.digest() == Recipe(networks=Networks(inversion="goae")).digest() != Recipe().digest()
