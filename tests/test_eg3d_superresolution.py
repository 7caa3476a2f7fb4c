"""Every super-resolution module against the reference's numbers."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from eg3d_golden import IMAGE, OP, close, fill_seeded, seeded_input, vectors

from guide_hub.eg3d import EG3DConfig
from guide_hub.eg3d.config import SUPERRESOLUTION
from guide_hub.eg3d.superresolution import Superresolution
from guide_hub.errors import InputError

SIZES = {"2X": (16, 64, 80), "4X": (64, 128), "8X": (64, 128), "8XDC": (64, 128), "Deepfp32": (128,)}
LARGE = {"8X", "8XDC"}  # 512 px: one case of each in the quick run


def build(name: str) -> Superresolution:
    kind = SUPERRESOLUTION[name]
    size = kind.input_resolution * kind.upsampling
    return Superresolution(EG3DConfig(img_resolution=size, superresolution=name, sr_num_fp16_res=4))


def cases() -> list:
    found = []
    for kind, sizes in SIZES.items():
        for size in sizes:
            for mode in ("none", "const"):
                slow = kind in LARGE and (size, mode) != ((64, "const") if kind == "8X" else (128, "none"))
                found.append(pytest.param(kind, size, mode, marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.mark.parametrize(("kind", "size", "mode"), cases())
def test_golden(shared: Path, kind, size, mode):
    name = f"SuperresolutionHybrid{kind}"
    golden = vectors(shared, "sr")
    module = build(name)
    fill_seeded(shared, module, seed=3)
    ws = seeded_input(shared, f"{name}ws", 1, 14, 512)
    x = seeded_input(shared, f"{name}{size}x", 1, 32, size, size)
    rgb = x[:, :3]
    with torch.no_grad():
        if (
            mode == "const"
            and size == module.input_resolution
            and not SUPERRESOLUTION[name].first_block_upsamples
        ):
            _, rgb = module(
                rgb, x, ws
            )  # the golden's `rgb`: the reference had added to it in place, in a run before
        image, _ = module(rgb, x, ws, mode)
    step = max(1, image.shape[-1] // 64)
    close(image[:, :, ::step, ::step], golden[f"{name}/in{size}/{mode}_sub"], IMAGE)
    if mode == "none":
        close(image[:, :, 40:72, 50:82], golden[f"{name}/in{size}/none_crop"], IMAGE)


@pytest.mark.parametrize("name", SUPERRESOLUTION)
def test_names_and_shapes(shared: Path, name):
    meta = json.loads((shared / "golden" / "sr" / "sr_meta.json").read_text())[name]
    with torch.device("meta"):
        module = build(name)
    assert {k: list(v.shape) for k, v in module.named_parameters()} == meta["params"]
    assert {k: list(v.shape) for k, v in module.named_buffers()} == meta["buffers"]
    assert sum(p.numel() for p in module.parameters()) == meta["num_params"]


def test_resizing(shared: Path):
    ops = vectors(shared, "ops")
    close(build("SuperresolutionHybrid2X").resize(ops["resize/x16"]), ops["resize/to64_aa"], OP)
    close(build("SuperresolutionHybrid8X").resize(ops["resize/x200"]), ops["resize/200to128_aa"], OP)


def test_without_antialiasing():
    x = torch.randn(1, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    module = build("SuperresolutionHybrid2X")
    module.antialias = False
    close(module.resize(x), F.interpolate(x, (64, 64), mode="bilinear"), OP)


def test_4x_only_enlarges():
    with torch.device("meta"):
        module, x = build("SuperresolutionHybrid4X"), torch.zeros(1, 32, 144, 144)
    with pytest.raises(InputError, match="at most 128 x 128 rays, not 144 x 144"):
        module.resize(x)
