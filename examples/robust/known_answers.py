"""Does the search tell who is there from who is not? On models of which that is known.

    python known_answers.py     # results/known-answers.json, and the rows of docs/attacks.md; half an hour

Nobody erased and only moved have to be found, never there must not be; GUIDE's is the question. The last
never was there either, but has lookalikes among the model's people, as those have among one another.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "sequence_study"), str(HERE.parents[1] / "tests")]

import heads_cases

from guide_hub.attacks.reinversion import run
from lab import write
from options import QUICK

FILE = HERE / "results" / "known-answers.json"
CASES = {
    "nobody erased": lambda base: dataclasses.replace(base, memo={}),
    "only moved": heads_cases.moved,
    "GUIDE, heads-fast": heads_cases.erased,
    "never there": heads_cases.never,
    "never there, resembled": lambda base: heads_cases.never(base, heads_cases.WEAK_LENS),
}
ROWS = {
    "passed": "passed",
    "best cosine": "cosine_best_after",
    "verified": "verified_after",
    "in the source": "cosine_best_before",
    "recovery": "recovery",
    "beyond strangers": "recovery_beyond_strangers",
    "strangers": "cosine_best_strangers",
    "strangers verified": "verified_strangers",
    "as far out as typical": "unlikeliness_best",
    "without the bound": "cosine_best_unbounded",
    "verified so": "verified_unbounded",
    "as far out so": "unlikeliness_unbounded",
    "strangers so": "cosine_best_strangers_unbounded",
    "strangers verified so": "verified_strangers_unbounded",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50, help="in W, and as many in W+")
    args = parser.parse_args()
    budget = dataclasses.replace(
        QUICK, restarts=args.restarts, w_steps=args.steps, wplus_steps=args.steps
    )  # fmt: skip
    search = f"{args.restarts} x ({args.steps} + {args.steps})"
    cells = json.loads(FILE.read_text()) if FILE.is_file() else {}
    base = heads_cases.nobody()
    for name, make in CASES.items():
        if name in cells.get(search, {}):
            continue
        start = time.process_time()
        found = run(make(base), budget=budget)
        cell = {"passed": found.passed, **found.figures, "cpu_s": round(time.process_time() - start, 1)}
        print(name, json.dumps(cell), file=sys.stderr, flush=True)
        cells.setdefault(search, {})[name] = cell
        write(FILE, json.dumps(cells, indent=1) + "\n")
    print(f"| {search} | {' | '.join(CASES)} |\n|{'---|' * (1 + len(CASES))}")
    for title, figure in ROWS.items():
        print(f"| {title} | {' | '.join(str(cells[search][name][figure]) for name in CASES)} |")


if __name__ == "__main__":
    main()
