"""Which defence makes a search through the erased model's latents fail? On `builtin:synthetic-heads`.

    python run.py                                            # every option, three people, the short search
    python run.py --only heads-fast --people 10 --full       # the full search, and the beacon
    python run.py --table                                    # RESULTS.md from results/

A row is one random person erased by one option, attacked and measured; a killed run goes on where it stood.
`--cache` is private: it holds erased weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "sequence_study"))

import torch

import cells
from guide_hub.attacks import beacon, reinversion
from guide_hub.attacks.base import Case
from guide_hub.attacks.budget import FULL
from guide_hub.attacks.case import make_case
from guide_hub.checkpoint import Checkpoint
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import render_views
from guide_hub.interrupt import stopping
from guide_hub.recipe import Recipe
from guide_hub.sequence import Sequence
from lab import Clock, Lab, write
from options import OPTIONS, SHORT, recipe_of
from table import write_table

RESULTS = HERE / "results"
FIRST = 100  # the study of sequences has the people before


class Bench:
    def __init__(self, cache: Path, device: str) -> None:
        self.lab, self.cache = Lab("heads-fast", device), cache

    def case(self, name: str, index: int) -> tuple[Case, int, float]:
        """The person erased by the option; the steps and CPU seconds that it took."""
        lab, recipe = self.lab, recipe_of(name)
        student, steps, seconds, w_t = self.erased(name, recipe, index)
        subject = lab.subject(FIRST + index)
        photos = render_views(lab.source, subject.ws, lab.front)[:, 0]
        case = make_case(
            lab.source, student, recipe, lab.networks, subject.ws, photos, 1, lab.threshold, seed=index,
            w_t=w_t,
        )  # fmt: skip
        return case, steps, seconds

    def row(self, name: str, index: int, full: bool) -> dict[str, Any]:
        lab, (case, steps, seconds) = self.lab, self.case(name, index)
        student = case.erased
        measured, start = lab.person(FIRST + index, student), time.process_time()
        found = reinversion.run(case, budget=FULL if full else SHORT)
        row = {
            "person": index, "search": "full" if full else "short", "steps": steps, "erasure_cpu_s": seconds,
            "source_verified": measured.after.verified,
            "held_out_verified": measured.others_after and measured.others_after.verified,
            "retained": lab.retained(student), "passed": found.passed, "reinversion": found.figures,
            "attack_cpu_s": round(time.process_time() - start, 1),
        }  # fmt: skip
        if full:
            row["beacon"] = beacon.run(case, budget=FULL).figures
        return row

    def erased(self, name: str, recipe: Recipe, index: int) -> tuple[EG3D, int, float, torch.Tensor]:
        """The model without the person, the steps and CPU seconds that it took, and where they were sent."""
        lab = self.lab
        student = lab.model()
        place = f"erased-{name}-{recipe.digest()[:12]}-{index}-{lab.device.type}"
        kept = Checkpoint(self.cache, place)
        found = kept.kept("end")
        if found is None:
            clock = Clock()
            with stopping() as stopper:
                sequence = Sequence(
                    student, lab.source, recipe, lab.networks, index, kept, stopper, clock, {}, kin=lab.kin
                )  # fmt: skip
                w_u = lab.subject(FIRST + index).ws[:1]
                sequence.run(
                    ["person"], [w_u], lambda k, model: lab.person(FIRST + index, model), kept.load()
                )
            (memory,) = sequence.memories
            found = {
                "synthesis": student.backbone.synthesis.state_dict(), "w_t": memory.w_t,
                "steps": clock.steps, "seconds": round(clock.spent, 1),
            }  # fmt: skip
            kept.keep("end", found)
        student.backbone.synthesis.load_state_dict(found["synthesis"])
        w_t = found["w_t"].to(lab.device)
        return student.requires_grad_(False), found["steps"], found["seconds"], w_t


def inputs(lab: Lab, name: str) -> dict[str, Any]:
    budgets = {"short": cells.searched(SHORT), "full": cells.searched(FULL)}
    made = cells.inputs({name: recipe_of(name).digest()}, **budgets)
    return made | ({} if lab.device.type == "cpu" else {"device": lab.device.type})


def store(name: str, of: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: (row["search"], row["person"]))
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    head = f'{{"option": {json.dumps(name)}, "text": {json.dumps(OPTIONS[name][0])}'
    write(
        RESULTS / f"{name}.json",
        f'{head},\n "inputs": {json.dumps(of)},\n "cells": [\n  {lines}\n ]}}\n',
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="the full search, and the difference beacon")
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only write RESULTS.md")
    args = parser.parse_args()
    if not args.table:
        bench, search = Bench(args.cache, args.device), "full" if args.full else "short"
        of = {name: inputs(bench.lab, name) for name in args.only}
        rows = {name: cells.load(RESULTS / f"{name}.json", of[name]) or [] for name in args.only}
        for index in range(args.people):
            for name in args.only:
                if any((row["person"], row["search"]) == (index, search) for row in rows[name]):
                    continue
                row = bench.row(name, index, args.full)
                print(name, json.dumps(row), file=sys.stderr, flush=True)
                rows[name].append(row)
                store(name, of[name], rows[name])
    write_table(RESULTS, HERE / "RESULTS.md", list(OPTIONS))


if __name__ == "__main__":
    main()
