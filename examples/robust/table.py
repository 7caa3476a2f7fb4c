"""RESULTS.md of results/*.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

HEAD = """\
# Against a search through the erased model's latents

Written by `run.py`. *found*: views of all that the searches found, taken for the person by the judge, which
the search does not see; *recovery*: the best likeness found, as a share of the same search's in the source,
and then both beyond what it finds of strangers; *unbounded*: the best beyond the likely latents, which judges
nothing; *strangers*: the best likeness found of them, and their views verified; *held-out*: views of the
person's other pictures still verified; *retained*: of 100 other people's; *s*: CPU seconds of the erasure, on
one thread.

"""
COLUMNS = (
    "option", "what", "people", "search", "found", "in the source", "best cosine", "recovery",
    "beyond strangers", "unbounded", "strangers", "held-out", "retained", "LPIPS", "steps", "s",
)  # fmt: skip


def write_table(results: Path, target: Path, order: list[str]) -> None:
    """A row an option, of the people whom all options have by that search; one more where it has others."""
    rows, files = [], [results / f"{name}.json" for name in order]
    known = {name: json.loads(f.read_text()) for name, f in zip(order, files, strict=True) if f.is_file()}
    for search in ("short", "full"):
        cells = {name: [c for c in found["cells"] if c["search"] == search] for name, found in known.items()}
        cells = {name: those for name, those in cells.items() if those}
        people = [{cell["person"] for cell in those} for those in cells.values()]
        shared = set.intersection(*people) if people else set()
        alike = {name: [c for c in those if c["person"] in shared] for name, those in cells.items()}
        more = {name: those for name, those in cells.items() if len(those) > len(shared)}
        for part in (alike, more):
            rows += [_row(name, known[name]["text"], search, those) for name, those in part.items()]
    made = target.with_suffix(".part")
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    made.write_text(HEAD + head + "\n".join(rows) + "\n")
    made.replace(target)


def _row(name: str, text: str, search: str, cells: list[dict[str, Any]]) -> str:
    def attack(figure: str) -> float:
        known = [cell["reinversion"][figure] for cell in cells]
        told = [value for value in known if value is not None]
        return mean(told) if told else math.nan

    return (
        f"| `{name}` | {text} | {len(cells)} | {search} | {attack('verified_after'):.0%} "
        f"| {attack('verified_before'):.0%} | {attack('cosine_best_after'):.2f} | {attack('recovery'):.2f} "
        f"| {attack('recovery_beyond_strangers'):.2f} | {attack('cosine_best_unbounded'):.2f} "
        f"| {attack('cosine_best_strangers'):.2f}, {attack('verified_strangers'):.0%} "
        f"| {mean(cell['held_out_verified'] for cell in cells):.0%} "
        f"| {mean(cell['retained']['verified'] for cell in cells):.1%} "
        f"| {mean(cell['retained']['lpips'] for cell in cells):.3f} "
        f"| {mean(cell['steps'] for cell in cells):.0f} "
        f"| {mean(cell['erasure_cpu_s'] for cell in cells):.0f} |"
    )
