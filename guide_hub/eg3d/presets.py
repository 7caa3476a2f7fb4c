"""The released EG3D models, recognised by the options in their files; a file's name says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guide_hub.eg3d.config import EG3DConfig, RenderingConfig
from guide_hub.eg3d.model import EG3D
from guide_hub.eg3d.pretrained import misfits


@dataclass(frozen=True)
class Preset:
    """A released model. `gpc_reg_prob`, an option of training, is all that tells some of them apart.

    `assumed` names rendering options that are not documented beyond doubt: they are not compared.
    """

    config: EG3DConfig
    gpc_reg_prob: float | None = None
    assumed: tuple[str, ...] = ()


def _faces(rays: int, pivot_z: float = 0.2) -> EG3DConfig:
    return EG3DConfig(
        img_resolution=512,
        neural_rendering_resolution=rays,
        superresolution="SuperresolutionHybrid8XDC",
        sr_num_fp16_res=4,
        image_raw_with_skip=True,
        rendering=RenderingConfig(avg_camera_pivot=(0, 0, pivot_z)),
    )


_CARS = EG3DConfig(
    img_resolution=128,
    neural_rendering_resolution=64,
    superresolution="SuperresolutionHybrid2X",  # the only one that makes 128 px
    sr_num_fp16_res=4,  # as in the face models; nothing says so
    image_raw_with_skip=True,
    rendering=RenderingConfig(
        depth_resolution=64,
        depth_resolution_importance=64,
        ray_start=0.1,
        ray_end=2.6,
        box_warp=1.6,
        white_back=True,
        avg_camera_radius=1.7,
        avg_camera_pivot=(0, 0, 0),
    ),
)

PRESETS = {
    "ffhq512-64": Preset(_faces(64), gpc_reg_prob=0.5),
    "ffhq512-128": Preset(_faces(128), gpc_reg_prob=0.5),
    "ffhqrebalanced512-64": Preset(_faces(64), gpc_reg_prob=0.8),
    "ffhqrebalanced512-128": Preset(_faces(128), gpc_reg_prob=0.8),
    "afhqcats512-128": Preset(_faces(128, pivot_z=-0.06)),
    "shapenetcars128-64": Preset(_CARS, assumed=("ray_start", "ray_end", "c_gen_conditioning_zero")),
}


def recognise(config: EG3DConfig, gpc_reg_prob: object) -> str | None:
    """The released model that has these options, None for any other."""
    for name, preset in PRESETS.items():
        taken = {option: getattr(config.rendering, option) for option in preset.assumed}
        expected = replace(preset.config, rendering=replace(preset.config.rendering, **taken))
        if expected == replace(config, domain={}) and preset.gpc_reg_prob in (None, gpc_reg_prob):
            return name
    return None


def config_misfits(config: EG3DConfig, state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being the weights of a model with `config`, one line a tensor."""
    layers = sum(name.startswith("backbone.mapping.fc") for name in state)
    if config.mapping_layers > layers:  # before so many are built
        return [f"there are fewer than {config.mapping_layers} mapping layers"]
    with torch.device("meta"):
        return misfits(EG3D(config).state_dict(), state)


def fitting(state: Mapping[str, Tensor]) -> list[str]:
    """The released models whose tensors have these names and shapes."""
    return [name for name, preset in PRESETS.items() if not config_misfits(preset.config, state)]
