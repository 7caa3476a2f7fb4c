"""Files for the owner alone, each whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def folder(path: Path) -> Path:
    """`path`, made where it is not there; one that exists keeps the mode that its owner gave it."""
    if not path.exists():
        path.mkdir(parents=True, mode=0o700)
        path.chmod(0o700)
    return path


def write(path: Path, content: bytes) -> None:
    """In a private folder, over what was there."""
    folder(path.parent)
    temporary = path.with_name(f"{path.name}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
