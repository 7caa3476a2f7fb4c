"""Two erased people must not become the same face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_hub.latents import LatentSpace, Norm, norm_of

APART = 0.3  # least distance of two surrogates, in that of the later one from w_avg: an angle of 17 degrees
TURNS = 64


def set_apart(w_t: Tensor, others: Sequence[Tensor], space: LatentSpace, norm: Norm, seed: int) -> Tensor:
    """`w_t` itself, or turned about w_avg towards random latents until no one of `others` is near.

    [1, num_ws, w_dim] each. Its length(s) from w_avg stay, by the recipe's norm. UFO sends people to the same
    place whose latents point the same way. The measure is in W, over the whole tensor: no picture is needed.
    """
    w_avg, rng = space.w_avg, torch.Generator().manual_seed(seed)
    offset = w_t - w_avg
    length, least = norm_of(offset, norm), APART * norm_of(offset, "whole")

    def unit(w: Tensor) -> Tensor:
        return w / norm_of(w, norm)

    for _ in range(TURNS):
        if all(bool(norm_of(w_t - other, "whole") >= least) for other in others):
            break
        towards = unit(space.random(1, rng) - w_avg)
        w_t = w_avg + length * unit(unit(w_t - w_avg) + towards)
    return w_t
