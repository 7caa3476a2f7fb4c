"""Do other people's pictures bring back who was erased? On the people of `run.py`, by `heads-fast`.

    python fine_tuning.py --people 10     # results/fine-tuning.json; half a minute of CPU time a person

The second half of the attack `relearning`: some steps on the source's pictures of random people, then 11
views at the latent of the person, who has no part in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "sequence_study"))

import cells
from guide_hub.attacks import relearning
from guide_hub.attacks.budget import FULL
from run import Bench, write  # before any import of `lab`, which puts the folder of another run.py first

FILE = HERE / "results" / "fine-tuning.json"
STEPS = (0, 10, 25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    args = parser.parse_args()
    bench = Bench(args.cache, "cpu")
    budgets = {"full": dataclasses.asdict(dataclasses.replace(FULL, benign_steps=max(STEPS)))}
    of = cells.inputs({"heads-fast": bench.lab.recipe.digest()}, **budgets)
    rows = cells.load(FILE, of) or []
    for index in range(len(rows), args.people):
        case = bench.case("heads-fast", index)[0]
        budget = [dataclasses.replace(FULL, benign_steps=steps) for steps in STEPS]
        verified = [round(relearning.benign_verified(case, one), 4) for one in budget]
        rows.append({"person": index, "verified": dict(zip(map(str, STEPS), verified, strict=True))})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        write(FILE, f'{{"inputs": {json.dumps(of)},\n "cells": [\n  {lines}\n ]}}\n')


if __name__ == "__main__":
    main()
