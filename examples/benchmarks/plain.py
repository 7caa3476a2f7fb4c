"""EG3D in plain operations, as its formulas read: nothing merged, spared or reordered to be quick.

    with plain_operations():
        ...                                  # guide_hub's generators compute like this in here

In there a baseline does not profit from the quicker operations that guide_hub has in their place. Equal to
those but for rounding. Written from the papers (StyleGAN2, arXiv 1912.04958; EG3D, arXiv 2112.07945) for
CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guide_hub.eg3d.ops import FullyConnected, SynthesisLayer, ToRGB
from guide_hub.eg3d.rendering import Decoder, RaySampling, Renderer, ray_limits
from guide_hub.eg3d.superresolution import Superresolution
from guide_hub.eg3d.synthesis import SynthesisBlock

# ----------------------------------------------------------------------------
# Layers


def bias_act(x: Tensor, bias: Tensor, act: str = "linear", clamp: float | None = None) -> Tensor:
    """Bias, activation, gain and clamp, one after the other: x [N, C, ...]."""
    x = x + bias.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, 0.2) * 2**0.5
    return x if clamp is None else x.clamp(-clamp, clamp)


def fully_connected(self: FullyConnected, x: Tensor) -> Tensor:
    """x [..., in] -> [..., out] in the input's own precision."""
    weight, bias = self.weight.to(x.dtype) * self.gain, self.bias.to(x.dtype) * self.lr
    y = x.reshape(-1, x.shape[-1]) @ weight.t()
    return bias_act(y, bias, self.act).reshape(*x.shape[:-1], -1)


def upfirdn(x: Tensor, kernel: Tensor, up: int, padding: tuple[int, int], gain: float) -> Tensor:
    """`up - 1` zeros after every sample, zeros around, the filter [k, k]: x [N, C, H, W]."""
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(n, channels, height * up, width * up), padding * 2)
    weight = (kernel * gain).flip(0, 1).to(x.dtype)[None, None].repeat(channels, 1, 1, 1)
    return F.conv2d(x, weight, groups=channels)


def modulated_conv(
    x: Tensor, weight: Tensor, styles: Tensor, kernel: Tensor | None = None, demodulate: bool = True
) -> Tensor:
    """As in training mode: activations are scaled before and after, by factors from each sample's kernel."""
    scale = None
    if demodulate:
        own = weight[None] * styles[:, None, :, None, None]  # [N, O, I, k, k]
        scale = (own.square().sum((2, 3, 4)) + 1e-8).rsqrt()
    x = x * styles.to(x.dtype)[:, :, None, None]
    if kernel is None:
        x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
    else:
        x = F.conv_transpose2d(x, weight.to(x.dtype).transpose(0, 1), stride=2)
        x = upfirdn(x, kernel, 1, (1, 1), gain=4)
    return x if scale is None else x * scale.to(x.dtype)[:, :, None, None]


def synthesis_layer(
    self: SynthesisLayer,
    x: Tensor,
    w: Tensor,
    noise_mode: str = "const",
    generator: torch.Generator | None = None,
) -> Tensor:
    x = modulated_conv(x, self.weight, self.affine(w), self.resample_filter if self.up == 2 else None)
    noise = self.noise(noise_mode, len(x), generator)
    if noise is not None:
        x = x + noise.to(x.dtype)
    return bias_act(x, self.bias, "lrelu", self.clamp)


def to_rgb(self: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    x = modulated_conv(x, self.weight, self.affine(w) * self.gain, demodulate=False)
    return bias_act(x, self.bias, clamp=self.clamp)


def synthesis_block(
    self: SynthesisBlock,
    x: Tensor | None,
    img: Tensor | None,
    ws: Tensor,
    noise_mode: str = "const",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    rows = iter(ws.unbind(1))
    if x is None:
        x = self.const[None].repeat(len(ws), 1, 1, 1)
    else:
        x = self.conv0(x, next(rows), noise_mode, generator)
    x = self.conv1(x, next(rows), noise_mode, generator)
    rgb = self.torgb(x, next(rows))
    if img is not None:
        rgb = rgb + (upfirdn(img, self.resample_filter, 2, (2, 1), gain=4) if self.up == 2 else img)
    return x, rgb


def superresolution(
    self: Superresolution,
    rgb: Tensor,
    x: Tensor,
    ws: Tensor,
    noise_mode: str = "none",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The last row of ws keeps its precision: released neighbours have float64."""
    rgb, x, ws = self.resize(rgb), self.resize(x), ws[:, -1:].repeat(1, 3, 1)
    x, skip = self.block0(x, rgb, ws, noise_mode, generator)
    return self.block1(x, skip, ws, noise_mode, generator)[1], skip


# ----------------------------------------------------------------------------
# Volume rendering


def look_up(planes: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """Planes [N, 3, C, H, W] at points [N, P, 3], bilinear, 0 outside: [N, 3, P, C]."""
    n, _, channels, height, width = planes.shape
    x, y, z = (points * (2 / box_warp)).unbind(-1)
    grid = torch.stack([torch.stack(axes, -1) for axes in ((x, y), (x, z), (z, x))], 1)
    found = F.grid_sample(
        planes.reshape(n * 3, channels, height, width), grid.reshape(n * 3, 1, -1, 2),
        mode="bilinear", padding_mode="zeros", align_corners=False,
    )  # fmt: skip
    return found.permute(0, 3, 2, 1).reshape(n, 3, -1, channels)


def decode(decoder: Decoder, features: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 3, P, C] -> colours [N, P, F], densities [N, P, 1]."""
    first, last = decoder.net[0], decoder.net[2]
    out = fully_connected(last, F.softplus(fully_connected(first, features.mean(1))))
    return torch.sigmoid(out[..., 1:]) * 1.002 - 0.001, out[..., :1]


def march(colors: Tensor, sigma: Tensor, depths: Tensor, white_back: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted samples [N, M, S, ...] -> features [N, M, F], depth [N, M, 1], weights [N, M, S - 1, 1]."""
    steps = depths[:, :, 1:] - depths[:, :, :-1]
    color, density, depth = ((v[:, :, 1:] + v[:, :, :-1]) / 2 for v in (colors, sigma, depths))
    alpha = 1 - torch.exp(-F.softplus(density - 1) * steps)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], 2), 2)[:, :, :-1]
    weights = alpha * through
    total = weights.sum(2)
    seen = (weights * color).sum(2)
    far = ((weights * depth).sum(2) / total).nan_to_num(float("inf")).clamp(depths.min(), depths.max())
    if white_back:
        seen = seen + 1 - total
    return seen * 2 - 1, far, weights


@torch.no_grad()
def fine_depths(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths [N, M, S, 1] and coarse weights [N, M, S - 1, 1] -> [N, M, I, 1] for u [N * M, I]."""
    n, m, samples, _ = depths.shape
    z, w = depths.reshape(n * m, samples), weights.reshape(n * m, 1, samples - 1)
    w = F.avg_pool1d(F.max_pool1d(w, 2, stride=1, padding=1), 2, stride=1)[:, 0] + 0.01
    edges, w = (z[:, :-1] + z[:, 1:]) / 2, w[:, 1:-1] + 1e-5
    cdf = torch.cumsum(w / w.sum(1, keepdim=True), 1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], 1)
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=w.shape[1])
    both = torch.stack([below, above], 2).reshape(n * m, -1)
    c = cdf.gather(1, both).reshape(*u.shape, 2)
    b = edges.gather(1, both).reshape(*u.shape, 2)
    span = c[..., 1] - c[..., 0]
    span = torch.where(span < 1e-5, torch.ones_like(span), span)
    found = b[..., 0] + (u - c[..., 0]) / span * (b[..., 1] - b[..., 0])
    return found.reshape(n, m, -1, 1)


def renderer(
    self: Renderer, planes: Tensor, decoder: Decoder, origins: Tensor, directions: Tensor, how: RaySampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse pass, marched with its graph; fine pass; both sorted with their colours; one more march."""
    config = self.config
    n, m, _ = origins.shape
    coarse, fine = config.depth_resolution, config.depth_resolution_importance
    if how.u_strat is not None or how.u_imp is not None or config.disparity_space_sampling:
        raise NotImplementedError("given draws and disparity are not part of the benchmark")

    def drawn(*size: int) -> Tensor:
        device = how.generator.device if how.generator is not None else planes.device
        return torch.rand(size, generator=how.generator, device=device).to(planes.device)

    def sample(depths: Tensor) -> tuple[Tensor, Tensor]:
        points = (origins[:, :, None] + depths * directions[:, :, None]).reshape(n, -1, 3)
        colors, sigma = decode(decoder, look_up(planes, points, config.box_warp))
        if config.density_noise > 0 and not how.deterministic:
            sigma = sigma + torch.randn_like(sigma) * config.density_noise
        return colors.reshape(n, m, -1, colors.shape[-1]), sigma.reshape(n, m, -1, 1)

    start, end = ray_limits(origins, directions, config)
    even = torch.linspace(0, 1, coarse, device=planes.device).reshape(1, 1, coarse, 1)
    start, end = (v[..., None] if isinstance(v, Tensor) else v for v in (start, end))
    depths = (start + even * (end - start)).expand(n, m, coarse, 1)
    if not how.deterministic:
        depths = depths + drawn(n, m, coarse, 1) * ((end - start) / (coarse - 1))
    colors, sigma = sample(depths)
    seen, depth, weights = march(colors, sigma, depths, config.white_back)
    if fine:
        if how.deterministic:
            u = torch.linspace(0, 1, fine, device=planes.device).expand(n * m, fine)
        else:
            u = drawn(n * m, fine)
        more = fine_depths(depths, weights, u)
        more_colors, more_sigma = sample(more)
        depths = torch.cat([depths, more], 2)
        colors, sigma = torch.cat([colors, more_colors], 2), torch.cat([sigma, more_sigma], 2)
        depths, order = depths.sort(2)
        colors = colors.gather(2, order.expand(-1, -1, -1, colors.shape[-1]))
        seen, depth, weights = march(colors, sigma.gather(2, order), depths, config.white_back)
    return seen, depth, weights.sum(2)


# ----------------------------------------------------------------------------

PLAIN: dict[tuple[type, str], Callable[..., Any]] = {
    (FullyConnected, "forward"): fully_connected,
    (SynthesisLayer, "forward"): synthesis_layer,
    (ToRGB, "forward"): to_rgb,
    (SynthesisBlock, "forward"): synthesis_block,
    (Superresolution, "forward"): superresolution,
    (Renderer, "__call__"): renderer,
}


@contextmanager
def plain_operations(plain: bool = True) -> Iterator[None]:
    """For the block, generators compute in plain operations. KeyError: one has lost what is replaced."""
    kept = {place: place[0].__dict__[place[1]] for place in PLAIN} if plain else {}
    try:
        for cls, name in kept:
            setattr(cls, name, PLAIN[cls, name])
        yield
    finally:
        for (cls, name), own in kept.items():
            setattr(cls, name, own)
