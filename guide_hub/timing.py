"""How long a step of unlearning took here: what the plan's estimate is made of. Nothing about anybody."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE = "timings.json"


def key(config_sha256: str, recipe_digest: str) -> str:
    """A model's shape and a recipe: what the time of a step hangs on, beside the device."""
    return f"{config_sha256[:16]}-{recipe_digest[:16]}"


def recall(state: Path, name: str, device: str) -> tuple[str, float] | None:
    """Device and seconds a step of the last whole run of `name`; `auto` takes any device. None: none yet."""
    found = _read(state).get(name, {})
    kind = found.get("last") if device == "auto" else device
    seconds = found.get("seconds", {}).get(kind)
    return (kind, seconds) if isinstance(seconds, float) and seconds > 0 else None


@contextmanager
def timed(state: Path, name: str, device: str, steps: int) -> Iterator[None]:
    """Times a block of `steps` steps for `recall`, where it ends well. Not being able to write is no harm."""
    start = time.monotonic()
    yield
    if not steps:
        return
    known = _read(state)
    entry = known.setdefault(name, {"seconds": {}})
    entry["last"] = device
    entry["seconds"][device] = (time.monotonic() - start) / steps
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = state / f"{FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(known), encoding="utf-8")
        os.replace(temporary, state / FILE)
    except OSError:
        pass


def _read(state: Path) -> dict[str, Any]:
    try:
        found = json.loads((state / FILE).read_text(encoding="utf-8"))
        sound = all(isinstance(entry["seconds"], dict) for entry in found.values())
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}
    return found if sound else {}
