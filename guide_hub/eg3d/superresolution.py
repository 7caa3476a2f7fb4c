"""Super-resolution of the rendered feature image: the official modules as one class (EG3D section 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.eg3d.config import EG3DConfig
from guide_hub.eg3d.ops import fir_filter
from guide_hub.eg3d.synthesis import SynthesisBlock

FP16_CLAMP = 256.0


class Superresolution(nn.Module):
    """Two StyleGAN2 blocks driven by the last row of `ws`; which of the two upsample depends on the module's kind."""

    def __init__(self, config: EG3DConfig):
        super().__init__()
        kind = config.sr_kind
        if kind.img_resolution != config.img_resolution:
            raise ValueError(f"{config.superresolution} makes {kind.img_resolution} px, not {config.img_resolution}")
        self.kind = kind
        self.antialias = config.rendering.sr_antialias
        fp16 = config.sr_num_fp16_res > 0
        clamp = FP16_CLAMP if fp16 else None
        first = kind.img_resolution // 2
        ups = (2 if kind.first_block_upsamples else 1, 2)
        if kind.input_resolution * ups[0] * 2 != kind.img_resolution:
            raise ValueError(f"{config.superresolution} cannot turn {kind.input_resolution} into {kind.img_resolution}")
        shared = {"w_dim": config.w_dim, "img_channels": config.img_channels, "clamp": clamp, "fp16": fp16}
        a, b = kind.widths
        self.block0 = SynthesisBlock(config.decoder_features, a, resolution=first, up=ups[0], **shared)
        self.block1 = SynthesisBlock(a, b, resolution=kind.img_resolution, up=2, **shared)
        if kind.owns_filter:
            self.register_buffer("resample_filter", fir_filter())

    def forward(
        self,
        rgb: Tensor,
        x: Tensor,
        ws: Tensor,
        noise_mode: str = "none",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """rgb [N, 3, R, R], features x [N, F, R, R], ws [N, num_ws, w_dim] -> [N, 3, img, img]."""
        size = self.kind.input_resolution
        if x.shape[-1] != size and (self.kind.resize == "always" or x.shape[-1] < size):
            x, rgb = (
                F.interpolate(t, (size, size), mode="bilinear", align_corners=False, antialias=self.antialias)
                for t in (x, rgb)
            )
        if x.shape[-1] != size:
            raise ValueError(f"this super-resolution takes at most {size} rays a side, not {x.shape[-1]}")
        ws = ws[:, -1:].repeat(1, 3, 1)
        x, rgb = self.block0(x, rgb, ws, noise_mode, generator)
        x, rgb = self.block1(x, rgb, ws, noise_mode, generator)
        return rgb
