"""Errors that reach a person: each carries its problems, their places and remedies, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it stands and what to do about it.

    `line` and `column` count from 1. `message` never holds the name or path of a photo.
    """

    message: str
    remedy: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def place(self) -> str:
        """`file:line:column`, as far as they are known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class GuideHubError(Exception):
    """Base of all errors that guide-hub raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1
    report: Any = None  # figures of a run that ended with a refusal

    def __init__(self, *problems: Problem | str, remedy: str = ""):
        self.problems = [p if isinstance(p, Problem) else Problem(p, remedy) for p in problems]
        super().__init__("\n".join(str(p) for p in self.problems))


class InputError(GuideHubError):
    """The request, recipe, photo, model folder or an option is not usable (exit code 2)."""

    exit_code = 2


class RefusedError(GuideHubError):
    """The work was done and the answer is no: target not met, no match, a check failed (exit code 3)."""

    exit_code = 3


class HubError(GuideHubError):
    """The Hub, the network or the token (exit code 4)."""

    exit_code = 4


class ConflictError(GuideHubError):
    """Somebody pushed since the revision that this run started from (exit code 5)."""

    exit_code = 5
