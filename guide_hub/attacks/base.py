"""What every attack is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.networks import Networks
from guide_hub.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Case:
    """One erased person, and all that an attacker or an auditor may have of them. Private.

    `ws` [1 + H, num_ws, w_dim]: the erased latent, then those of H held-out photos. `photos` [P, 3, S, S] in
    [-1, 1]: the `fitted` ones that found `ws[0]`, then the H held-out ones. `threshold`: the judge's cosine
    from which on two pictures show one person. `w_t`: what the person was sent to, where that is known.
    `folder`: what is to be published, for the scan of it, and `secrets` that no file of it may hold, such as
    file names and pieces of photos. `apart`: latents of single fitted photos, for the scan alone. `memo`:
    what was found of the two models alone, for their other people.
    """

    source: EG3D
    erased: EG3D
    recipe: Recipe
    networks: Networks
    ws: Tensor = field(repr=False)
    photos: Tensor = field(repr=False)
    fitted: int
    threshold: float
    seed: int = 0
    w_t: Tensor | None = field(default=None, repr=False)
    folder: Path | None = field(default=None, repr=False)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    apart: Tensor | None = field(default=None, repr=False)
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Curve:
    """One plot: lines over `x`, and horizontal limits such as the threshold. Averages, never pictures."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    lines: dict[str, list[float | None]]
    limits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Finding:
    """What one attack found of one person.

    `passed`: whether its own pass `rule` (one sentence, with the figures it asks for) holds; None where
    nothing could be judged, and `rule` says why. `figures`: averages that may be published. `curves` are of
    averages too. `pictures`: rows of renders [N, 3, H, W] in [-1, 1] under their captions, for the private
    report alone, since they may show the person. `seconds`: wall time.
    """

    attack: str
    title: str
    passed: bool | None
    rule: str
    figures: dict[str, float | int | None]
    curves: list[Curve] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict, repr=False)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """What may be published of it: no curves, no pictures, no time."""
        return {"attack": self.attack, "passed": self.passed, "rule": self.rule, "figures": self.figures}
