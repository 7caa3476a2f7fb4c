"""Volume rendering of tri-planes: look-up, decoder, sampling along rays, ray marching (EG3D sections 4.1, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.eg3d.config import RenderingConfig
from guide_hub.eg3d.ops import FullyConnected, draw

PLANE_AXES = ((0, 1), (0, 2), (2, 0))  # (x, y), (x, z), (z, x): the released models' planes; none is (y, z)


@dataclass(frozen=True)
class RaySampling:
    """Where randomness along rays comes from.

    `deterministic` puts every stratified jitter at 0 and draws importance samples at u = linspace(0, 1). Otherwise
    `generator` (or the global stream) drives both, unless the numbers are given: `u_strat` [N, M, S, 1] in [0, 1),
    `u_imp` [N * M, I].
    """

    deterministic: bool = False
    generator: torch.Generator | None = None
    u_strat: Tensor | None = None
    u_imp: Tensor | None = None


class Decoder(nn.Module):
    """EG3D's lightweight decoder: mean plane feature -> density and colour features."""

    def __init__(self, channels: int, hidden: int, features: int, lr_mul: float = 1.0):
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(channels, hidden, lr=lr_mul),
            nn.Softplus(),
            FullyConnected(hidden, 1 + features, lr=lr_mul),
        )

    def forward(self, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Plane features [N, 3, P, C] -> colours [N, P, F] in about [0, 1], raw density [N, P, 1]."""
        out = self.net(sampled.mean(1))
        return torch.sigmoid(out[..., 1:]) * (1 + 2 * 0.001) - 0.001, out[..., :1]


def sample_planes(planes: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """Bilinear features of planes [N, 3, C, P, P] at world points [N, M, 3] -> [N, 3, M, C]; zero outside the box."""
    n, _, channels, height, width = planes.shape
    points = points * (2 / box_warp)
    grid = torch.stack([points[..., list(axes)] for axes in PLANE_AXES], dim=1)
    out = F.grid_sample(
        planes.reshape(n * 3, channels, height, width), grid.reshape(n * 3, 1, -1, 2),
        mode="bilinear", padding_mode="zeros", align_corners=False,
    )  # fmt: skip
    return out.permute(0, 3, 2, 1).reshape(n, 3, -1, channels)


def box_limits(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Where rays [N, M, 3] enter and leave the cube of `side` about the origin: [N, M, 1] each; a miss is (-1, -2)."""
    near_corner = (torch.full_like(origins, -side / 2) - origins) / directions
    far_corner = (torch.full_like(origins, side / 2) - origins) / directions
    near = torch.minimum(near_corner, far_corner).amax(-1, keepdim=True)
    far = torch.maximum(near_corner, far_corner).amin(-1, keepdim=True)
    miss = near > far
    return near.masked_fill(miss, -1.0), far.masked_fill(miss, -2.0)


def stratified_depths(
    start: float | Tensor, end: float | Tensor, shape: tuple[int, int], samples: int, disparity: bool,
    jitter: Tensor | float,
) -> Tensor:  # fmt: skip
    """Depths [N, M, S, 1] in even strata; `jitter` in [0, 1) moves each by a part of its stratum."""
    device = start.device if isinstance(start, Tensor) else None
    device = jitter.device if isinstance(jitter, Tensor) else device
    if isinstance(start, Tensor) and isinstance(end, Tensor):
        steps = torch.linspace(0, 1, samples, device=device).view(1, 1, -1, 1)
        start, end = start.unsqueeze(2), end.unsqueeze(2)
        if disparity:
            s = steps + jitter / (samples - 1)
            return 1 / (1 / start * (1 - s) + 1 / end * s)
        return start + steps * (end - start) + jitter * ((end - start) / (samples - 1))
    assert not isinstance(start, Tensor)
    assert not isinstance(end, Tensor)
    if disparity:
        s = torch.linspace(0, 1, samples, device=device).view(1, 1, -1, 1).expand(*shape, -1, -1)
        s = s + jitter / (samples - 1)
        return 1 / (1 / start * (1 - s) + 1 / end * s)
    t = torch.linspace(start, end, samples, device=device).view(1, 1, -1, 1).expand(*shape, -1, -1)
    return t + jitter * ((end - start) / (samples - 1))


def composite_weights(sigma: Tensor, depths: Tensor) -> Tensor:
    """Weights [N, M, S-1, 1] of the intervals between samples, from raw densities and depths [N, M, S, 1]."""
    deltas = depths[:, :, 1:] - depths[:, :, :-1]
    density = F.softplus((sigma[:, :, :-1] + sigma[:, :, 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-density * deltas)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], dim=2), dim=2)
    return alpha * through[:, :, :-1]


def march(colors: Tensor, sigma: Tensor, depths: Tensor, white_back: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Composites sorted samples: colours [N, M, S, F] -> ([N, M, F] in [-1, 1], depth [N, M, 1], weights).

    Depth of an empty ray becomes the batch's largest, as in the reference.
    """
    weights = composite_weights(sigma, depths)
    rgb = (weights * (colors[:, :, :-1] + colors[:, :, 1:]) / 2).sum(2)
    total = weights.sum(2)
    depth = (weights * (depths[:, :, :-1] + depths[:, :, 1:]) / 2).sum(2) / total
    depth = torch.nan_to_num(depth, nan=float("inf")).clamp(depths.min(), depths.max())
    if white_back:
        rgb = rgb + 1 - total
    return rgb * 2 - 1, depth, weights


def sample_pdf(bins: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-transform samples: bins [R, B], weights [R, B - 2], u [R, I] -> [R, I].

    There are two weights fewer than the reference's edges would need, so the last edge is never reached; released
    models were trained with that.
    """
    weights = weights + 1e-5
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below = (index - 1).clamp(min=0)
    above = index.clamp(max=weights.shape[-1])
    c_lo, c_hi = cdf.gather(1, below), cdf.gather(1, above)
    b_lo, b_hi = bins.gather(1, below), bins.gather(1, above)
    span = c_hi - c_lo
    span = torch.where(span < 1e-5, torch.ones_like(span), span)
    return b_lo + (u - c_lo) / span * (b_hi - b_lo)


@torch.no_grad()
def importance_depths(depths: Tensor, weights: Tensor, samples: int, how: RaySampling) -> Tensor:
    """Second-pass depths [N, M, I, 1] where the coarse pass [N, M, S, 1] found density; carries no gradient."""
    n, m, coarse, _ = depths.shape
    w = weights.reshape(n * m, 1, coarse - 1)
    w = F.avg_pool1d(F.max_pool1d(w, 2, 1, padding=1), 2, 1).squeeze(1) + 0.01
    z = depths.reshape(n * m, coarse)
    bins = (z[:, :-1] + z[:, 1:]) / 2
    if how.u_imp is not None:
        u = how.u_imp.to(z)
    elif how.deterministic:
        u = torch.linspace(0, 1, samples, device=z.device).expand(n * m, samples)
    else:
        u = draw(torch.rand, (n * m, samples), how.generator, z.device)
    return sample_pdf(bins, w[:, 1:-1], u).view(n, m, samples, 1)


class Renderer:
    """Tri-planes along rays to feature rows; holds options, no parameters."""

    def __init__(self, config: RenderingConfig):
        self.config = config

    def query(
        self, planes: Tensor, decoder: Decoder, points: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Colours and raw densities at world points [N, P, 3]."""
        colors, sigma = decoder(sample_planes(planes, points, self.config.box_warp))
        if self.config.density_noise > 0:
            noise = draw(torch.randn, tuple(sigma.shape), generator, sigma.device)
            sigma = sigma + noise * self.config.density_noise
        return colors, sigma

    def limits(self, origins: Tensor, directions: Tensor) -> tuple[float | Tensor, float | Tensor]:
        config = self.config
        if config.ray_start != "auto" and config.ray_end != "auto":
            return float(config.ray_start), float(config.ray_end)
        start, end = box_limits(origins, directions, config.box_warp)
        hit = end > start
        if bool(hit.any()):  # a miss takes the nearest entry and, as in the reference, the farthest *entry*
            entries = start[hit]
            start, end = (
                torch.where(hit, start, entries.min()),
                torch.where(hit, end, entries.max()),
            )
        return start, end

    def __call__(
        self, planes: Tensor, decoder: Decoder, origins: Tensor, directions: Tensor, how: RaySampling
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rays [N, M, 3] -> features [N, M, F] in [-1, 1], depth [N, M, 1], total weight [N, M, 1]."""
        config = self.config
        n, m, _ = origins.shape
        coarse, fine = config.depth_resolution, config.depth_resolution_importance
        start, end = self.limits(origins, directions)
        jitter: Tensor | float
        if how.u_strat is not None:
            jitter = how.u_strat.to(origins)
        elif how.deterministic:
            jitter = torch.zeros((n, m, coarse, 1), device=origins.device)
        else:
            jitter = draw(torch.rand, (n, m, coarse, 1), how.generator, origins.device)
        depths = stratified_depths(start, end, (n, m), coarse, config.disparity_space_sampling, jitter)
        colors, sigma = self._along(planes, decoder, origins, directions, depths, how)
        if fine > 0:
            with torch.no_grad():  # coarse weights only place the fine samples
                weights = composite_weights(sigma, depths)
            fine_depths = importance_depths(depths, weights, fine, how)
            fine_colors, fine_sigma = self._along(planes, decoder, origins, directions, fine_depths, how)
            depths = torch.cat([depths, fine_depths], dim=2)
            depths, order = depths.sort(dim=2)
            sigma = torch.cat([sigma, fine_sigma], dim=2).gather(2, order)
            colors = torch.cat([colors, fine_colors], dim=2)
            colors = colors.gather(2, order.expand(-1, -1, -1, colors.shape[-1]))
        rgb, depth, weights = march(colors, sigma, depths, config.white_back)
        return rgb, depth, weights.sum(2)

    def _along(
        self, planes: Tensor, decoder: Decoder, origins: Tensor, directions: Tensor, depths: Tensor, how: RaySampling
    ) -> tuple[Tensor, Tensor]:
        n, m, s, _ = depths.shape
        points = (origins.unsqueeze(2) + depths * directions.unsqueeze(2)).reshape(n, m * s, 3)
        colors, sigma = self.query(planes, decoder, points, how.generator)
        return colors.view(n, m, s, -1), sigma.view(n, m, s, 1)
