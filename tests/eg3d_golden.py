"""Golden vectors of the generator, and weights and inputs that are made from their names."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from guide_hub.eg3d import EG3D, EG3DConfig

OP, PLANES, IMAGE, GRADIENT = 1e-5, 5e-5, 3e-4, 1e-3  # tolerances: absolute, but relative for gradients


@cache
def vectors(shared: Path, folder: str) -> dict[str, Tensor]:
    name = "slim" if folder == "tiny2x" else folder
    return load_file(shared / "golden" / folder / f"{name}.safetensors")


@cache
def seeded(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded", shared / "golden" / "seeded.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_input(shared: Path, name: str, *shape: int) -> Tensor:
    return torch.from_numpy(seeded(shared).seeded_input(name, *shape))


def fill_seeded(shared: Path, module: nn.Module, seed: int) -> None:
    """Every parameter and buffer from its name; FIR filters stay as built."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not name.endswith("resample_filter"):
                value.copy_(torch.as_tensor(seeded(shared).seeded_weight(name, tuple(value.shape), seed)))


def part(vectors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in vectors.items() if name.startswith(prefix)}


def tiny2x_official(shared: Path) -> dict:
    return json.loads((shared / "golden" / "tiny2x" / "config.json").read_text())


def tiny2x(shared: Path, **rendering: object) -> EG3D:
    """The golden generator in eval mode; `rendering` changes single options of its volume renderer."""
    official = tiny2x_official(shared)
    live = {**official["init_kwargs"]["rendering_kwargs"], **rendering}
    config = EG3DConfig.from_official(official["init_kwargs"], official["neural_rendering_resolution"], live)
    model = EG3D(config)
    model.load_state_dict(load_file(shared / "golden" / "tiny2x" / "state.safetensors"), strict=True)
    return model.eval()


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)
