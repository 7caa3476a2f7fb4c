"""What is compared: each name is a way to have people erased one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from guide_hub.recipe import Recipe, load_recipe


def _mode(mode: str, replay: dict[str, Any] | None = None, **sequence: Any) -> Callable[[Recipe], Recipe]:
    def make(recipe: Recipe) -> Recipe:
        return dataclasses.replace(
            recipe,
            sequence=dataclasses.replace(recipe.sequence, mode=mode, **sequence),
            replay=dataclasses.replace(recipe.replay, **(replay or {})),
        )

    return make


def _guide(mode: str) -> Callable[[Recipe], Recipe]:
    """By GUIDE's neighbours, towards other people, and with nothing else that `heads-fast` has got since."""

    def make(recipe: Recipe) -> Recipe:
        replace = dataclasses.replace
        return replace(
            _mode(mode, {"enough": 0.4}, protect=0, protect_per_step=0)(recipe),
            optim=replace(recipe.optim, average=0.0, iterations=60),
            adjacency=replace(recipe.adjacency, towards="people", reach=None, photos=False),
            bystanders=replace(recipe.bystanders, samples=6, identity=0.2),
            speed=replace(recipe.speed, pool=20, new_neighbours=False, enough=0.3, whole_step=False),
        )

    return make


def _by(name: str, mode: str, **replay: Any) -> Callable[[Recipe], Recipe]:
    """By another recipe than the study's."""
    return lambda _: _mode(mode, replay)(load_recipe(name))


def _even(recipe: Recipe) -> Recipe:
    """`joint` that looks at nobody on the way: all have as many steps."""
    joint = _mode("joint")(recipe)
    return dataclasses.replace(joint, speed=dataclasses.replace(joint.speed, check_every=0))


MODES = {
    "replay": _mode("replay"),
    "replay-many": _by("heads-many", "replay"),
    "replay-sooner": _by("heads-many", "replay", enough=0.7),
    "chain-many": _by("heads-many", "chain", enough=0.7),
    "replay-few": _by("heads-few", "replay"),
    "replay-people": _guide("replay"),
    "chain-people": _guide("chain"),
    "chain": _mode("chain"),
    "project": _mode("project"),
    "joint": _mode("joint"),
    "joint-even": _even,
    "merge": _mode("merge"),
    "sugar": _mode("sugar"),
}
