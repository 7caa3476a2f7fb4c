"""A killed run goes on where it stood. The folder is private: it holds latents of the people being erased."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

STATE_VARIABLE = "GUIDE_HUB_STATE"
FORMAT = 2  # of progress: another one begins anew


def default_state() -> Path:
    """$GUIDE_HUB_STATE, else $XDG_STATE_HOME/guide-hub, else ~/.local/state/guide-hub."""
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "guide-hub"


def fingerprint(**parts: Any) -> str:
    """One name for everything that decides a run's result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Checkpoint:
    """One run's progress under `state`/runs/`name`; written to a temporary file first, gone after `clear`.

    `save` replaces what changes with every step. What is large and stays as it is goes into a file of its
    own, by `keep`, before the `save` that leans on it.
    """

    def __init__(self, state: Path, name: str):
        self.folder = state / "runs" / name
        self.file = self.folder / "progress.pt"

    def save(self, value: dict[str, Any]) -> None:
        self._write(self.file, value)

    def load(self) -> dict[str, Any] | None:
        """The progress, None where there is none. Tensors and plain values only: nothing is executed."""
        return self._read(self.file)

    def keep(self, name: str, value: dict[str, Any]) -> None:
        self._write(self.folder / f"{name}.pt", value)

    def kept(self, name: str) -> dict[str, Any] | None:
        """What was kept under this name, None where nothing was."""
        return self._read(self.folder / f"{name}.pt")

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        import torch

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        temporary = path.with_suffix(".tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def _read(self, path: Path) -> dict[str, Any] | None:
        import torch

        if not path.exists():
            return None
        value: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return value

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
