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
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "sequence_study"), str(HERE.parents[1] / "tests")]

import heads_cases

from guide_hub.attacks.budget import QUICK
from guide_hub.attacks.registry import ATTACKS
from guide_hub.attacks.suite import run_all
from known_answers import CASES
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
    cells = json.loads(FILE.read_text()) if FILE.is_file() else {}
    base = heads_cases.nobody()
    for name in args.only:
        missing = [attack for attack in args.attacks if attack not in cells.get(name, {})]
        if not missing:
            continue
        case, start = CASES[name](base), time.process_time()
        for found in run_all(case, missing, QUICK):
            cell = {"passed": found.passed, **found.figures, "cpu_s": round(time.process_time() - start, 1)}
            print(name, found.attack, json.dumps(cell), file=sys.stderr, flush=True)
            cells.setdefault(name, {})[found.attack] = cell
            write(FILE, json.dumps(cells, indent=1) + "\n")
            start = time.process_time()
    print(f"| | {' | '.join(args.only)} |\n|{'---|' * (1 + len(args.only))}")
    for attack in args.attacks:
        print(f"| {attack} | {' | '.join(WORDS[cells[name][attack]['passed']] for name in args.only)} |")


if __name__ == "__main__":
    main()
