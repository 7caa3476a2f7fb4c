"""SIGTERM and Ctrl-C end a run between two steps, after its progress is on disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """The run was told to stop. `exit_code` is 128 + the signal: 130 for SIGINT, 143 for SIGTERM.

    `remedy` says how to go on where running the same command again does not; `report` what was finished.
    """

    remedy: str | None = None
    report: Any = None

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum


class Stopper:
    """Remembers a signal while a step runs (`busy`), and raises `Stopped` at once otherwise."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.busy = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if not self.busy:
            raise Stopped(signum)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Until the block ends, a signal waits."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def raise_if_asked(self) -> None:
        if self.signum is not None:
            raise Stopped(self.signum)


@contextmanager
def stopping() -> Iterator[Stopper]:
    """Handles SIGINT and SIGTERM for the block; elsewhere than in the main thread it changes nothing."""
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    old = [signal.signal(s, stopper) for s in signals]
    try:
        yield stopper
    finally:
        for s, handler in zip(signals, old, strict=True):
            signal.signal(s, handler)
