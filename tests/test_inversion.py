"""Inversion: encoders behind one call, and the refinement in W and in W+."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_erasure import Pixels
from tiny_erasure import config as tiny_config

from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label
from guide_hub.errors import InputError, RefusedError
from guide_hub.evaluation.views import YAW, render_views
from guide_hub.faces.crops import FaceCrop
from guide_hub.faces.small import HeadsInversion
from guide_hub.inversion import Inversion as Found
from guide_hub.inversion import Inverter, Person, Quality, invert_person, measure_quality, projector
from guide_hub.inversion.person import fitted_of
from guide_hub.inversion.pose import pose_label
from guide_hub.inversion.projector import ramp
from guide_hub.latents import LatentSpace
from guide_hub.networks import choose
from guide_hub.people import Subject, refuse_unshown
from guide_hub.recipe import Inversion, Networks, Recipe
from guide_hub.request import Identity, Photo


def options(backend="auto", **given):
    """Of short inversions: a step in W alone."""
    short = {"camera_steps": 0, "steps": 1, "wplus_steps": 0, "more_steps": 0, "noise": 0.0}
    return Inversion(backend, **{**short, **given})


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
    inverter = Inverter(model, options(lr=0.2), Pixels(), Pixels(), encoder)
    start, _ = inverter.start(crops)
    found = inverter(crops).ws
    assert found.shape == start.shape
    moved = (found - start).flatten(1).norm(dim=1)  # the first step's length is set, in either space
    torch.testing.assert_close(
        moved, torch.full((2,), 0.2 * inverter.space.median_offset()), rtol=0.05, atol=0
    )
    steps = found - start
    assert torch.equal(steps, steps[:, :1].expand_as(steps)) == (encoder is None)


def test_starts_in_w_and_in_wplus_go_apart(model, crops):
    layers, pose = Layers().start(crops, LatentSpace(model))
    starts = torch.stack([layers[0], model.w_avg.expand_as(layers[0]), layers[1]])
    photos, schedule = torch.cat([crops, crops[:1]]), projector.Schedule(2, 0.2)

    def refined(part):
        angles = pose[:1].expand(len(starts), -1)
        return projector.refine(model, photos[part], starts[part], angles[part], Pixels(), Pixels(), schedule)

    together = refined([0, 1, 2])
    for i in range(3):
        for found, alone in zip(together, refined([i]), strict=True):
            torch.testing.assert_close(found[i], alone[0], rtol=0, atol=1e-5)
    assert torch.equal(together[0][1], together[0][1, :1].expand_as(together[0][1]))


def test_stages_in_turn(model, crops):
    def found(**stages):
        return Inverter(model, options("optimize", **stages), Pixels(), Pixels())(crops)

    w = found(steps=2, camera_steps=3)
    assert torch.equal(w.ws, w.ws[:, :1].expand_as(w.ws))
    assert not torch.equal(found(steps=2).pose, w.pose)
    wplus = found(steps=2, camera_steps=3, wplus_steps=2)
    assert not torch.allclose(wplus.ws, wplus.ws[:, :1])
    again = found(steps=2, camera_steps=3, wplus_steps=2)
    assert torch.equal(again.ws, wplus.ws)
    assert torch.equal(again.c, wplus.c)


def test_noise_is_drawn_from_the_seed(model, crops):
    inverter = Inverter(model, options("optimize", steps=2, noise=0.5), Pixels(), Pixels())
    first = inverter(crops)
    torch.manual_seed(99)
    assert torch.equal(inverter(crops).ws, first.ws)
    plain = Inverter(model, options("optimize", steps=2), Pixels(), Pixels())(crops)
    assert not torch.allclose(plain.ws, first.ws)


def test_landmarks_start_the_camera_where_no_encoder_does(model, crops):
    poses = torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.0, 0.1]])

    class Blind(Layers):
        def start(self, crops, space):
            return super().start(crops, space)[0], torch.zeros(len(crops), 3)

    for encoder, expected in ((None, poses), (Blind(), poses), (Layers(), torch.full((2, 3), 0.1))):
        _, pose = Inverter(model, Inversion(), Pixels(), Pixels(), encoder).start(crops, poses)
        assert torch.equal(pose, expected)


def test_the_photos_of_one_person_share_a_latent(model, crops):
    start, _ = Layers().start(crops, LatentSpace(model))
    by_encoder = Inverter(model, Inversion("encoder"), Pixels(), Pixels(), Layers())(crops, joint=True)
    assert torch.equal(by_encoder.shared, start.mean(0, keepdim=True))
    torch.manual_seed(3)
    face = model.synthesis(
        LatentSpace(model).random(1, torch.Generator().manual_seed(7)), pose_label(torch.zeros(1, 3))
    )
    photos = face["image"].detach().repeat(2, 1, 1, 1) + 0.2 * crops
    inverter = Inverter(model, options("optimize", steps=8, more_steps=2, lr=0.05), Pixels(), Pixels())
    found = inverter(photos, joint=True)
    assert found.shared.shape == (1, model.num_ws, 32)
    assert found.ws.shape == (2, model.num_ws, 32)
    offsets = (found.ws - found.shared).flatten(1).norm(dim=1)
    way = (found.shared - model.w_avg).norm()
    assert 0 < offsets.max() < way
    assert not torch.equal(found.ws[0], found.ws[1])
    assert torch.equal(found.shared, found.shared[:, :1].expand_as(found.shared))
    more = inverter.more(photos, found).shared
    assert not torch.allclose(more, more[:, :1])  # in W+


def test_a_given_latent_is_kept(model, crops):
    latent = LatentSpace(model).random(1, torch.Generator().manual_seed(7))
    inverter = Inverter(model, options("optimize", camera_steps=2), Pixels(), Pixels())
    found = inverter.of_latent(latent, crops)
    assert torch.equal(found.ws, latent.expand(2, -1, -1))
    assert found.pose.any(1).all()


def test_the_ramp():
    shares = [ramp((step + 0.5) / 100) for step in range(100)]
    assert shares[0] < shares[4] <= 1.0
    assert set(shares[5:75]) == {1.0}
    assert shares[75:] == sorted(shares[75:], reverse=True)
    assert 0 < shares[-1] < 0.01
    assert ramp(0.5) == 1.0  # a single step is a whole one


# ----------------------------------------------------------------------------------------------------------
# The gate


def test_quality_is_of_each_photo(model, crops):
    space, cameras = LatentSpace(model), camera_label(torch.tensor([-0.1, 0.1]))
    ws = space.random(2, torch.Generator().manual_seed(7))
    c = pose_label(torch.zeros(2, 3))
    own = render_views(model, ws, c[:1])[:, 0]
    photos = torch.stack([own[0], crops[1]])
    quality = measure_quality(model, Pixels(), Pixels(), photos, ws, c, cameras, 0.5)
    views = render_views(model, ws, cameras)
    expected = [
        float((Pixels()(v) @ Pixels()(p[None])[0]).mean()) for v, p in zip(views, photos, strict=True)
    ]
    assert quality.cosine == pytest.approx(expected, abs=1e-5)
    assert quality.perceptual[0] == pytest.approx(0, abs=1e-6)
    assert quality.perceptual[1] > 0.1
    assert quality.shown == (True, False)


@pytest.mark.parametrize(("photos", "fitted"), [(1, 1), (2, 1), (3, 2), (4, 3), (6, 4)])
def test_some_photos_are_held_out(photos, fitted):
    assert fitted_of(photos) == fitted


class Answers:
    """An inverter that always finds the same, and counts how often it is asked for more."""

    def __init__(self, more_steps=5):
        self.options, self.asked = options(more_steps=more_steps), 0

    def __call__(self, photos, poses=None, *, joint=False):
        n = len(photos)
        shared = torch.full((1, 4, 8), -1.0) if joint else None
        return Found(torch.zeros(n, 4, 8), torch.zeros(n, 3) if poses is None else poses, shared)

    def more(self, photos, found):
        self.asked += 1
        return found


def gate(values, threshold=0.5):
    """A gate that answers one list of cosines a call."""
    answers = iter(values)

    def judge(photos, ws, c):
        cosine = next(answers)
        assert len(photos) == len(ws) == len(c) == len(cosine)
        return Quality(tuple(cosine), (0.1,) * len(cosine), threshold)

    return judge


def test_the_person_must_be_alike_from_other_yaws_too(model, crops, monkeypatch):
    poses = []
    monkeypatch.setattr(projector, "pose_label", lambda pose: poses.append(pose.detach()) or pose_label(pose))
    inverter = Inverter(model, options("optimize", camera_steps=1, steps=2), Pixels(), Pixels())
    inverter(crops[:1])
    camera, own, first, again, second = (pose[0].tolist() for pose in poses)
    assert camera == [0, 0, 0]
    assert own != again  # the photo's own camera, as it is fitted
    assert first == pytest.approx([-YAW, 0, 0])
    assert -YAW < second[0] < YAW


def test_the_fit_goes_on_until_the_gate_holds():
    photos, inverter = torch.zeros(3, 3, 8, 8), Answers()
    person = invert_person(inverter, photos, torch.ones(3, 3), gate([(0.2, 0.3), (0.4, 0.7), (0.1,)]))
    assert inverter.asked == 1
    assert person.shown
    assert (person.fitted, person.quality.cosine) == (2, (0.4, 0.7, 0.1))
    assert torch.equal(person.c, pose_label(torch.ones(3, 3)))
    assert person.points[:, 0, 0].tolist() == [-1.0]  # the judge does not know the held-out photo
    assert person.measured == [0, 1]
    known = invert_person(inverter, photos, None, gate([(0.2, 0.9), (0.6,)]))
    assert known.points[:, 0, 0].tolist() == [-1.0, 0.0]
    assert known.measured == [0, 1, 2]
    assert not invert_person(inverter, photos[:1], None, gate([(0.2,), (0.3,)])).shown
    assert inverter.asked == 2
    assert invert_person(inverter, photos[:1], None, gate([(0.5,)])).shown
    none = Answers(more_steps=0)
    assert not invert_person(none, photos[:1], None, gate([(0.2,)])).shown
    assert (inverter.asked, none.asked) == (2, 0)


def test_fitted_photos_are_inverted_for_themselves_where_asked():
    """Where the model shows them there, with a given latent too; a single photo has nothing more to find."""
    photos, inverter = torch.zeros(3, 3, 8, 8), Answers()
    found = invert_person(inverter, photos, None, gate([(0.8, 0.8), (0.9, 0.1), (0.7,)]), apart=True)
    assert found.places[:, 0, 0].tolist() == [-1.0, 0.0]  # the person, and the one photo that shows them
    assert found.points[:, 0, 0].tolist() == [-1.0, 0.0]  # the held-out photo tests, and is no place
    assert found.quality.cosine == (0.8, 0.8, 0.7)
    inverter.of_latent = lambda latent, photos, poses: Found(
        latent.expand(2, -1, -1), torch.zeros(2, 3), latent
    )
    answers, given = gate([(0.8, 0.8), (0.9, 0.1), (0.7,)]), torch.full((1, 4, 8), 5.0)
    known = invert_person(inverter, photos, None, answers, given, apart=True)
    assert known.places[:, 0, 0].tolist() == [5.0, 0.0]
    assert len(invert_person(inverter, photos, None, gate([(0.8, 0.8), (0.7,)])).places) == 1
    assert len(invert_person(inverter, photos[:2], None, gate([(0.8,), (0.7,)]), apart=True).places) == 1


def person(*cosine, fitted=1):
    quality = Quality(cosine, (0.1,) * len(cosine), 0.5)
    n = len(cosine)
    return Person(torch.zeros(1, 4, 8), torch.zeros(n, 4, 8), torch.zeros(n, 25), fitted, quality)


def subject(name, photos):
    faces = [
        FaceCrop(
            Photo(f"{name}.images[{k}]", Path(), "", (8, 8), line=7 + k, column=9), torch.zeros(3, 8, 8), None
        )
        for k in range(photos)
    ]
    return Subject(Identity(name, tuple(face.photo for face in faces)), faces)


def gated(**people):
    """`refuse_unshown` of people by name, each with as many photos as cosines."""
    found = list(people.values())
    refuse_unshown([subject(n, len(p.quality.cosine)) for n, p in people.items()], found)


def test_what_the_gate_says():
    gated(a=person(0.6, 0.1), b=person(0.4, 0.7, 0.2, fitted=2))
    with pytest.raises(
        RefusedError, match=r"^a: the model does not show this person \(cosine 0.40, threshold 0.50\)"
    ):
        gated(a=person(0.4, 0.3))
    with pytest.raises(InputError, match=r"^7:9: a.images\[0\] is not .* put a.images\[1\] first"):
        gated(a=person(0.4, 0.6))
    with pytest.raises(InputError, match=r"^8:9: a.images\[1\] is not .*\(remove it\)"):
        gated(a=person(0.6, 0.1, 0.7, fitted=2))
    with pytest.raises(RefusedError) as error:  # the answer no comes first
        gated(a=person(0.4, 0.6), b=person(0.1))
    assert len(error.value.problems) == 2


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
