"""RESULTS.md of results/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median
from typing import Any

HEAD = """\
# What each rung of the ladder costs and keeps

Written by `run.py`. A cell is one person erased under one seed and judged by the gate of `guide-hub erase`.
*time*: how many times as quick as `heads`, over the cells that both have. *s*: of one thread on a CPU; on
CUDA, of one process of twelve that shared an H100 and 16 cores. *verified* and
*held-out*: of the person's views and of those of the held-out photos. *retained*: of other people's views.

| rung | what | on | cells | passed | steps | s | time | verified | held-out | retained | worst |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def write_table(results: Path, target: Path, order: list[str]) -> None:
    rungs: dict[str, dict[str, Any]] = {}
    for name in order:
        file = results / f"{name}.json"
        if file.is_file():
            rungs[name] = json.loads(file.read_text())
    first = rungs.get(order[0])
    rows = [_row(rung, first) for rung in rungs.values()]
    part = target.with_suffix(".part")
    part.write_text(HEAD + "\n".join(rows) + "\n")
    part.replace(target)


def _row(rung: dict[str, Any], first: dict[str, Any] | None) -> str:
    cells, device = rung["cells"], rung["inputs"]["device"]
    alike = first["cells"] if first and first["inputs"]["device"] == device else []
    seconds = {(c["person"], c["seed"]): c["cpu_s"] for c in alike}
    both = [(seconds[key], c["cpu_s"]) for c in cells if (key := (c["person"], c["seed"])) in seconds]
    times = f"{sum(a for a, _ in both) / sum(b for _, b in both):.1f}x" if both else "-"
    others = [c["others_verified"] for c in cells if c["others_verified"] is not None]
    return (
        f"| {rung['rung']} | {rung['text']} | {device} | {len(cells)} | {sum(c['passed'] for c in cells)} "
        f"| {median(c['steps'] for c in cells):g} | {median(c['cpu_s'] for c in cells):.1f} | {times} "
        f"| {mean(c['verified'] for c in cells):.1%} | {mean(others):.1%} "
        f"| {mean(c['retained'] for c in cells):.1%} | {min(c['retained'] for c in cells):.1%} |"
    )
