"""The whole generator against the reference's numbers (tiny2x), and what a small model must be able to do."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eg3d_golden import (
    GRADIENT,
    IMAGE,
    OP,
    PLANES,
    close,
    part,
    seeded_input,
    tiny2x,
    tiny2x_official,
    vectors,
)
from torch import Tensor

from guide_hub.eg3d import EG3D, EG3DConfig, RaySampling, RenderingConfig
from guide_hub.eg3d.camera import camera_label


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return vectors(shared, "tiny2x")


@pytest.fixture(scope="module")
def model(shared: Path) -> EG3D:
    return tiny2x(shared).requires_grad_(False)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def sub(planes: Tensor) -> Tensor:
    return planes.flatten(1, 2)[:, ::5, 3::17, 5::17]


def check(out: dict[str, Tensor], golden: dict[str, Tensor], mode: str) -> None:
    expected = part(golden, f"{mode}/")
    assert expected
    for name, value in expected.items():
        if not name.startswith("u_"):
            close(out[name], value, IMAGE)


# ----------------------------------------------------------------------------
# Goldens.


@pytest.mark.parametrize(
    ("name", "psi", "cutoff"),
    [("psi1", 1, None), ("psi0.7", 0.7, None), ("psi0.7_cutoff14", 0.7, 14), ("psi0.7_cutoff7", 0.7, 7)],
)
def test_mapping(model, golden, name, psi, cutoff):
    close(model.mapping(golden["z"], golden["c_cond"], psi, cutoff), golden[f"mapping/{name}"], OP)


def test_mapping_takes_doubles_and_other_cameras(model, golden):
    close(model.mapping(golden["z"].double(), golden["c"]), golden["mapping/psi1_c_is_c"], OP)


@pytest.mark.parametrize(
    ("option", "name"),
    [({"c_gen_conditioning_zero": True}, "psi1_cgen_zero"), ({"c_scale": 0.5}, "psi1_cscale0.5")],
)
def test_mapping_conditions(shared, golden, option, name):
    close(tiny2x(shared, **option).mapping(golden["z"], golden["c_cond"]), golden[f"mapping/{name}"], OP)


def test_moving_average_of_w(shared, golden):
    model = tiny2x(shared)
    model.mapping(golden["z"], golden["c_cond"], update_emas=True)
    close(model.w_avg, golden["mapping/w_avg_after_update_emas"], OP)


@pytest.mark.parametrize("mode", ["const", "none"])
def test_planes(model, golden, mode):
    planes = model.planes(golden["ws"], mode)
    assert planes.shape == (2, 3, 32, 256, 256)
    close(sub(planes), golden[f"planes_{mode}_sub"], PLANES)
    channels = planes.flatten(1, 2)
    close(channels.mean((2, 3)), golden[f"planes_{mode}_chmean"], PLANES)
    close(channels.std((2, 3)), golden[f"planes_{mode}_chstd"], PLANES)
    if mode == "const":
        close(sub(planes), golden["planes_const_unfused_sub"], PLANES)


def test_planes_with_random_noise(model, golden):
    torch.manual_seed(4321)
    close(sub(model.planes(golden["ws"], "random")), golden["planes_random_seed4321_sub"], PLANES)


def test_every_block(model, golden):
    synthesis = model.backbone.synthesis
    x = img = None
    row = 0
    for size in synthesis.resolutions:
        block, step = getattr(synthesis, f"b{size}"), max(1, size // 16)
        x, img = block(x, img, golden["ws"][:, row : row + block.num_layers + 1])
        row += block.num_layers
        close(x[:, ::2, ::step, ::step], golden[f"blocks/b{size}.x_sub"], PLANES)
        close(img[:, ::8, ::step, ::step], golden[f"blocks/b{size}.img_sub"], PLANES)


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        ("nojitter", {}),
        ("nojitter_nrr32", {"neural_rendering_resolution": 32}),
        ("nojitter_noise_none", {"noise_mode": "none"}),
    ],
)
def test_synthesis(model, golden, mode, call):
    out = model.synthesis(golden["ws"], golden["c"], deterministic=True, **call)
    check(out, golden, mode)


def test_train_mode_changes_nothing(shared, golden):
    model = tiny2x(shared).train()
    check(model.synthesis(golden["ws"], golden["c"], deterministic=True), golden, "nojitter_trainmode")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("noimp", {"depth_resolution_importance": 0}),
        ("white_back", {"white_back": True}),
        ("disparity", {"disparity_space_sampling": True}),
        ("box_warp1.6_auto", {"box_warp": 1.6, "ray_start": "auto", "ray_end": "auto"}),
    ],
)
def test_rendering_options(shared, golden, mode, options):
    out = tiny2x(shared, **options).synthesis(golden["ws"], golden["c"], deterministic=True)
    check(out, golden, f"nojitter_{mode}")


def test_given_draws(model, golden):
    draws = RaySampling(u_strat=golden["seeded1234/u_strat"], u_imp=golden["seeded1234/u_imp"])
    check(model.synthesis(golden["ws"], golden["c"], sampling=draws), golden, "seeded1234")
    half = RaySampling(deterministic=True, u_strat=torch.full((2, 256, 8, 1), 0.5))
    check(model.synthesis(golden["ws"], golden["c"], sampling=half), golden, "jitter0.5_detlin")


def test_global_stream_is_drawn_as_in_the_reference(model, golden):
    torch.manual_seed(1234)
    check(model.synthesis(golden["ws"], golden["c"]), golden, "seeded1234")
    generator = torch.Generator().manual_seed(1234)
    check(model.synthesis(golden["ws"], golden["c"], generator=generator), golden, "seeded1234")


def test_forward_with_truncation(model, golden):
    out = model(golden["z"], golden["c"], 0.7, 14, deterministic=True)
    check(out, golden, "forward_psi0.7_cut14")


def test_points(model, golden):
    out = model.sample_mixed(golden["sample_mixed/xyz"], None, golden["ws"])
    close(out["rgb"], golden["sample_mixed/rgb"], OP)
    close(out["sigma"], golden["sample_mixed/sigma"], PLANES)


def test_gradients(shared, golden):
    model = tiny2x(shared)
    ws = golden["ws"].clone().requires_grad_()
    with torch.enable_grad():
        out = model.synthesis(ws, golden["c"], deterministic=True)
        image = out["image"]
        loss = (image * seeded_input(shared, "R1", *image.shape)).mean()
        loss = loss + out["image_raw"].square().mean() + 0.1 * out["image_depth"].mean()
        loss.backward()
    close(loss.detach(), golden["grad/loss"], 1e-5)
    grads = {"ws": ws.grad} | {name: p.grad for name, p in model.named_parameters()}
    for name, expected in part(golden, "grad/").items():
        if name != "loss":
            assert (grads[name] - expected).norm() <= GRADIENT * expected.norm(), name
    norms = part(golden, "gradnorm/")
    assert set(norms) == {
        name for name, _ in model.named_parameters() if name.startswith("backbone.synthesis.")
    }
    for name, expected in norms.items():
        assert abs(grads[name].norm() - expected) <= GRADIENT * expected, name


def test_ffhq512_has_the_official_names_and_shapes(shared):
    golden = json.loads((shared / "golden" / "ffhq512" / "shapes.json").read_text())
    meta = golden["meta"]
    config = EG3DConfig.from_official(meta["init_kwargs"], 128)
    with torch.device("meta"):
        model = EG3D(config)
    state, params = model.state_dict(), dict(model.named_parameters())
    assert {name: list(value.shape) for name, value in state.items()} == {
        name: entry["shape"] for name, entry in golden["tensors"].items()
    }
    assert {name for name, e in golden["tensors"].items() if e["kind"] == "param"} == set(params)
    trained = {name for name, e in golden["tensors"].items() if e["guide_trainable"]}
    assert trained == {name for name in params if name.startswith("backbone.synthesis.")}
    assert sum(p.numel() for p in params.values()) == meta["num_params"]
    assert config.num_ws == meta["num_ws"]


def test_runtime_gains(shared):
    golden = json.loads((shared / "golden" / "ffhq512" / "shapes.json").read_text())
    with torch.device("meta"):
        model = EG3D(EG3DConfig.from_official(golden["meta"]["init_kwargs"], 128))
    for name, entry in golden["tensors"].items():
        if "runtime_gain" in entry:
            owner, kind = name.rsplit(".", 1)
            layer = model.get_submodule(owner)
            gain = layer.gain if kind == "weight" else layer.lr
            assert gain == pytest.approx(entry["runtime_gain"], rel=1e-6), name


# ----------------------------------------------------------------------------
# A small model: the same code, other sizes.

SMALL = EG3DConfig(
    z_dim=8, w_dim=16, img_resolution=32, mapping_lr_multiplier=1.0, channel_base=256, channel_max=16,
    plane_resolution=16, plane_channels=4, decoder_hidden=8, decoder_features=6,
    neural_rendering_resolution=16, superresolution="SuperresolutionHybrid2X", sr_widths=(8, 6),
    sr_input_resolution=16, rendering=RenderingConfig(depth_resolution=6, depth_resolution_importance=6,
    white_back=True),
)  # fmt: skip


def small(**changes: object) -> EG3D:
    torch.manual_seed(0)
    return EG3D(replace(SMALL, **changes)).eval()


def inputs(model: EG3D, n: int = 3) -> tuple[Tensor, Tensor]:
    z = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    c = camera_label(torch.linspace(-0.3, 0.3, n), -0.1)
    return model.mapping(z, c), c


def test_small_shapes():
    model = small()
    ws, c = inputs(model)
    assert ws.shape == (3, model.num_ws, 16) == (3, 6, 16)
    assert model.planes(ws).shape == (3, 3, 4, 16, 16)
    out = model.synthesis(ws, c)
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    assert shapes == {"image": (3, 3, 32, 32), "image_raw": (3, 3, 16, 16), "image_depth": (3, 1, 16, 16)}
    assert set(model.render(model.planes(ws), ws, c, superresolve=False)) == {"image_raw", "image_depth"}


def test_batch_equals_its_members():
    model = small()
    ws, c = inputs(model)
    together = model.synthesis(ws, c, deterministic=True)["image"]
    for i in range(3):
        alone = model.synthesis(ws[i : i + 1], c[i : i + 1], deterministic=True)["image"]
        close(alone[0], together[i], OP)


def test_deterministic_needs_no_random_numbers():
    model = small()
    ws, c = inputs(model)
    state = torch.get_rng_state()
    one = model.synthesis(ws, c, deterministic=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one["image"], model.synthesis(ws, c, deterministic=True)["image"])


def test_generator_drives_noise_and_rays():
    model = small()
    for name, value in model.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.1)
    ws, c = inputs(model)

    def image(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.synthesis(ws, c, noise_mode="random", generator=generator)["image"]

    state = torch.get_rng_state()
    assert torch.equal(image(3), image(3))
    assert not torch.equal(image(3), image(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_gradient_reaches_the_camera():
    model = small().requires_grad_(False)
    ws, c = inputs(model, 1)
    c = c.clone().requires_grad_()
    with torch.enable_grad():
        planes = model.planes(ws)
        loss = model.render(planes, ws, c, deterministic=True)["image_raw"].square().mean()
        (grad,) = torch.autograd.grad(loss, c)
    assert bool(grad.isfinite().all())
    assert grad.abs().max() > 1e-4


def test_copies_are_independent():
    model = small()
    twin = copy.deepcopy(model)
    assert twin.config == model.config
    twin.backbone.synthesis.b8.conv0.weight.add_(1)
    assert not torch.equal(twin.backbone.synthesis.b8.conv0.weight, model.backbone.synthesis.b8.conv0.weight)
    model.requires_grad_(False).backbone.synthesis.requires_grad_(True)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if n.startswith("backbone.synthesis.")
    }


def test_one_training_step_moves_everything():
    model = small(domain={"kind": "test"}).train()
    with torch.enable_grad():
        ws, c = inputs(model)
        out = model.synthesis(ws, c)
        (out["image"].square().mean() + out["image_depth"].mean()).backward()
    # noise of the super-resolution is off, and its modules know nothing of all but the last row of ws
    still = {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert still == {
        n for n, _ in model.named_parameters() if "superresolution" in n and "noise_strength" in n
    }


def test_image_raw_of_official_models_shares_the_reference_slip():
    plain, official = small(), small(image_raw_with_skip=True)
    ws, c = inputs(plain)
    raw, skip = (m.synthesis(ws, c, deterministic=True)["image_raw"] for m in (plain, official))
    assert (raw - skip).abs().max() > 1e-3
    resized = [
        m.synthesis(ws, c, deterministic=True, neural_rendering_resolution=8)["image_raw"]
        for m in (plain, official)
    ]
    assert torch.equal(*resized)


def test_config_may_be_a_dict():
    assert EG3D(json.loads(json.dumps(SMALL.to_dict()))).config == SMALL


def test_tiny2x_config(shared):
    official = tiny2x_official(shared)
    model = tiny2x(shared)
    assert model.config.neural_rendering_resolution == official["neural_rendering_resolution"] == 16
    assert model.num_ws == 14
