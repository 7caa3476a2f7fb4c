"""The retained people most like an erased one: they suffer first (arXiv 2511.07970), and five are enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_hub.guide.eraser import Eraser, Erasure, step_seed
from guide_hub.guide.latents import outside

POOL = 4096  # random latents, the same for every run
POOL_SEED = -5
RENDERED = 64  # those of the pool that point the same way in W are looked at


@torch.no_grad()
def nearest(
    eraser: Eraser, erasures: Sequence[Erasure], erased: Sequence[Tensor], n: int, pool_seed: int = POOL_SEED
) -> Tensor:
    """For each of `erasures` the `n` random people whom the loss's recogniser finds most alike.

    Alike in the teacher's frontal pictures: by distance in W the latents close to w_avg would be everybody's
    neighbours. W only chooses whom to render, by the direction from w_avg. Nobody inside a ball around one of
    `erased`, nobody twice: [at most n * len(erasures), num_ws, w_dim]. Another `pool_seed` finds people whom
    no erasure protects.
    """
    space = eraser.space
    pool = space.random(POOL, torch.Generator().manual_seed(step_seed(pool_seed)))
    pool = pool[outside(pool, list(erased), eraser.alpha_max, eraser.recipe.target.norm)]
    directions, chosen = _directions(pool - space.w_avg), list[int]()
    for erasure in erasures:
        near = (directions @ _directions(erasure.w_u - space.w_avg)[0]).argsort(descending=True, stable=True)
        near = near[:RENDERED]
        shown = eraser.faces(eraser.teacher, torch.cat([erasure.w_u, pool[near]]))
        alike = (shown[1:] @ shown[0]).argsort(descending=True, stable=True)
        chosen += [k for k in near[alike].tolist() if k not in chosen][:n]
    return pool[chosen]


def _directions(offset: Tensor) -> Tensor:
    return torch.nn.functional.normalize(offset.flatten(1), dim=1)
