"""Super-resolution of the rendered feature image: EG3D's modules as one class (EG3D section 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.eg3d.config import EG3DConfig
from guide_hub.eg3d.ops import fir_filter
from guide_hub.eg3d.synthesis import SynthesisBlock
from guide_hub.errors import InputError

FP16_CLAMP = 256.0


class Superresolution(nn.Module):
    """Two StyleGAN2 blocks driven by the last row of `ws`. The second upsamples; in some kinds both do."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        kind = config.sr_kind
        self.input_resolution = kind.input_resolution
        self.only_enlarges = kind.resize == "enlarge"
        self.antialias = config.rendering.sr_antialias
        fp16 = config.sr_num_fp16_res > 0
        clamp = FP16_CLAMP if fp16 else None  # on every device, whatever it computes in
        up = kind.upsampling // 2
        (first, second), size = kind.widths, config.img_resolution
        w_dim, colors = config.w_dim, config.img_channels
        self.block0 = SynthesisBlock(
            config.decoder_features, first, w_dim, size // 2, colors, up=up, clamp=clamp, fp16=fp16
        )
        self.block1 = SynthesisBlock(first, second, w_dim, size, colors, up=2, clamp=clamp, fp16=fp16)
        if kind.owns_filter:
            self.register_buffer("resample_filter", fir_filter())  # unused, but official checkpoints carry it

    def forward(
        self,
        rgb: Tensor,
        x: Tensor,
        ws: Tensor,
        noise_mode: str = "none",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """rgb [N, 3, R, R], features x [N, F, R, R], ws [N, num_ws, w_dim] -> image [N, 3, H, W].

        The second result is the skip image after the first block, of that block's size.

        Other sizes R than the module's own are resized first. Raises InputError where R is larger and the
        module only enlarges.
        """
        rgb, x = self.resize(rgb), self.resize(x)
        ws = ws[:, -1:].to(torch.float32).expand(-1, 3, -1)
        x, skip = self.block0(x, rgb, ws, noise_mode, generator)
        return self.block1(x, skip, ws, noise_mode, generator)[1], skip

    def resize(self, x: Tensor) -> Tensor:
        """Bilinear, to the input size of the first block."""
        size, now = self.input_resolution, x.shape[-1]
        if now == size:
            return x
        if now > size and self.only_enlarges:
            raise InputError(f"this super-resolution takes at most {size} x {size} rays, not {now} x {now}")
        antialias = self.antialias and now > size  # nothing to filter where it grows
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=antialias)
