"""Volume rendering: decoder, sampling along rays, compositing (EG3D sections 4.1, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.eg3d.config import EG3DConfig, RenderingConfig
from guide_hub.eg3d.ops import FullyConnected, Softplus, draw
from guide_hub.eg3d.triplanes import TriPlanes

Limit = float | Tensor


@dataclass(frozen=True)
class RaySampling:
    """Where randomness along rays comes from.

    `deterministic` puts every stratified jitter at 0, draws importance samples at u = linspace(0, 1) and
    leaves density noise out. Otherwise `generator` (or the global stream) drives all, unless the numbers
    are given: `u_strat` [N, M, S, 1] in [0, 1), `u_imp` [N * M, I] in [0, 1].
    """

    deterministic: bool = False
    generator: torch.Generator | None = None
    u_strat: Tensor | None = None
    u_imp: Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """One pass along M rays: depths and raw densities [N, M, S], colours [N, M, S, F]."""

    depths: Tensor
    sigma: Tensor
    colors: Tensor


class Decoder(nn.Module):
    """EG3D's small decoder: mean plane feature to density and colour features."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        lr = config.rendering.decoder_lr_mul
        self.net = nn.Sequential(
            FullyConnected(config.plane_channels, config.decoder_hidden, lr=lr),
            Softplus(),
            FullyConnected(config.decoder_hidden, 1 + config.decoder_features, lr=lr),
        )

    def forward(self, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Mean plane features [N, P, C] -> colours [N, P, F] in [-0.001, 1.001], raw density [N, P, 1]."""
        out = self.net(sampled)
        return torch.sigmoid(out[..., 1:]) * 1.002 - 0.001, out[..., :1]


# ----------------------------------------------------------------------------
# Where to sample.


def box_limits(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Where rays [N, M, 3] enter and leave the cube of `side`, [N, M, 1] each; a miss is (-1, -2)."""
    inverse = 1 / directions
    one, other = (-side / 2 - origins) * inverse, (side / 2 - origins) * inverse
    enter = torch.minimum(one, other).amax(-1, keepdim=True)
    leave = torch.maximum(one, other).amin(-1, keepdim=True)
    miss = enter > leave
    return enter.masked_fill(miss, -1.0), leave.masked_fill(miss, -2.0)


@torch.no_grad()
def ray_limits(origins: Tensor, directions: Tensor, config: RenderingConfig) -> tuple[Limit, Limit]:
    """First and last depth of rays [N, M, 3]: the configured numbers, or [N, M, 1] each for "auto".

    Rays that miss the box run from the nearest entry to the farthest *entry*, as in the reference.
    """
    if config.ray_start != "auto" and config.ray_end != "auto":
        return config.ray_start, config.ray_end
    start, end = box_limits(origins, directions, config.box_warp)
    hit = end > start
    if not bool(hit.any()):
        return start, end
    entries = start[hit]
    return torch.where(hit, start, entries.min()), torch.where(hit, end, entries.max())


def stratified_depths(start: Limit, end: Limit, jitter: Tensor, disparity: bool = False) -> Tensor:
    """Depths [N, M, S] at even steps from `start` to `end`, or even in 1 / depth with `disparity`.

    `jitter` [N, M, S] in [0, 1) moves each by that part of a step, the last one beyond `end`.
    """
    samples = jitter.shape[-1]
    if disparity:
        s = torch.linspace(0, 1, samples, device=jitter.device) + jitter / (samples - 1)
        return 1 / (1 / start * (1 - s) + 1 / end * s)
    if isinstance(start, Tensor) or isinstance(end, Tensor):
        t = start + torch.linspace(0, 1, samples, device=jitter.device) * (end - start)
    else:
        t = torch.linspace(start, end, samples, device=jitter.device)
    return t + jitter * ((end - start) / (samples - 1))


def sample_pdf(bins: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-transform sampling: edges bins [R, B], weights [R, B - 2], u [R, I] in [0, 1] -> [R, I].

    B edges would take B - 1 weights: the last edge is never reached. Released models were trained with that.
    """
    weights = weights + 1e-5
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), dim=-1)
    cdf = F.pad(cdf, (1, 0))
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=weights.shape[-1])
    c_lo, c_hi = cdf.gather(1, below), cdf.gather(1, above)
    b_lo, b_hi = bins.gather(1, below), bins.gather(1, above)
    span = c_hi - c_lo
    return b_lo + (u - c_lo) / span.masked_fill(span < 1e-5, 1) * (b_hi - b_lo)


@torch.no_grad()
def importance_depths(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths [N, M, I] where the coarse pass found density; they carry no gradient.

    `depths` [N, M, S] and interval `weights` [N, M, S - 1] are the coarse pass's; u [N * M, I] in [0, 1].
    """
    n, m, samples = depths.shape
    z = depths.reshape(n * m, samples)
    w = weights.reshape(n * m, 1, samples - 1)
    w = F.avg_pool1d(F.max_pool1d(w, 2, stride=1, padding=1), 2, stride=1).squeeze(1) + 0.01
    return sample_pdf((z[:, :-1] + z[:, 1:]) / 2, w[:, 1:-1], u).view(n, m, -1)


# ----------------------------------------------------------------------------
# Compositing (Max 1995; NeRF, equation 3), with densities and colours averaged to the middle of each
# interval.


def interval_weights(sigma: Tensor, depths: Tensor) -> Tensor:
    """How much each interval between sorted samples [N, M, S] is seen: [N, M, S - 1]."""
    density = F.softplus((sigma[..., :-1] + sigma[..., 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-density * depths.diff(dim=-1))
    through = torch.cumprod(1 - alpha + 1e-10, dim=-1)
    return alpha * F.pad(through[..., :-1], (1, 0), value=1.0)


def composite(passes: list[Samples], white_back: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Passes along the same rays to features [N, M, F] in [-1, 1], depth [N, M, 1], total weight [N, M, 1].

    One pass must be in order; several are sorted together. Depth is limited to the batch's samples, and an
    empty ray has the farthest. `white_back` fills what is not covered with 1, else it is -1.
    """
    depths = torch.cat([p.depths for p in passes], dim=-1)
    sigma = torch.cat([p.sigma for p in passes], dim=-1)
    order = None
    if len(passes) > 1:
        depths, order = depths.sort(dim=-1)
        sigma = sigma.gather(-1, order)
    weights = interval_weights(sigma, depths)
    total = weights.sum(-1, keepdim=True)

    # An interval's colour is the mean of its ends', so a sample counts half of the intervals on its two
    # sides. Put back in the passes' own order, these shares spare sorting the colours themselves.
    shares = (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0))) / 2
    if order is not None:
        shares = torch.zeros_like(shares).scatter(-1, order, shares)
    parts = shares.split([p.depths.shape[-1] for p in passes], dim=-1)
    seen = [share.unsqueeze(-2) @ p.colors for share, p in zip(parts, passes, strict=True)]
    rgb = torch.stack(seen).sum(0).squeeze(-2)
    if white_back:
        rgb = rgb + 1 - total

    empty = total == 0
    middles = (depths[..., :-1] + depths[..., 1:]) / 2
    depth = (weights * middles).sum(-1, keepdim=True) / total.masked_fill(empty, 1)
    depth = depth.masked_fill(empty, torch.inf).clamp(depths.min(), depths.max())
    return rgb * 2 - 1, depth, total


# ----------------------------------------------------------------------------


class Renderer:
    """Tri-planes along rays to features; holds options, no parameters."""

    def __init__(self, config: RenderingConfig) -> None:
        self.config = config

    def query(
        self, planes: Tensor, decoder: Decoder, points: Tensor, how: RaySampling | None = None
    ) -> tuple[Tensor, Tensor]:
        """Colours [N, P, F] and raw densities [N, P, 1] at world points [N, P, 3]."""
        return self._at(TriPlanes(planes, self.config.box_warp), decoder, points, how or RaySampling())

    def _at(
        self, planes: TriPlanes, decoder: Decoder, points: Tensor, how: RaySampling
    ) -> tuple[Tensor, Tensor]:
        colors, sigma = decoder(planes.features(points))
        if self.config.density_noise > 0 and not how.deterministic:
            noise = draw(torch.randn, tuple(sigma.shape), how.generator, sigma.device)
            sigma = sigma + noise * self.config.density_noise
        return colors, sigma

    def __call__(
        self, planes: Tensor, decoder: Decoder, origins: Tensor, directions: Tensor, how: RaySampling
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Planes [N, 3, C, P, P] along rays [N, M, 3]: what `composite` makes of coarse and fine samples."""
        config = self.config
        rays, fine = origins.shape[:2], config.depth_resolution_importance
        start, end = ray_limits(origins, directions, config)
        scene = TriPlanes(planes, config.box_warp)
        jitter = self._uniform((*rays, config.depth_resolution), how, how.u_strat, planes.device)
        if jitter is None:
            jitter = torch.zeros((*rays, config.depth_resolution), device=planes.device)
        depths = stratified_depths(start, end, jitter, config.disparity_space_sampling)
        passes = [self._along(scene, decoder, origins, directions, depths=depths, how=how)]
        if fine:
            with torch.no_grad():  # coarse weights only place the fine samples
                weights = interval_weights(passes[0].sigma, depths)
            u = self._uniform((rays[0] * rays[1], fine), how, how.u_imp, planes.device)
            if u is None:
                u = torch.linspace(0, 1, fine, device=planes.device).expand(rays[0] * rays[1], -1)
            depths = importance_depths(depths, weights, u)
            passes.append(self._along(scene, decoder, origins, directions, depths=depths, how=how))
        return composite(passes, config.white_back)

    def _uniform(
        self, size: tuple[int, ...], how: RaySampling, given: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """Numbers in [0, 1]: given, drawn, or None where the sampling is deterministic."""
        if given is not None:
            return given.to(device).reshape(size)
        return None if how.deterministic else draw(torch.rand, size, how.generator, device)

    def _along(
        self,
        planes: TriPlanes,
        decoder: Decoder,
        origins: Tensor,
        directions: Tensor,
        *,
        depths: Tensor,
        how: RaySampling,
    ) -> Samples:
        n, m, s = depths.shape
        points = origins.unsqueeze(2) + depths.unsqueeze(3) * directions.unsqueeze(2)
        colors, sigma = self._at(planes, decoder, points.reshape(n, m * s, 3), how)
        return Samples(depths, sigma.view(n, m, s), colors.view(n, m, s, -1))
