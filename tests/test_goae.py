"""GOAE's encoder: the checkpoint's names, golden vectors, and the step from crops to latents."""

import json
from types import SimpleNamespace

import eg3d_golden
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from guide_hub.errors import InputError
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.goae import NUM_WS, W_DIM, GoaeEncoder
from guide_hub.faces.registry import load_inversion

BUFFERS = ("relative_coords_table", "relative_position_index", "attn_mask")
SPACE = SimpleNamespace(
    model=SimpleNamespace(num_ws=NUM_WS, config=SimpleNamespace(w_dim=W_DIM)),
    w_avg=torch.linspace(-1, 1, W_DIM).expand(1, NUM_WS, -1),
)


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "golden" / "encoders" / "goae.safetensors")


@pytest.fixture(scope="module")
def encoder(shared, tmp_path_factory):
    """The network with the goldens' weights, loaded from a file as its authors publish theirs."""
    table = json.loads((shared / "golden" / "encoders" / "goae.json").read_text())["tensors"]
    network = GoaeEncoder()
    state = network.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {k: v["shape"] for k, v in table.items()}
    assert {k: str(v.dtype) for k, v in state.items()} == {
        k: v.get("dtype", "torch.float32") for k, v in table.items()
    }
    for name, value in state.items():
        if not name.endswith(BUFFERS):
            value.copy_(torch.from_numpy(eg3d_golden.seeded(shared).seeded_goae(name, tuple(value.shape))))
    file = tmp_path_factory.mktemp("goae") / "encoder_FFHQ.pt"
    torch.save(state, file)
    del network, state
    yield load_inversion(f"goae:{file}")
    file.unlink()  # 445 MB


@pytest.fixture(scope="module")
def picture(shared):
    return torch.from_numpy(np.tanh(eg3d_golden.seeded_input(shared, "goae_img", 1, 3, 256, 256).numpy()))


def test_the_trunk_gives_the_reference_maps(encoder, picture, golden):
    fine, mid, coarse, query, base = encoder.swin_model(picture)
    for name, tokens in (("fine", fine), ("mid", mid), ("coarse", coarse)):
        kept = golden[f"swin_{name}_sub"]
        steps = [whole // part for whole, part in zip(tokens.shape[1:], kept.shape[1:], strict=True)]
        eg3d_golden.close(tokens[:, :: steps[0], :: steps[1]], kept, 3e-5)
    eg3d_golden.close(query.transpose(1, 2), golden["swin_query"], 3e-5)
    eg3d_golden.close(base.transpose(1, 2), golden["swin_base"], 3e-5)


def test_the_encoder_gives_the_reference_latents(encoder, picture, golden):
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    ws, ws_base = encoder(picture)
    eg3d_golden.close(ws, golden["ws"], 5e-5)
    eg3d_golden.close(ws_base, golden["ws_base"], 5e-5)
    assert torch.equal(ws[:, 0], ws_base[:, 0])
    assert torch.equal(ws, encoder.train()(picture)[0])  # nothing is random, whatever the mode
    encoder.eval()


def test_pictures_do_not_see_each_other(encoder, picture):
    with torch.no_grad():
        both = encoder(torch.cat([picture.flip(3), picture]))[0]
        torch.testing.assert_close(both[1:], encoder(picture)[0], rtol=0, atol=1e-4)


def test_crops_are_resized_as_pil_does_and_w_avg_is_added(encoder, monkeypatch):
    seen = []

    def forward(images):
        seen.append(images)
        return torch.ones(len(images), NUM_WS, W_DIM), None

    monkeypatch.setattr(encoder, "forward", forward)
    coarse = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    pixels = np.stack([np.asarray(Image.fromarray(one).resize((512, 512))) for one in coarse])
    ws, pose = encoder.start(torch.stack([to_tensor(one) for one in pixels]), SPACE)
    assert torch.equal(ws, 1 + SPACE.w_avg.expand(2, -1, -1))
    assert torch.equal(pose, torch.zeros(2, 3))
    for one, given in zip(pixels, torch.cat(seen), strict=True):
        resized = Image.fromarray(one).resize((256, 256), Image.Resampling.BICUBIC)
        torch.testing.assert_close(
            given, to_tensor(np.asarray(resized)), rtol=0, atol=1.2 / 127.5
        )  # PIL rounds twice


def test_other_models_are_refused(encoder):
    small = SimpleNamespace(model=SimpleNamespace(num_ws=10, config=SimpleNamespace(w_dim=128)))
    with pytest.raises(InputError, match="14 x 512 latents, and this one's are 10 x 128"):
        encoder.start(torch.zeros(1, 3, 128, 128), small)
