"""The losses of every step, kept with the progress of a run, so that a resumed one has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guide_hub.attacks.base import Curve

if TYPE_CHECKING:
    from guide_hub.guide.eraser import StepLosses
    from guide_hub.sequence import Progress

POINTS = 200  # means of a stage's steps that are kept, at most
TERMS = ("total", "local", "adjacency", "global", "rehearsal", "decoys")

Rows = dict[str, list[list[float]]]  # by stage: last step, number of steps, sum of each of TERMS


class Losses:
    """A Progress that notes the losses and passes everything on. `rows` goes into the checkpoint."""

    def __init__(self, progress: Progress, rows: Rows | None = None):
        self.progress, self.rows = progress, rows if rows is not None else {}

    def stage(self, text: str) -> None:
        self.progress.stage(text)

    def advance(self, text: str, share: float) -> None:
        self.progress.advance(text, share)

    def warn(self, text: str) -> None:
        self.progress.warn(text)

    def start(self, identity: str, steps: int, done: int) -> None:
        self.each = max(1, -(-steps // POINTS))
        kept = self.rows.get(identity, [])
        self.current = self.rows[identity] = [row for row in kept if row[0] <= done]
        self.progress.start(identity, steps, done)

    def step(self, step: int, losses: StepLosses) -> None:
        values = [
            losses.total, losses.local, losses.adjacency, losses.bystanders, losses.replay, losses.decoy
        ]  # fmt: skip
        last = self.current[-1] if self.current else None
        if last is not None and last[1] < self.each:
            last[:] = [step, last[1] + 1, *(a + b for a, b in zip(last[2:], values, strict=True))]
        else:
            self.current.append([step, 1, *values])
        self.progress.step(step, losses)

    def finish(self) -> None:
        self.progress.finish()


def curve(rows: list[list[float]], title: str = "Losses over the steps") -> Curve | None:
    """Means over neighbouring steps; terms that are always 0 are left out. None without two points."""
    if len(rows) < 2:
        return None
    lines: dict[str, list[float | None]] = {}
    for k, name in enumerate(TERMS):
        values: list[float | None] = [row[2 + k] / row[1] or None for row in rows]  # 0: a term that rested
        if any(values):
            lines[name] = values
    return Curve(title, "step", "loss", [row[0] for row in rows], lines)


def begins_late(rows: list[list[float]]) -> int | None:
    """The first step that is known, where it is not the run's first."""
    first = int(rows[0][0] - rows[0][1] + 1) if rows else 1
    return first if first > 1 else None
