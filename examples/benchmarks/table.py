"""RESULTS.md from the results of run.py: every row beside the released structure.

python table.py [RESULTS_FOLDER]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from cases import CONFIGS, GROUPS, Case, cases

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FIGURES = {
    "id": "ID {:.3f}", "id_verified": "verified {:.2f}", "around": "around {:.3f}",
    "around_verified": "around verified {:.2f}", "retained": "retained {:.3f}",
    "retained_perceptual": "their change {:.4f}", "guide_id": "GUIDE's ID {:.3f}",
    "retained_cosine": "their cosine {:.3f}", "cosine": "cosine {:.3f}", "shown": "recognised {:.2f}",
    "perceptual": "perceptual {:.4f}",
}  # fmt: skip

Result = dict[str, Any]


def read(folder: Path, case: Case) -> Result | None:
    """A stored result; one that `failed` has no figures."""
    try:
        return json.loads((folder / f"{case.name}.json").read_text())
    except FileNotFoundError:
        return None


def every(configs: list[str] | None = None, groups: list[str] | None = None) -> list[Case]:
    """Those of any device."""
    return cases(configs, groups, device="cuda")


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def notes(result: Result) -> str:
    """What a row's time bought, and what it does not hold."""
    found = [f"{len(result['wall_s'])} rounds"] if len(result["wall_s"]) > 1 else []
    if "steps" in result:
        found.append(f"{result['steps']} steps")
    if "pictures" in result:
        found.append(f"{result['pictures']} pictures")
    if "kept_draws" in result:
        first, cpu = (min(result[f"warmup_{kind}_s"][: result["kept_draws"]]) for kind in ("wall", "cpu"))
        found.append(f"a draw's first step, which makes the pictures: {number(first)} s, CPU {number(cpu)} s")
    figures = result.get("figures", {})
    return ", ".join(found + [FIGURES[key].format(value) for key, value in figures.items() if key in FIGURES])


def table(folder: Path, group: list[Case]) -> list[str]:
    """One model's rows of one group; ratios to the first of them that is there."""
    found = {case: result for case in group if (result := read(folder, case))}
    if not found:
        return []
    sound = {case: r for case, r in found.items() if "failed" not in r}
    base = next((r for case, r in sound.items() if case.row.plain), None)
    lines = [
        "| | wall s | times as fast | CPU s | times as fast | peak GiB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, result in found.items():
        if case not in sound:
            lines.append(f"| {case.row.title} | - | - | - | - | - | {result['failed']} |")
            continue
        cells = []
        for kind in ("wall_s", "cpu_s"):
            value = median(result[kind])
            cells += [number(value), f"{median(base[kind]) / value:.2f}" if base else "-"]
        lines.append(
            f"| {case.row.title} | {' | '.join(cells)} | {result['peak_gib']:.2f} | {notes(result)} |"
        )
    return [*lines, ""]


def machines(folder: Path) -> list[str]:
    """Where and by what the results were made; more than one line means that ratios mix machines."""
    found: dict[str, int] = {}
    for case in every():
        machine = (read(folder, case) or {}).get("machine")
        if machine:
            words = ", ".join(f"{key} {value}" for key, value in machine.items())
            found[words] = found.get(words, 0) + 1
    lines = [f"* {words}: {n} rows" for words, n in found.items()]
    if len(lines) > 1:
        lines.append("* **Rows of different machines, threads or commits: their ratios compare these, too.**")
    return [*lines, ""]


def tables(folder: Path) -> str:
    """The whole of RESULTS.md."""
    readme = Path(os.path.relpath(HERE / "README.md", folder.parent)).as_posix()
    lines = [
        "# Benchmarks",
        "",
        f"Made by `python examples/benchmarks/run.py`; [README.md]({readme}) says what is what. Medians",
        "of the rounds. *Times as fast*: seconds of the first row, the released structure, over the row's.",
        "Peak: resident memory of the row's own process; on a GPU, its tensors.",
        "",
        *machines(folder),
    ]
    for config in CONFIGS.values():
        parts = {group: table(folder, every([config.name], [group])) for group in GROUPS}
        if any(parts.values()):
            lines += [f"## {config.name}: {config.title}", ""]
        for group, rows in parts.items():
            lines += [f"### {GROUPS[group]}", "", *rows] if rows else []
    return "\n".join(lines)


def write(folder: Path) -> Path:
    """RESULTS.md beside the results' folder."""
    file = folder.parent / "RESULTS.md"
    part = file.with_name(f".{file.name}.part")
    part.write_text(tables(folder), encoding="utf-8")
    part.replace(file)
    return file


if __name__ == "__main__":
    print(write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS))
