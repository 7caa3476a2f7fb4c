"""Where an erased latent is sent: UFO (GUIDE, section 3.2) and the two targets it is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_hub.latents import LatentSpace, Norm, norm_of
from guide_hub.recipe import Target

__all__ = ["Norm", "average_target", "mixture_target", "norm_of", "ufo_target", "unit_of"]

MIXED = 3


def unit_of(target: Target, space: LatentSpace) -> float:
    """What the recipe's d and alpha_max are multiplied with."""
    return space.median_offset(norm=target.norm) if target.unit == "median_offset" else 1.0


def ufo_target(w_u: Tensor, w_avg: Tensor, d: float | Tensor, norm: Norm = "whole") -> Tensor:
    """Un-identifying face on latent space: `w_t = w_avg - d * w_id / ||w_id||`, `w_id = w_u - w_avg`.

    `w_u` [N, num_ws, w_dim]; `w_avg` broadcastable to it; `d` in the units of W. Raises ValueError where
    `w_u` is `w_avg` itself, which has no direction.
    """
    w_id = w_u - w_avg
    length = norm_of(w_id, norm)
    if not bool((length > 0).all()):
        raise ValueError("w_u equals w_avg: there is no identity direction to move along")
    return w_avg - d * w_id / length


def average_target(w_u: Tensor, w_avg: Tensor) -> Tensor:
    """The mean face, the paper's baseline target: `w_avg` [N, num_ws, w_dim]."""
    return w_avg.expand_as(w_u).clone()


def mixture_target(space: LatentSpace, d: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """`d` away from w_avg towards a random convex mixture of three random latents: [1, num_ws, w_dim].

    Not a function of the person, so it tells nothing of them. UFO's is the person's mirror image.
    """
    share = torch.rand(MIXED, generator=generator).log().neg()  # Dirichlet(1, 1, 1)
    w = space.random(MIXED, generator)
    mixed = (w * (share / share.sum()).to(w).view(-1, 1, 1)).sum(0, keepdim=True)
    offset = mixed - space.w_avg
    return space.w_avg + d * offset / norm_of(offset, norm)
