"""Attacks one after the other on one case."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator, Sequence

from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import Budget


def run_all(
    case: Case,
    attacks: Sequence[str],
    budget: Budget,
    done: Callable[[str, float], None] = lambda attack, share: None,
) -> Iterator[Finding]:
    """What each of `attacks`, by name, finds, with its wall time. `done` is told the attack and its share."""
    for name in attacks:
        start = time.perf_counter()
        run = importlib.import_module(f"guide_hub.attacks.{name}").run
        found: Finding = run(case, lambda share, name=name: done(name, share), budget)
        done(name, 1.0)
        yield dataclasses.replace(found, seconds=time.perf_counter() - start)
