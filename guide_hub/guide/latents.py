"""The random latents of a step: neighbours of the erased person and bystanders (GUIDE, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label
from guide_hub.guide.target import Norm, norm_of

MAX_REDRAWS = 64


class LatentSpace:
    """W of one model: random latents, its mean and its scale. Conditions on the frontal camera at psi 1."""

    def __init__(self, model: EG3D):
        self.model = model
        self.device = model.w_avg.device
        self.cond = camera_label(0.0, 0.0, pivot=model.config.rendering.avg_camera_pivot).to(self.device)
        self.w_avg = model.w_avg.detach().expand(1, model.num_ws, -1)

    @torch.no_grad()
    def map(self, z: Tensor) -> Tensor:
        """`Map(z)`: z [N, z_dim] -> ws [N, num_ws, w_dim]."""
        return self.model.mapping(z.to(self.device), self.cond.expand(len(z), -1))

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` latents of z ~ N(0, I), drawn on the generator's device: one seed means the same everywhere."""
        return self.map(torch.randn(n, self.model.config.z_dim, generator=generator))

    def median_offset(self, n: int = 1000, norm: Norm = "whole", seed: int = 0) -> float:
        """Median of `||w - w_avg||` over `n` random latents: the unit of d and alpha_max in small models."""
        w = self.random(n, torch.Generator().manual_seed(seed))
        return float(norm_of(w - self.w_avg, norm).median())


def neighbour_offset(w_u: Tensor, w_r: Tensor, alpha: Tensor, norm: Norm = "whole") -> Tensor:
    """`D = alpha * (w_r - w_u) / ||w_r - w_u||` (GUIDE, equation of L_adj): [N, num_ws, w_dim], alpha [N]."""
    offset = w_r - w_u
    return alpha.to(offset).view(-1, 1, 1) * offset / norm_of(offset, norm)


def outside(w: Tensor, centres: list[Tensor], radius: float) -> Tensor:
    """Which of `w` [N, num_ws, w_dim] lie over `radius` (whole-tensor norm) from every centre: bool [N]."""
    keep = torch.ones(len(w), dtype=torch.bool, device=w.device)
    for centre in centres:
        keep &= norm_of(w - centre, "whole").flatten() > radius
    return keep


def bystanders(
    space: LatentSpace, n: int, centres: list[Tensor], radius: float, generator: torch.Generator
) -> Tensor:
    """`n` random latents outside the balls around `centres`: the paper's L_global set, [n, num_ws, w_dim].

    Redraws those that fall inside, at most `MAX_REDRAWS` times; a space that is all ball raises RuntimeError.
    """
    w = space.random(n, generator)
    for _ in range(MAX_REDRAWS):
        inside = ~outside(w, centres, radius)
        if not bool(inside.any()):
            return w
        w = torch.where(inside.view(-1, 1, 1), space.random(n, generator), w)
    raise RuntimeError("no random latent lies outside the erased neighbourhoods; lower adjacency.alpha_max")
