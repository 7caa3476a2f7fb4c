"""What the paper's tables are made of: one cell a scenario, recipe and identity."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from guide_hub.digest import file_sha256
from guide_hub.recipe import Gate, Inversion, load_recipe

MODEL = Path(__file__).resolve().parents[2] / "guide_hub" / "builtin" / "synthetic_heads"
EXTRACTOR, SAMPLES, SAMPLE_SEED = "inception", 500, 0
SCENARIOS = ("random", "ind", "ood")
GUIDE, BASELINE = "heads", "heads-baseline"
IDENTITIES = 5  # of each scenario in the main table
ABLATED, ABLATION_SCENARIO = 3, "ood"  # of them in the ablations
D = {0.0: "heads-target-average", 0.5: "heads-d-0.5", 1.0: GUIDE, 1.5: "heads-d-1.5", 2.0: "heads-d-2"}
ALPHA_MAX = {0.3: "heads-alpha-0.3", 0.6: "heads-alpha-0.6", 0.9: GUIDE, 1.2: "heads-alpha-1.2"}
LOSSES = {
    "L_local, target w_avg (baseline)": BASELINE,
    "L_local, target UFO": "heads-local",
    "L_local + L_adj": "heads-no-global",
    "L_local + L_global": "heads-no-adjacency",
    "L_local + L_adj + L_global (GUIDE)": GUIDE,
}
TARGETS = {"average": "heads-target-average", "random": "heads-target-random", "ufo": GUIDE}


@dataclass(frozen=True)
class Cell:
    scenario: str
    recipe: str
    identity: int  # also the seed of its erasure

    @property
    def name(self) -> str:
        return f"{self.scenario}_{self.recipe}_{self.identity}"


def erasure_digest(recipe: str) -> str:
    """Of what a recipe says about erasing: how latents are found and judged is the same in all cells."""
    return replace(load_recipe(recipe), inversion=Inversion(), gate=Gate()).digest()


@cache
def _of_all_cells() -> dict[str, Any]:
    domain = json.loads((MODEL / "config.json").read_text())["domain"]
    return {
        "model_sha256": file_sha256(MODEL / "model.safetensors"), "judge": domain["identity_judge"],
        "extractor": EXTRACTOR, "samples": SAMPLES, "sample_seed": SAMPLE_SEED,
    }  # fmt: skip


def inputs(cell: Cell | None) -> dict[str, Any]:
    """What a stored result must have been made with to count; None: the floors."""
    return _of_all_cells() | ({"erasure_digest": erasure_digest(cell.recipe)} if cell else {})


def cells() -> list[Cell]:
    """The whole grid, the main table first, then the ablations; identity by identity."""
    main = [
        Cell(scenario, recipe, identity)
        for identity in range(IDENTITIES)
        for scenario in SCENARIOS
        for recipe in (GUIDE, BASELINE)
    ]
    recipes = [r for table in (LOSSES, D, ALPHA_MAX, TARGETS) for r in table.values()]
    ablations = [
        Cell(ABLATION_SCENARIO, recipe, identity) for identity in range(ABLATED) for recipe in recipes
    ]
    return list(dict.fromkeys(main + ablations))
