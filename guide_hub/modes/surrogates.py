"""Two erased people must not become the same face, and nobody a face that was erased."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guide_hub.guide.eraser import Eraser, step_seed
from guide_hub.latents import LatentSpace, Norm, norm_of

APART = 0.3  # least distance of two surrogates, in that of the later one from w_avg: an angle of 17 degrees
TURNS = 64
LOOKS = 16  # surrogates that are looked at, at most: then the least alike is taken
STRANGERS = 24  # random people: to some recognisers all faces are alike
ALIKE = 0.3  # from this cosine on, where most strangers are less alike, the surrogate is somebody else

Resemblance = Callable[[Tensor], float]


def set_apart(
    w_t: Tensor,
    others: Sequence[Tensor],
    space: LatentSpace,
    norm: Norm,
    seed: int,
    resemblance: Resemblance | None = None,
) -> Tensor:
    """`w_t` itself, or turned about w_avg towards random latents until no one of `others` is near, and until
    its `resemblance` to the erased is no longer above 0 (or the lowest of `LOOKS`).

    [1, num_ws, w_dim] each. Its length(s) from w_avg stay, by the recipe's norm. UFO sends people to the same
    place whose latents point the same way. Nearness is in W, over the whole tensor.
    """
    w_avg, rng = space.w_avg, torch.Generator().manual_seed(seed)
    offset, looked = w_t - w_avg, list[tuple[float, Tensor]]()
    length, least = norm_of(offset, norm), APART * norm_of(offset, "whole")

    def unit(w: Tensor) -> Tensor:
        return w / norm_of(w, norm)

    for _ in range(TURNS):
        if all(bool(norm_of(w_t - other, "whole") >= least) for other in others):
            looked.append((resemblance(w_t) if resemblance is not None else 0.0, w_t))
            if looked[-1][0] <= 0 or len(looked) == LOOKS:
                break
        towards = unit(space.random(1, rng) - w_avg)
        w_t = w_avg + length * unit(unit(w_t - w_avg) + towards)
    return min(looked, key=lambda pair: pair[0])[1] if looked else w_t


def resemblance_to(erased: Sequence[Tensor], eraser: Eraser) -> Resemblance:
    """How far the teacher's face at a latent is too like one of `erased`, to the loss's recogniser: at most 0
    where it is like nobody, or no liker than random people are.

    UFO's mirror image of a person can be somebody who was erased before: learning it, with all that lies
    around it, brings that person back, and shows them in the new one's place.
    """
    strangers = eraser.space.random(STRANGERS, torch.Generator().manual_seed(step_seed(-13)))
    them, theirs = (eraser.faces(eraser.teacher, ws) for ws in (torch.cat(list(erased)), strangers))

    def resemblance(w_t: Tensor) -> float:
        face = eraser.faces(eraser.teacher, w_t)[0]
        usual = float((theirs @ face).median())
        return float((them @ face).max()) - max(ALIKE, usual)

    return resemblance
