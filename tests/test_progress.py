"""How far a stage without steps is: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import importlib
import io

import pytest
import tiny_attacks as small
from rich.console import Console

from guide_hub import progress
from guide_hub.attacks import registry
from guide_hub.attacks.suite import run_all

TEXT = "reinversion"


@pytest.fixture
def clock(monkeypatch):
    """Seconds in a list, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_stage_has_a_line_a_minute(clock):
    console = Console(file=io.StringIO(), width=80)
    lines = progress.Lines(console)
    lines.stage("attacking a: reinversion")
    for seconds, share in ((59, 0.1), (80, 0.25), (120, 0.3), (140, 0.5), (300, 1.0)):
        clock[0] = 100.0 + seconds
        lines.advance(TEXT, share)
    said = console.file.getvalue().splitlines()
    assert said == [
        "attacking a: reinversion ...",
        "  reinversion 25%  240 s left",
        "  reinversion 50%  140 s left",
    ]


def test_a_terminal_has_a_bar_while_it_lasts():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    bars = progress.Bars(console)
    for text in (TEXT, "beacon"):
        bars.advance(text, 0.4)
        (task,) = bars.progress.tasks
        assert (task.description, task.completed, task.total) == (text, 40, 100)
        bars.advance(text, 1.0)
        assert not bars.progress.tasks
    bars.finish()
    assert "40/100" in console.file.getvalue()


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "leaks"])
def test_every_attack_tells_how_far_it_is(name):
    told: list[float] = []
    importlib.import_module(f"guide_hub.attacks.{name}").run(small.case(), told.append, small.LEAST)
    assert told
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= 1
    ends = []
    list(run_all(small.case(), [name], small.LEAST, lambda text, share: ends.append((text, share))))
    assert ends[-1] == (name, 1)
