"""What a person sees while a run works: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from guide_hub.guide.eraser import StepLosses

LINE_EVERY = 25  # steps between plain lines
LINE_SECONDS = 60  # between plain lines on how far a stage without steps is


class Silent:
    """Nothing; also the base of the others."""

    def stage(self, text: str) -> None: ...

    def advance(self, text: str, share: float) -> None:
        """Of what the stage does without steps, that share [0, 1] is done."""

    def warn(self, text: str) -> None: ...

    def start(self, identity: str, steps: int, done: int) -> None: ...

    def step(self, step: int, losses: StepLosses) -> None: ...

    def finish(self) -> None: ...


class Warnings(Silent):
    """Warnings and nothing else, for `--quiet`."""

    def __init__(self, console: Console):
        self.console = console

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", highlight=False, soft_wrap=True, markup=False)


class Lines(Warnings):
    """One line a stage and every `LINE_EVERY` steps, for logs."""

    def stage(self, text: str) -> None:
        self.console.print(f"{text} ...", highlight=False, soft_wrap=True)
        self.entered = self.said = time.monotonic()

    def advance(self, text: str, share: float) -> None:
        now = time.monotonic()
        if 0 < share < 1 and now - self.said >= LINE_SECONDS:
            left, self.said = (now - self.entered) / share * (1 - share), now
            self.console.print(f"  {text} {share:.0%}  {left:.0f} s left", highlight=False, soft_wrap=True)

    def start(self, identity: str, steps: int, done: int) -> None:
        self.identity, self.steps, self.done, self.began = identity, steps, done, time.monotonic()
        self.stage(f"erasing {identity}" + (f" from step {done + 1}" if done else ""))

    def step(self, step: int, losses: StepLosses) -> None:
        if step % LINE_EVERY == 0 or step == self.steps:
            spent = time.monotonic() - self.began
            left = spent / max(step - self.done, 1) * (self.steps - step)
            self.console.print(
                f"  {self.identity} {step}/{self.steps}  local {losses.local:.3f}  "
                f"adjacency {losses.adjacency:.3f}  global {losses.bystanders:.3f}  {left:.0f} s left",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


class Bars(Silent):
    """A bar for every identity with its losses and the time left, and one for a stage without steps."""

    def __init__(self, console: Console):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[losses]}", style="dim"), console=console,
            speed_estimate_period=3600,  # seconds: a search may take minutes
        )  # fmt: skip
        self.part: TaskID | None = None

    def stage(self, text: str) -> None:
        self.console.print(f"[dim]{text} ...[/dim]", highlight=False)

    def advance(self, text: str, share: float) -> None:
        if share < 1:
            if self.part is None:
                self.progress.start()
                self.part = self.progress.add_task(text, total=100, losses="%")
            self.progress.update(self.part, completed=round(100 * share), refresh=True)
        elif self.part is not None:
            self.progress.remove_task(self.part)
            self.part = None

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False)

    def start(self, identity: str, steps: int, done: int) -> None:
        self.progress.start()
        self.task = self.progress.add_task(f"erasing {identity}", total=steps, completed=done, losses="")

    def step(self, step: int, losses: StepLosses) -> None:
        text = f"loc {losses.local:.2f} adj {losses.adjacency:.2f} glob {losses.bystanders:.2f}"
        self.progress.update(self.task, completed=step, losses=text)

    def finish(self) -> None:
        self.progress.stop()
