"""Figures with 95 % intervals: Student's t over a sample, the delete-a-group jackknife for statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Figure:
    """A figure, its 95 % interval and standard error; those are None where nothing tells them.

    `n` items of the kind `over` (views, photos, identities, people, samples) stand behind it.
    """

    value: float
    low: float | None
    high: float | None
    error: float | None
    n: int
    over: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def mean_figure(values: Sequence[float] | Tensor, over: str) -> Figure:
    """The mean of independent values and its t-interval."""
    sample = torch.as_tensor(values, dtype=torch.float64)
    n, mean = len(sample), float(sample.mean())
    error = float(sample.std()) / math.sqrt(n) if n > 1 else None
    return _figure(mean, error, n - 1, n, over)


def share_figure(values: Sequence[float], over: str) -> Figure:
    """The mean of shares in [0, 1], each of one item, and its Wilson interval, which has a width at 1 too."""
    n, share, z2 = len(values), sum(values) / len(values), NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    centre, spread = share + z2 / (2 * n), math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    low, high = ((centre + sign * spread) / (1 + z2 / n) for sign in (-1, 1))
    return Figure(share, max(low, 0.0), min(high, 1.0), math.sqrt(share * (1 - share) / n), n, over)


def jackknife(value: float, n: int, groups: int, without: Callable[[Tensor], float]) -> Figure:
    """The delete-a-group jackknife of a statistic of n samples.

    `without(keep)` is the statistic of the samples in the mask keep [n]; every `groups`-th sample is left out
    in turn. A bias that depends on n, as FID's, is common to all groups and cancels.
    """
    groups = min(groups, n)
    if n < 4:
        return _figure(value, None, 0, n, "samples")
    group = torch.arange(n) % groups
    left = torch.tensor([without(group != g) for g in range(groups)], dtype=torch.float64)
    error = math.sqrt((groups - 1) / groups * float((left - left.mean()).square().sum()))
    return _figure(value, error, groups - 1, n, "samples")


def _figure(value: float, error: float | None, freedom: int, n: int, over: str) -> Figure:
    if error is None:
        return Figure(value, None, None, None, n, over)
    half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
    return Figure(value, float(value - half), float(value + half), error, n, over)
