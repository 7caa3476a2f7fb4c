"""Does the search tell who is there from who is not? On models of which that is known.

    python known_answers.py     # results/known-answers.json, and a table; half an hour of CPU time

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

import cells
from guide_hub.attacks import reinversion
from guide_hub.recipe import load_recipe
from lab import write
from options import SHORT

RECIPES = ("heads-fast", "heads-many")
FILE = HERE / "results" / "known-answers.json"
CASES = {
    "nobody erased": lambda base: dataclasses.replace(base, memo={}),
    "only moved": heads_cases.moved,
    "GUIDE, heads-fast": heads_cases.erased,
    "GUIDE, heads-many": lambda base: heads_cases.erased(base, "heads-many"),
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
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50, help="in W, and as many in W+")
    parser.add_argument("--bound", type=float, default=reinversion.LIKELY_MAX, help="typical distances")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--strangers", type=int, default=SHORT.strangers)
    args = parser.parse_args()
    reinversion.LIKELY_MAX = args.bound
    budget = dataclasses.replace(
        SHORT, restarts=args.restarts, w_steps=args.steps, wplus_steps=args.steps, strangers=args.strangers
    )
    search = f"{args.restarts} x ({args.steps} + {args.steps}) within {args.bound:g}"
    if args.strangers != SHORT.strangers:
        search += f", {args.strangers} strangers"
    of = cells.inputs({name: load_recipe(name).digest() for name in RECIPES}, short=cells.searched(SHORT))
    of["search"].pop("likely")  # each search says its own
    found_by = cells.load(FILE, of) or {}
    mine = found_by.setdefault(search, {})
    base = heads_cases.nobody()
    for name in args.only:
        if name in mine:
            continue
        start = time.process_time()
        found = reinversion.run(CASES[name](base), budget=budget)
        cell = {"passed": found.passed, **found.figures, "cpu_s": round(time.process_time() - start, 1)}
        print(name, json.dumps(cell), file=sys.stderr, flush=True)
        mine[name] = cell
        write(FILE, json.dumps({"inputs": of, "cells": found_by}, indent=1) + "\n")
    print(f"| {search} | {' | '.join(args.only)} |\n|{'---|' * (1 + len(args.only))}")
    for title, figure in ROWS.items():
        print(f"| {title} | {' | '.join(str(mine[name][figure]) for name in args.only)} |")


if __name__ == "__main__":
    main()
