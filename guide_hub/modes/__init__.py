"""How people are erased one after the other, by the recipe's `sequence.mode`: one module a mode.

A mode knows of weights, latents and losses, and of no file and no request: `guide_hub.sequence` runs it.
"""

from __future__ import annotations

from torch import Tensor

from guide_hub.modes.base import Done, Memory, Mode, Setup, Stage
from guide_hub.modes.chain import Chain
from guide_hub.modes.joint import Joint
from guide_hub.modes.merge import Merge
from guide_hub.modes.project import Project
from guide_hub.modes.replay import Replay
from guide_hub.modes.sugar import Sugar

__all__ = ["MODES", "Done", "Memory", "Mode", "Setup", "Stage", "make_mode"]

MODES: dict[str, type[Mode]] = {
    "chain": Chain,
    "replay": Replay,
    "project": Project,
    "joint": Joint,
    "merge": Merge,
    "sugar": Sugar,
}


def make_mode(setup: Setup, latents: list[Tensor]) -> Mode:
    """The recipe's mode for this run's people. InputError: it needs what `setup.earlier` does not hold."""
    return MODES[setup.recipe.sequence.mode](setup, latents)
