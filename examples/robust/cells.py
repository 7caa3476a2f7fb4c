"""Figures in a file as they come, and of what: others are neither taken for them nor written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guide_hub.attacks.budget import Budget
from guide_hub.attacks.reinversion import LENS, LIKELY_MAX
from guide_hub.digest import file_sha256
from guide_hub.faces.registry import BUNDLE

SEARCHED = ("rays", "restarts", "photos", "w_steps", "wplus_steps", "controls", "strangers")


def inputs(recipes: dict[str, str], **budgets: Budget) -> dict[str, Any]:
    """Of figures of the builtin model: recipes by their digests, what a search may do, what judges it."""
    return {
        "model": file_sha256(BUNDLE / "model.safetensors"),
        "recipes": recipes,
        "search": {"likely": LIKELY_MAX, "lens": list(LENS)},
        "budgets": {name: {f: getattr(b, f) for f in SEARCHED} for name, b in budgets.items()},
    }


def load(file: Path, of: dict[str, Any]) -> Any:
    """The cells in a file; None where there is none. SystemExit where they are of other inputs."""
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    if found.get("inputs") != of:
        raise SystemExit(f"{file.name} is of another model, recipe, search or device: move it away first")
    return found["cells"]
