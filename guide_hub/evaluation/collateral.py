"""Whom else N erasures touch: everybody whom the judge takes for one of the N.

A recogniser that takes two strangers for one at the rate f takes a random face for at least one of N people
at about 1 - (1 - f)^N. These faces are sent away with the erased ones, so a threshold that is fair to one
request is not to a hundred. With f = 0.01 / N it is about 1 % whatever N is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.evaluation.interval import Figure, share_figure

SHARE = 0.01  # of random people whom all erasures together may touch
EVERYBODY = "people"


def expected(n: int, far: float) -> float:
    """1 - (1 - f)^N, the share of random faces that N erasures touch at the false accept rate f."""
    return -math.expm1(n * math.log1p(-far))


def recommended_far(n: int) -> float:
    """The rate at which N erasures touch about 1 %."""
    return SHARE / n


@dataclass(frozen=True)
class Recommended:
    """The results again, at `far` = 0.01 / N: the largest share of a known person's views that is still
    verified, own ones and held-out photos' (None: there are none); the share of others' views that is."""

    far: float
    threshold: float
    erased: float
    others: float | None
    retained: float


@dataclass(frozen=True)
class Collateral:
    """`n`: everybody whom the record lists as erased. `expected`: of random faces, at the gate's `far`.

    Measured on random people, by one frontal picture each: `alike` is the share whom the judge took for at
    least one of `known` erased people before (None: nobody's photos are known), `changed` that of people who
    are no more taken for themselves. `recommended`: None where so small a rate cannot be seen.
    """

    n: int
    far: float
    expected: float
    known: int
    alike: Figure | None
    changed: Figure
    recommended: Recommended | None = None


@torch.no_grad()
def measure(
    n: int,
    far: float,
    threshold: float,
    erased: Sequence[Tensor],
    before: Tensor,
    after: Tensor,
    recommended: Recommended | None = None,
) -> Collateral:
    """erased: of each known person the judge's embeddings of the photos [P, E], compared by their mean.

    before, after [R, V, E]: of R random people, the middle view of whom is frontal.
    """
    frontal = before.shape[1] // 2
    old, new = before[:, frontal], after[:, frontal]
    changed = (old * new).sum(-1) < threshold
    alike = None
    if erased:
        people = torch.stack([photos.to(old).mean(0) for photos in erased])
        cosine = old @ torch.nn.functional.normalize(people, dim=1).T
        alike = share_figure((cosine >= threshold).any(1).double().tolist(), EVERYBODY)
    return Collateral(
        n, far, expected(n, far), len(erased), alike,
        share_figure(changed.double().tolist(), EVERYBODY), recommended,
    )  # fmt: skip
