"""The random latents of a step: neighbours of the erased person and bystanders (GUIDE, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_hub.errors import InputError
from guide_hub.latents import LatentSpace, Norm, norm_of

__all__ = ["LatentSpace", "bystanders", "neighbour_offset", "outside"]

MAX_REDRAWS = 64


def neighbour_offset(w_u: Tensor, w_r: Tensor, alpha: Tensor, norm: Norm = "whole") -> Tensor:
    """`D = alpha * (w_r - w_u) / ||w_r - w_u||` (GUIDE, equation of L_adj): [N, num_ws, w_dim], alpha [N]."""
    offset = w_r - w_u
    return alpha.to(offset).view(-1, 1, 1) * offset / norm_of(offset, norm)


def outside(w: Tensor, centres: list[Tensor], radius: float, norm: Norm = "whole") -> Tensor:
    """Which of `w` [N, num_ws, w_dim] lie over `radius` from every centre: bool [N].

    With the norm `per_layer`, as `neighbour_offset` has it, inside is where every row is within `radius`.
    """
    keep = torch.ones(len(w), dtype=torch.bool, device=w.device)
    for centre in centres:
        keep &= (norm_of(w - centre, norm) > radius).flatten(1).any(1)
    return keep


def bystanders(
    space: LatentSpace,
    n: int,
    centres: list[Tensor],
    radius: float,
    generator: torch.Generator,
    norm: Norm = "whole",
) -> Tensor:
    """`n` random latents outside the balls around `centres`: the paper's L_global set, [n, num_ws, w_dim].

    Redraws those that fall inside, at most `MAX_REDRAWS` times; a space that is all ball raises InputError.
    """
    w = space.random(n, generator)
    for _ in range(MAX_REDRAWS):
        inside = ~outside(w, centres, radius, norm)
        if not bool(inside.any()):
            return w
        w = torch.where(inside.view(-1, 1, 1), space.random(n, generator), w)
    raise InputError(
        "no random latent lies outside the erased neighbourhoods", remedy="lower adjacency.alpha_max"
    )
