"""Writes files in the official pickle format around any tensors, with stand-ins for the official classes."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.eg3d.official_pickle import PLANE_AXES

BUFFERS = ("w_avg", "noise_const", "resample_filter")
SOURCE = "import os\nraise SystemExit('the embedded source ran')\n"

RENDERING = {
    "image_resolution": 128, "disparity_space_sampling": False, "clamp_mode": "softplus",
    "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "c_gen_conditioning_zero": False, "gpc_reg_prob": 0.5, "c_scale": 1, "superresolution_noise_mode": "none",
    "density_reg": 0.25, "density_reg_p_dist": 0.004, "reg_type": "l1", "decoder_lr_mul": 1,
    "sr_antialias": True, "depth_resolution": 4, "depth_resolution_importance": 4, "ray_start": 2.25,
    "ray_end": 3.3, "box_warp": 1, "avg_camera_radius": 2.7, "avg_camera_pivot": [0, 0, 0.2],
}  # fmt: skip
SMALL = {
    "z_dim": 8, "c_dim": 25, "w_dim": 16, "img_resolution": 128, "img_channels": 3, "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2}, "rendering_kwargs": RENDERING,
    "sr_kwargs": {"channel_base": 256, "channel_max": 2, "fused_modconv_default": "inference_only"},
    "channel_base": 256, "channel_max": 2, "fused_modconv_default": "inference_only", "num_fp16_res": 0,
    "conv_clamp": None,
}  # fmt: skip
RAYS = 8
FULL = SMALL | {  # FFHQ 512
    "z_dim": 512, "w_dim": 512, "img_resolution": 512, "channel_base": 32768, "channel_max": 512,
    "sr_kwargs": {"channel_base": 32768, "channel_max": 512, "fused_modconv_default": "inference_only"},
    "rendering_kwargs": RENDERING
    | {
        "image_resolution": 512, "depth_resolution": 48, "depth_resolution_importance": 48,
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
    },
}  # fmt: skip


def small_model(seed: int = 0) -> EG3D:
    """Random weights of the smallest official configuration."""
    torch.manual_seed(seed)
    model = EG3D(EG3DConfig.from_official(SMALL, RAYS)).requires_grad_(False)
    model.w_avg.normal_()
    return model


def toy_state() -> dict[str, Tensor]:
    """Tensors enough for the reader, not for a model."""
    torch.manual_seed(1)
    shapes = {
        "backbone.mapping.w_avg": (4,),
        "backbone.mapping.fc0.weight": (4, 3),
        "backbone.synthesis.b4.conv1.weight": (2, 3, 3, 3),
        "backbone.synthesis.b4.conv1.noise_strength": (),
        "backbone.synthesis.b4.conv1.resample_filter": (4, 4),
        "decoder.net.0.bias": (5,),
    }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@dataclass
class Persistent:
    """An instance of a class with upstream's decorator."""

    class_name: str
    state: dict[str, Any]
    source: str = SOURCE

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class", "version": 6, "module_src": self.source, "class_name": self.class_name,
            "state": self.state,
        }  # fmt: skip
        return _RECONSTRUCT, (meta,)


def inert(module: str, name: str, state: dict[str, Any]) -> Any:
    """An instance of an undecorated class."""
    made = object.__new__(_name(module, name))
    made.__dict__ = state
    return made


def easy_dict(values: dict[str, Any]) -> Any:
    return _name("dnnlib.util", "EasyDict", dict)(values)


@dataclass
class Official:
    """How to write one generator; the fields are what real files differ in."""

    state: dict[str, Tensor]
    init_kwargs: dict[str, Any] = field(default_factory=lambda: SMALL)
    rendering_kwargs: dict[str, Any] | None = None
    rays: Any = RAYS
    axes: Any = PLANE_AXES
    class_name: str = "TriPlaneGenerator"
    mapping: type = dict  # OrderedDict in files of old torch
    more: dict[str, Any] = field(default_factory=dict)  # of the generator's own state

    def module(self, **own: Any) -> dict[str, Any]:
        hooks = {f"_{name}_hooks": OrderedDict() for name in ("forward", "backward", "state_dict")}
        parts = {f"_{name}": self.mapping() for name in ("parameters", "buffers", "modules")}
        return {"training": False, **parts, "_non_persistent_buffers_set": set(), **hooks, **own}

    def generator(self) -> Persistent:
        root = self.module()
        for name, value in self.state.items():
            *path, last = name.split(".")
            kind = "_buffers" if last in BUFFERS else "_parameters"
            self._child(root, path)[kind][last] = value if kind == "_buffers" else nn.Parameter(value, False)
        renderer = self.module(plane_axes=torch.tensor(self.axes, dtype=torch.float32))
        renderer["_modules"]["ray_marcher"] = inert(
            "training.volumetric_rendering.ray_marcher", "MipRayMarcher2", self.module()
        )
        root["_modules"]["renderer"] = inert(
            "training.volumetric_rendering.renderer", "ImportanceRenderer", renderer
        )
        root["_modules"]["ray_sampler"] = inert(
            "training.volumetric_rendering.ray_sampler", "RaySampler", self.module()
        )
        live = (
            self.rendering_kwargs
            if self.rendering_kwargs is not None
            else self.init_kwargs["rendering_kwargs"]
        )
        root |= {
            "neural_rendering_resolution": self.rays, "rendering_kwargs": live, "_last_planes": None,
            "_init_args": (), "_init_kwargs": easy_dict(self.init_kwargs), **self.more,
        }  # fmt: skip
        return Persistent(self.class_name, root)

    def _child(self, node: dict[str, Any], path: list[str]) -> dict[str, Any]:
        for depth, part in enumerate(path):
            children = node["_modules"]
            if part not in children:
                children[part] = self._made(path[: depth + 1])
            made = children[part]
            node = made.state if isinstance(made, Persistent) else made.__dict__
        return node

    def _made(self, path: list[str]) -> Any:
        if path == ["decoder"]:
            return inert("training.triplane", "OSGDecoder", self.module())
        if path == ["decoder", "net"]:
            net = self.module()
            net["_modules"]["1"] = inert("torch.nn.modules.activation", "Softplus", self.module(beta=1))
            return inert("torch.nn.modules.container", "Sequential", net)
        gains = {"weight_gain": np.float64(0.25), "passing": torch.zeros(2)}
        return Persistent(path[-1], self.module(**gains))


def dumps(content: Any, protocol: int = 4, old_numpy: bool = False) -> bytes:
    """The pickle. `old_numpy` names numpy's scalars as numpy 1 does."""
    out = io.BytesIO()
    with _importable():
        (_OldNumpy if old_numpy else pickle.Pickler)(out, protocol).dump(content)
    return out.getvalue()


def official_file(official: Official, **how: Any) -> bytes:
    """{training_set_kwargs, G, D, G_ema, augment_pipe} with one generator, as in the golden files."""
    kwargs = easy_dict({"class_name": "training.dataset.ImageFolderDataset", "resolution": 128})
    return dumps(
        {
            "training_set_kwargs": kwargs,
            "G": None,
            "D": None,
            "G_ema": official.generator(),
            "augment_pipe": None,
        },
        **how,
    )


class _OldNumpy(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            return _OLD_SCALAR, value.__reduce__()[1]
        return NotImplemented


_MADE: dict[tuple[str, str], Any] = {}


def _name(module: str, name: str, base: type = object) -> Any:
    """A class or function that pickles by this name; instances of the class by NEWOBJ and BUILD."""
    if (module, name) not in _MADE:
        if name.startswith("_") or name == "scalar":

            def made(*args: Any) -> None: ...

            made.__name__ = made.__qualname__ = name
            made.__module__ = module
            _MADE[module, name] = made
        else:
            _MADE[module, name] = type(name, (base,), {"__module__": module})
    return _MADE[module, name]


_RECONSTRUCT = _name("torch_utils.persistence", "_reconstruct_persistent_obj")
_OLD_SCALAR = _name("numpy.core.multiarray", "scalar")


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    modules: dict[str, ModuleType] = {}
    for (module, name), made in _MADE.items():
        modules.setdefault(module, ModuleType(module)).__dict__[name] = made
        top = module.partition(".")[0]
        if top not in sys.modules:
            modules.setdefault(top, ModuleType(top))
    with patch.dict(sys.modules, modules):
        yield
