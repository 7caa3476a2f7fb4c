"""RESULTS.md and plots of results/*.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median
from typing import Any

Run = dict[str, Any]

HEAD = """\
# Many people, one after another: what each mode keeps

Written by `run.py --table` from `results/`. Everything is measured on the weights after the last of N people.

* *back, source* and *back, held-out*: the share of all views of all erased people, at the erased latent and
  at the other pictures', that the judge verifies at FAR 1e-3; in brackets how many people are over 5 %.
* *return*: the largest rise of a person's mean cosine from the first row measured after their own erasure.
* *retained*: views of 100 random people still verified; *nearest*: of the five most like each erased one,
  whom the erasures protect; *alike*: of five such others whom nothing protects.
* *KID, x1000*: after the first, after the last, and of a model that nobody touched (floor); n = 500.
* *-many*, *-few*: by `heads-many`, `heads-few`; *-sooner*: by `heads-many`, with `replay.enough` 0.7 in place
  of 0.6; *-people*: by `heads-fast` as it was at first. The others: `heads-fast`.
* *s*: an erasure with its preparation, the first, and the median of the last five. On the CPU, CPU seconds of
  one thread; where all rows have `erasure_s`, by the clock, with their `threads`. On CUDA, of one process of
  twelve that shared an H100 and 16 cores (of seven: `replay-many`; of four: `replay-sooner`, `chain-many`).
"""


LAW = """
## The collateral law

N erased people at a false accept rate f touch about 1 - (1 - f)^N of random faces. Of 400 random people, from
the front: how many the judge takes for somebody erased, and how many are themselves no more, of all and of
those.

| mode | order | N | law | taken for somebody erased | no more themselves | of those taken |
|---|---:|---:|---:|---:|---:|---:|
"""


def write_results(results: Path, target: Path) -> None:
    runs = [json.loads(file.read_text()) for file in sorted(results.glob("*-seed*.json"))]
    runs = [run for run in runs if run["rows"]]
    floor_file = results / "floor.json"
    floor = json.loads(floor_file.read_text())["drift"] if floor_file.is_file() else None
    text = HEAD
    for n in sorted({row["k"] for run in runs for row in run["rows"] if "collateral" in row}):
        lines = [_line(run, n, floor) for run in runs]
        lines = [line for line in lines if line]
        if lines:
            text += f"\n## N = {n}\n\n{COLUMNS}" + "\n".join(lines) + "\n"
    text += _collateral(runs)
    _write(target / "RESULTS.md", text)
    if runs:
        _plots(runs, target)


COLUMNS = (
    "| mode | on | order | back, source | back, held-out | return | retained | LPIPS | nearest | alike "
    "| KID, x1000 | s | peak GiB | kept a person |\n|---|---|" + 12 * "---:|" + "\n"
)


def _row_at(run: Run, n: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = next((row for row in run["rows"] if row["k"] == n), None)
    return found if found and "collateral" in found else None


def _line(run: Run, n: int, floor: dict[str, Any] | None) -> str:
    row = _row_at(run, n)
    if row is None:
        return ""
    first = run["rows"][0]
    rows = [r for r in run["rows"] if r["k"] <= n]
    kind = "erasure_s" if all("erasure_s" in r for r in rows) else "erasure_cpu_s"
    seconds = [r[kind] for r in rows if r["erasure_is_whole"]]
    folds = len(rows) > 1
    cost = (
        f"{seconds[0]:.0f}, {median(seconds[1:][-5:]):.0f}"
        if folds and len(seconds) > 1
        else f"{sum(seconds):.0f} in all"
    )
    return (
        f"| {run['mode']} | {_device(run)} | {run['inputs']['seed']} | {_share(row['source_verified'])} "
        f"| {_share(row['held_out_verified'])} | {_return(rows) if folds else '-'} "
        f"| {row['retained']['verified']:.1%} | {row['retained']['lpips']:.3f} "
        f"| {row['neighbours']['verified']:.1%} | {_alike(row)} | {_kid(first, row, floor)} | {cost} "
        f"| {row['peak_gib']:.1f} | {_bytes(rows[-1].get('memory_bytes'))} |"
    )


def _device(run: Run) -> str:
    return str(run.get("device", "cpu"))


def _share(values: list[float]) -> str:
    return f"{mean(values):.1%} ({sum(v > 0.05 for v in values)})"


def _alike(row: dict[str, Any]) -> str:
    return f"{row['lookalikes']['verified']:.1%}" if "lookalikes" in row else "-"


def _return(rows: list[dict[str, Any]]) -> str:
    """Over the source latents and the held-out ones."""
    own: dict[tuple[str, int], float] = {}
    worst = 0.0
    for row in _measured(rows):
        for kind in ("source", "held_out"):
            for j, value in enumerate(row[kind]):
                worst = max(worst, value - own.setdefault((kind, j), value))
    return f"{worst:+.2f}"


def _measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those of which only the cost is known (`run.py --every`)."""
    return [row for row in rows if "source" in row]


def _kid(first: dict[str, Any], row: dict[str, Any], floor: dict[str, Any] | None) -> str:
    values = [r.get("drift", {}).get("kid") for r in (first, row)] + [floor and floor["kid"]]
    return ", ".join("-" if v is None else f"{1000 * v:.2f}" for v in values)


def _bytes(sizes: list[int] | None) -> str:
    return "-" if not sizes else f"{median(sizes) / 1024:,.0f} KiB"


def _collateral(runs: list[Run]) -> str:
    rows = [(run, row) for run in runs for row in run["rows"] if "collateral" in row]
    if not rows:
        return ""
    text = LAW
    for run, row in rows:
        c = row["collateral"]
        text += (
            f"| {run['mode']} | {run['inputs']['seed']} | {row['k']} | {c['expected']:.2%} "
            f"| {c['alike'] / c['people']:.2%} | {c['lost'] / c['people']:.2%} "
            f"| {c['lost_alike']} of {c['alike']} |\n"
        )
    return text


def _plots(runs: list[Run], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    first = [run for run in runs if len(run["rows"]) > 1 and run["inputs"]["seed"] == 0]
    by_mode = {run["mode"]: run for run in sorted(first, key=_length)}
    chains = [run for mode, run in by_mode.items() if not mode.endswith(("-people", "-few"))]
    if not chains:
        return
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for run in chains:
        rows = _measured(run["rows"])
        ks = [row["k"] for row in rows]
        axes[0].plot(ks, [mean(row["held_out_verified"]) for row in rows], label=run["mode"])
        axes[1].plot(ks, [row["retained"]["verified"] for row in rows])
        axes[2].plot(ks, [row["retained"]["lpips"] for row in rows])
    for ax, title in zip(
        axes, ("held-out views verified", "retained views verified", "LPIPS of retained people"), strict=True
    ):
        ax.set(title=title, xlabel="people erased")
        ax.grid(alpha=0.3)
    axes[0].axhline(0.05, color="grey", linestyle=":")
    axes[1].axhline(0.95, color="grey", linestyle=":")
    axes[0].legend()
    _save(figure, target / "after_each.png")
    figure, axes = plt.subplots(
        1, len(chains), figsize=(3.2 * len(chains) + 1, 3.6), layout="constrained", squeeze=False
    )
    for ax, run in zip(axes[0], chains, strict=True):
        n = run["rows"][-1]["k"]
        known = [row.get("held_out", []) for row in run["rows"]]
        matrix = [values + [float("nan")] * (n - len(values)) for values in known]
        shown = ax.imshow(matrix, vmin=-0.2, vmax=1.0, cmap="magma", extent=(0.5, n + 0.5, n + 0.5, 0.5))
        ax.set(title=run["mode"], xlabel="person")
    axes[0][0].set_ylabel("after erasure number")
    figure.colorbar(shown, ax=axes[0][-1], label="held-out photos: mean cosine")
    _save(figure, target / "matrix.png")


def _length(run: Run) -> tuple[int, str]:
    """Of a mode's runs the longest is drawn, of equals a GPU's."""
    return run["rows"][-1]["k"], _device(run)


def _save(figure: Any, path: Path) -> None:
    part = path.with_suffix(".part")
    figure.savefig(part, format="png", dpi=110, metadata={"Software": None})
    part.replace(path)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
