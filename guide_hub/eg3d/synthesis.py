"""The StyleGAN2 skip backbone that makes the tri-planes (EG3D section 4.1). This is what GUIDE trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guide_hub.eg3d.config import MIN_RESOLUTION, EG3DConfig
from guide_hub.eg3d.mapping import MappingNetwork
from guide_hub.eg3d.ops import SynthesisLayer, ToRGB, fir_filter, upsample2d


class SynthesisBlock(nn.Module):
    """One resolution: two layers (one at 4 x 4, which starts from a constant) and its part of the skip image.

    `up` is 1 for the super-resolution blocks that keep their input's size. `fp16` counts on CUDA only.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        up: int = 2,
        clamp: float | None = None,
        fp16: bool = False,
    ) -> None:
        super().__init__()
        self.up = up
        self.fp16 = fp16
        self.num_layers = 2 if c_in else 1
        self.register_buffer("resample_filter", fir_filter())  # unused, but official checkpoints carry it
        if c_in:
            self.conv0 = SynthesisLayer(c_in, c_out, w_dim, resolution, up=up, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.randn(c_out, resolution, resolution))
        self.conv1 = SynthesisLayer(c_out, c_out, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(c_out, img_channels, w_dim, clamp)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x [N, I, H, W], img [N, img_channels, H, W], ws [N, num_layers + 1, w_dim] -> both at this size."""
        rows = iter(ws.unbind(1))
        dtype = torch.float16 if self.fp16 and ws.is_cuda else torch.float32
        if x is None:
            x = self.const.to(dtype).expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), next(rows), noise_mode, generator)
        x = self.conv1(x, next(rows), noise_mode, generator)
        rgb = self.torgb(x, next(rows)).to(torch.float32)
        if img is not None:
            rgb = rgb + (upsample2d(img) if self.up == 2 else img)
        return x, rgb


class SynthesisNetwork(nn.Module):
    """`backbone.synthesis`: ws to the tri-planes as one image."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        levels = range(MIN_RESOLUTION.bit_length() - 1, config.plane_resolution.bit_length())
        self.resolutions = [1 << level for level in levels]
        fp16_from = max((2 * config.plane_resolution) >> config.num_fp16_res, 8)
        c_in = 0
        for resolution in self.resolutions:
            c_out = min(config.channel_base // resolution, config.channel_max)
            block = SynthesisBlock(
                c_in, c_out, config.w_dim, resolution, 3 * config.plane_channels,
                clamp=config.conv_clamp, fp16=config.num_fp16_res > 0 and resolution >= fp16_from,
            )  # fmt: skip
            self.add_module(f"b{resolution}", block)
            c_in = c_out

    def forward(
        self, ws: Tensor, noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """ws [N, num_ws, w_dim] -> [N, 3 C, P, P]. A toRGB shares its row with the next block's conv0."""
        ws = ws.to(torch.float32)
        x = img = None
        row = 0
        for resolution in self.resolutions:
            block = getattr(self, f"b{resolution}")
            x, img = block(x, img, ws[:, row : row + block.num_layers + 1], noise_mode, generator)
            row += block.num_layers
        assert img is not None
        return img


class Backbone(nn.Module):
    """`backbone`: the official name for mapping and synthesis together."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config)
