"""Every attack but `leaks`, `drift` and `reinversion`, by the quick budget, on models whose answer is known.

    python all_attacks.py     # results/all-attacks.json, and a table; about 13 minutes on one core

`reinversion` is in known_answers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "sequence_study"), str(HERE.parents[1] / "tests")]

import heads_cases

import cells
from guide_hub.attacks.budget import QUICK
from guide_hub.attacks.registry import ATTACKS
from guide_hub.attacks.suite import run_all
from guide_hub.recipe import load_recipe
from known_answers import CASES, RECIPES
from lab import write

FILE = HERE / "results" / "all-attacks.json"
NAMES = [name for name in ATTACKS if name not in ("leaks", "drift", "reinversion")]
WORDS = {True: "passed", False: "failed", None: "not told"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--attacks", nargs="*", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    of = cells.inputs({name: load_recipe(name).digest() for name in RECIPES}, quick=asdict(QUICK))
    found_by = cells.load(FILE, of) or {}
    base = heads_cases.nobody()
    for name in args.only:
        missing = [attack for attack in args.attacks if attack not in found_by.get(name, {})]
        if not missing:
            continue
        case, start = CASES[name](base), time.process_time()
        for found in run_all(case, missing, QUICK):
            cell = {"passed": found.passed, **found.figures, "cpu_s": round(time.process_time() - start, 1)}
            print(name, found.attack, json.dumps(cell), file=sys.stderr, flush=True)
            found_by.setdefault(name, {})[found.attack] = cell
            write(FILE, json.dumps({"inputs": of, "cells": found_by}, indent=1) + "\n")
            start = time.process_time()
    print(f"| | {' | '.join(args.only)} |\n|{'---|' * (1 + len(args.only))}")
    for attack in args.attacks:
        print(f"| {attack} | {' | '.join(WORDS[found_by[name][attack]['passed']] for name in args.only)} |")


if __name__ == "__main__":
    main()
