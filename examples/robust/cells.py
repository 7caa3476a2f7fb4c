"""Figures in a file as they come, and of what: others are neither taken for them nor written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guide_hub.attacks.budget import Budget
from guide_hub.attacks.reinversion import LENS, LIKELY_MAX
from guide_hub.digest import file_sha256
from guide_hub.faces.registry import BUNDLE

SEARCHED = (
    "rays", "restarts", "photos", "w_steps", "wplus_steps", "controls", "strangers", "beacon_restarts",
    "beacon_steps", "decoys",
)  # fmt: skip


def searched(budget: Budget) -> dict[str, Any]:
    """What re-inversion and the beacon may do."""
    return {field: getattr(budget, field) for field in SEARCHED}


def inputs(recipes: dict[str, str], **budgets: dict[str, Any]) -> dict[str, Any]:
    """Of figures of the builtin model: recipes by their digests, how a search is judged, and budgets."""
    return {
        "model": file_sha256(BUNDLE / "model.safetensors"),
        "recipes": recipes,
        "search": {"likely": LIKELY_MAX, "lens": list(LENS)},
        "budgets": budgets,
    }


def load(file: Path, of: dict[str, Any]) -> Any:
    """The cells in a file; None where there is none. SystemExit where they are of other inputs."""
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    if found.get("inputs") != of:
        raise SystemExit(f"{file.name} is of another model, recipe, search or device: move it away first")
    return found["cells"]
