"""Merges the weight changes of models that were erased independently of each other, from one original.

TIES (Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv
2306.01708, section 3) of the changes, there called task vectors; plain sum and mean to compare with. A delta
holds a model's weights minus the original's, by name: `difference` makes one, `apply` adds one.

Sums are in float64, so the order of the deltas makes no difference beyond its rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def ties(deltas: Sequence[Weights], density: float, scale: float) -> dict[str, Tensor]:
    """`scale` times the TIES merge of `deltas`: trim, elect, disjoint mean (algorithm 1).

    `density`, in (0, 1], is the share of each delta's numbers that is kept, the largest by magnitude over
    all its tensors; numbers as large as the smallest of those are kept too. At each place, the sign with
    more mass over all deltas is elected (with as much on either side: none, and the result is 0), and those
    of that sign are averaged. Names, shapes and dtypes are those of the deltas. ValueError: they differ, or
    there is none.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be over 0 and at most 1, not {density}")
    names = _names(deltas)
    floors = [_floor(delta, density) for delta in deltas]
    merged = {}
    for name in names:
        up, down, ups, downs = (torch.zeros_like(deltas[0][name], dtype=torch.float64) for _ in range(4))
        for delta, floor in zip(deltas, floors, strict=True):
            value = delta[name].detach().double()
            value = torch.where(value.abs() >= floor, value, 0.0)
            up += value.clamp(min=0)
            down += value.clamp(max=0)
            ups += value > 0
            downs += value < 0
        mass = up + down
        mean = torch.where(mass > 0, up / ups.clamp(min=1), down / downs.clamp(min=1))
        merged[name] = (scale * torch.where(mass == 0, 0.0, mean)).to(deltas[0][name].dtype)
    return merged


def summed(deltas: Sequence[Weights], scale: float = 1.0) -> dict[str, Tensor]:
    """`scale` times the plain sum: task arithmetic (Ilharco et al. 2023). ValueError as with `ties`."""
    found = {}
    for name in _names(deltas):
        total = torch.zeros_like(deltas[0][name], dtype=torch.float64)
        for delta in deltas:
            total += delta[name].detach().double()
        found[name] = (scale * total).to(deltas[0][name].dtype)
    return found


def averaged(deltas: Sequence[Weights], scale: float = 1.0) -> dict[str, Tensor]:
    """`scale` times the plain mean. ValueError as with `ties`."""
    return summed(deltas, scale / max(len(deltas), 1))


def difference(erased: Weights, original: Weights, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """`erased - original`, of `names`, by default of all floating-point tensors.

    `ties` trims over all that is in a delta, so name the trained weights alone where others are in the model.
    ValueError: the two have other names, shapes or dtypes.
    """
    _same(erased, original)
    if names is None:
        names = [name for name, value in original.items() if value.is_floating_point()]
    return {name: erased[name].detach() - original[name].detach() for name in names}


def apply(original: Weights, delta: Weights) -> dict[str, Tensor]:
    """`original + delta`, a state dict: what the delta does not name stays. ValueError: unknown names."""
    unknown = delta.keys() - original.keys()
    if unknown:
        raise ValueError(f"the original has no {', '.join(sorted(unknown))}")
    return {
        name: value.detach() + delta[name] if name in delta else value.detach().clone()
        for name, value in original.items()
    }


def _names(deltas: Sequence[Weights]) -> list[str]:
    if not deltas:
        raise ValueError("there is nothing to merge")
    for delta in deltas[1:]:
        _same(delta, deltas[0])
    return list(deltas[0])


def _same(one: Weights, other: Weights) -> None:
    def shape(weights: Weights) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (value.shape, value.dtype) for name, value in weights.items()}

    if shape(one) != shape(other):
        raise ValueError("names, shapes or dtypes are not the same")


def _floor(delta: Weights, density: float) -> Tensor:
    """The smallest magnitude that is kept, float64."""
    sizes = torch.cat([value.detach().double().abs().reshape(-1) for value in delta.values()])
    kept = max(round(density * len(sizes)), 1)
    return torch.kthvalue(sizes, len(sizes) - kept + 1).values
