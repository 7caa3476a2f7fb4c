"""Hundreds of latents that show the person, of many searches: does what hides them all hide others? By hand.

    python bank.py --steps 400

Attackers first search the source (`attackers.py`); of their ways every fourth latent is kept that shows the
person to the loss's recogniser. Each step of the erasure has four of these; every second one the attackers go
on, two steps against the student, and what shows the person joins them. Then others are measured, and the
search of `run.py` looks for the person.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from attackers import ALL, Trial
from torch import Tensor

SURE, SEEN = 0.7, 0.5  # cosines from which a latent is kept: of the source, of the student
EACH = 4  # a step, half of them of the latest
LATEST = 60
COOLED_FROM = 0.6  # share of the steps, after which the rate falls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--attackers", type=int, default=6)
    args = parser.parse_args()
    trial, bank = Trial(args.attackers, average=0.95), list[Tensor]()
    eraser, erasure, attackers = trial.eraser, trial.erasure, trial.attackers

    def go_on(moves: int, least: float) -> None:
        found = attackers.move(moves)
        bank.extend(found[attackers.cosine > least].split(1))

    for _ in range(2 * ALL // 4):  # two generations of them
        go_on(4, SURE)
    first, rng = torch.cat(bank), torch.Generator().manual_seed(3)
    for step in range(args.steps):
        share = min(1.0, (1 - step / args.steps) / (1 - COOLED_FROM))
        eraser.optimizer.param_groups[0]["lr"] = trial.recipe.optim.lr * max(share, 0.02)
        draws = eraser.draw_at(erasure, 0, 0, step)
        pairs = eraser.pairs(erasure, draws)
        if step % 2 == 0:
            go_on(2, SEEN)
        any_of = torch.randint(len(bank), (EACH // 2,), generator=rng)
        latest = len(bank) - 1 - torch.randint(min(LATEST, len(bank)), (EACH // 2,), generator=rng)
        found = torch.cat([bank[k] for k in [*any_of.tolist(), *latest.tolist()]])
        eraser.descend([*pairs, trial.pairs(found, 2 / EACH)], draws)
        if step % 20 == 19:
            trial.log(step=step + 1, bank=len(bank), age=attackers.age[0])
    figures = trial.end()
    known = (eraser.faces(eraser.student, first) @ eraser.shown(erasure).T).max(1).values
    of_first = {
        "latents": len(first),
        "cosine_mean": round(float(known.mean()), 4),
        "cosine_max": round(float(known.max()), 4),
    }
    print(json.dumps({"bank": len(bank), "first_of_bank": of_first, **figures}))


if __name__ == "__main__":
    main()
