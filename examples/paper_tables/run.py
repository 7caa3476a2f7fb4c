"""The paper's experiments on `builtin:synthetic-heads`: runs what `results/` lacks.

    python run.py --head face_model.safetensors            # everything
    python run.py --head ... --only heads-d-2 --limit 3    # so many cells of one recipe
    python run.py --head ... --share 0/2                   # every second cell, for two processes
    python run.py --list                                   # what is there, what is missing

A killed run goes on where it stood: a cell is one JSON file, erased weights and features are in the cache.
Cells whose model, recipe or sampling has changed count as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "synthetic_heads"), str(HERE.parents[1] / "tests")]

from grid import Cell, cells, inputs

RESULTS = HERE / "results"
FLOORS = "floors"


def stored(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def current(name: str, cell: Cell | None) -> bool:
    """Whether the result is there and still counts."""
    found = stored(name)
    return found is not None and found["inputs"] == inputs(cell)


def store(name: str, figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f".{name}.{os.getpid()}.part"
    part.write_text(json.dumps(_rounded(figures), indent=1) + "\n")
    part.replace(RESULTS / f"{name}.json")


def _rounded(value: Any) -> Any:
    """Six digits: more would only be this machine's rounding."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value


def chosen(args: argparse.Namespace) -> list[Cell]:
    index, of = (int(part) for part in args.share.split("/"))
    return [c for c in cells() if not args.only or c.recipe in args.only][index::of]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, help="the head file of ../synthetic_heads/fetch_head.py")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="private: latents, erased weights")
    parser.add_argument("--inception", help="FID's network, NAME:PATH; default: out of a package, by name")
    parser.add_argument("--only", nargs="*", help="recipes")
    parser.add_argument("--share", default="0/1", help="I/N: every N-th cell from the I-th")
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="at most so many cells")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        for cell in chosen(args):
            print("there  " if current(cell.name, cell) else "missing", cell.name)
        return
    if args.head is None:
        parser.error("--head is needed to render the people")

    from real_nets import inception_weights

    from lab import Lab
    from tables import write_tables

    lab = Lab(args.head, args.cache, args.inception or f"inception:{inception_weights()}")
    if not current(FLOORS, None):
        store(FLOORS, lab.floors())
    missing = [cell for cell in chosen(args) if not current(cell.name, cell)]
    for n, cell in enumerate(missing[: args.limit], start=1):
        store(cell.name, lab.measure(cell))
        print(f"{n}/{len(missing)} {cell.name}", flush=True)
    write_tables()


if __name__ == "__main__":
    main()
