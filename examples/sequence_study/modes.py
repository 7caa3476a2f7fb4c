"""What is compared: each name is a way to have people erased one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from guide_hub.recipe import Recipe


def _mode(mode: str, replay: dict[str, Any] | None = None, **sequence: Any) -> Callable[[Recipe], Recipe]:
    def make(recipe: Recipe) -> Recipe:
        return dataclasses.replace(
            recipe,
            sequence=dataclasses.replace(recipe.sequence, mode=mode, **sequence),
            replay=dataclasses.replace(recipe.replay, **(replay or {})),
        )

    return make


MODES = {
    "replay": _mode("replay"),
    "replay-protect": _mode("replay", protect=5),
    "chain": _mode("chain"),
    "project": _mode("project"),
    "joint": _mode("joint"),
    "merge": _mode("merge"),
    "sugar": _mode("sugar"),
}
