"""What is screened against re-inversion: `heads-fast`, and each defence alone and together."""

from __future__ import annotations

import dataclasses
from typing import Any

from guide_hub.attacks.budget import FULL
from guide_hub.recipe import Recipe, load_recipe

SHORT = dataclasses.replace(FULL, restarts=2, photos=1, w_steps=50, wplus_steps=50, controls=0, strangers=1)

Options = dict[str, dict[str, Any]]  # recipe section -> option -> value

MINE = {"mine_every": 5, "mine_steps": 20}
REPEL = {"repel": 1.0, "repel_above": 0.2}
WPLUS = {"towards": "wplus"}
# the loop must not end before the defences have had their steps
LONGER = {"speed": {"check_every": 0}, "optim": {"iterations": 40}}

OPTIONS: dict[str, tuple[str, Options]] = {
    "heads": ("GUIDE's losses as the recipe `heads` has them, 60 steps", {}),
    "heads-fast": ("as shipped", {}),
    "longer": ("40 steps", LONGER),
    "mine": ("40 steps, an attacker's finds join every step", {**LONGER, "robust": MINE}),
    "repel": ("40 steps, repulsion from the person as the source shows them", {**LONGER, "robust": REPEL}),
    "wplus": ("40 steps, neighbours in any direction of W+", {**LONGER, "adjacency": WPLUS}),
    "mixture": ("40 steps, sent to a mixture of three people", {**LONGER, "target": {"kind": "mixture"}}),
    "decoys": ("40 steps, two decoys erased along", {**LONGER, "robust": {"decoys": 2}}),
    "mine-repel": ("40 steps, both", {**LONGER, "robust": {**MINE, **REPEL}}),
    "all": (
        "40 steps, all but decoys",
        {**LONGER, "robust": {**MINE, **REPEL}, "adjacency": WPLUS, "target": {"kind": "mixture"}},
    ),
}  # fmt: skip


def recipe_of(name: str) -> Recipe:
    recipe = load_recipe("heads" if name == "heads" else "heads-fast")
    for section, values in OPTIONS[name][1].items():
        recipe = dataclasses.replace(
            recipe, **{section: dataclasses.replace(getattr(recipe, section), **values)}
        )
    return recipe
