"""The attacks by name. No torch here: the command line asks for the names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A module `guide_hub.attacks.NAME` with a `run(case, done, budget)` that gives a `Finding` and tells
    `done` the share of its work that is done, in [0, 1]. `quick`: seconds a person, part of every erasure.

    `gates`: the push is refused where it fails. `threats`: what it stands for, of the threat model.
    """

    text: str
    quick: bool
    gates: bool
    threats: str


ATTACKS = {
    "views": Entry("cameras that the training never had", True, True, "T1"),
    "neighbourhood": Entry("latents around the person's, and mixtures with other people", True, True, "T2"),
    "draws": Entry("random people of the model", True, False, "T2"),
    "retention": Entry(
        "random people, and those most like the erased one, still themselves", True, False, "-"
    ),
    "reflection": Entry("the surrogate, mirrored through the mean face", True, False, "T4, T5"),
    "leaks": Entry("the files to be published", True, True, "T5"),
    "drift": Entry("the model's pictures as a whole", False, False, "-"),
    "reinversion": Entry("a search through all latents, a photo in hand", False, False, "T2"),
    "relearning": Entry("fine-tuning, on one photo and on other people", False, False, "T3"),
    "beacon": Entry("where the base and the erased model differ most", False, False, "T4, T5"),
}
GATING = [name for name, entry in ATTACKS.items() if entry.gates]
GROUPS = ("quick", "all")


def names() -> list[str]:
    return list(ATTACKS)


def quick_names() -> list[str]:
    return [name for name, entry in ATTACKS.items() if entry.quick]


def chosen(asked: Sequence[str]) -> list[str]:
    """The attacks that are asked for by name, `quick` or `all`, each once, in the registry's order."""
    wanted = {*asked}
    if "all" in wanted:
        return names()
    if "quick" in wanted:
        wanted |= {*quick_names()}
    return [name for name in ATTACKS if name in wanted]
