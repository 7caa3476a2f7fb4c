"""Hundreds of latents that show the person, of many searches: does what hides them all hide others? By hand.

    python bank.py --steps 400

Attackers first search the source (`attackers.py`), and every latent on their ways that shows the person is
kept. Each step of the erasure has four of these; every second one the attackers go on, against the student,
and what they find joins them. Then others are measured, and the search of `run.py` looks for the person.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tests"), str(HERE.parent), str(HERE.parents[1] / "sequence_study")]

import heads_cases
import torch
from attackers import ALL, REPEL, Attackers

from guide_hub.attacks import reinversion
from guide_hub.guide import Eraser
from guide_hub.guide.eraser import Pairs
from guide_hub.guide.losses import Away
from guide_hub.modes.neighbours import nearest
from guide_hub.recipe import load_recipe
from lab import Lab
from options import QUICK

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
    recipe, base, student = load_recipe("heads-fast"), heads_cases.nobody(), heads_cases.heads()
    recipe = replace(
        recipe,
        robust=replace(recipe.robust, repel=REPEL),
        speed=replace(recipe.speed, pool=0),
        optim=replace(recipe.optim, average=0.95),
    )
    nets = base.networks
    eraser = Eraser(student, base.source, recipe, nets.perceptual, nets.identity_loss)
    erasure = eraser.target(base.ws[:1])
    eraser.protected = nearest(eraser, [erasure], [erasure.w_u], recipe.sequence.protect)
    attackers, bank = Attackers(eraser, erasure, args.attackers), list[torch.Tensor]()

    def go_on(moves: int, least: float) -> None:
        found = attackers.move(moves)
        bank.extend(found[attackers.cosine > least].split(1))

    for _ in range(2 * ALL // 4):  # two generations of them
        go_on(4, SURE)
    first = torch.cat(bank)
    person, rng = eraser.shown(erasure), torch.Generator().manual_seed(3)
    weights = replace(eraser.local, repulsion=REPEL).times(2 / EACH)
    away = Away(person, recipe.robust.repel_above)
    for step in range(args.steps):
        share = min(1.0, (1 - step / args.steps) / (1 - COOLED_FROM))
        eraser.optimizer.param_groups[0]["lr"] = recipe.optim.lr * max(share, 0.02)
        draws = eraser.draw_at(erasure, 0, 0, step)
        pairs = eraser.pairs(erasure, draws)
        if step % 2 == 0:
            go_on(2, SEEN)
        any_of = torch.randint(len(bank), (EACH // 2,), generator=rng)
        latest = len(bank) - 1 - torch.randint(min(LATEST, len(bank)), (EACH // 2,), generator=rng)
        found = torch.cat([bank[k] for k in [*any_of.tolist(), *latest.tolist()]])
        w_t = erasure.w_t + found - erasure.w_u
        pairs.append(Pairs("adjacency", found, w_t, weights, away, once=True))
        eraser.descend(pairs, draws)
        if step % 20 == 19:
            seen = [round(x, 2) for x in attackers.cosine.tolist()]
            figures = {"step": step + 1, "bank": len(bank), "age": attackers.age[0], "attackers": seen}
            print(json.dumps(figures), file=sys.stderr, flush=True)
    eraser.settle()
    student.requires_grad_(False)
    with torch.no_grad():
        known = (eraser.faces(student, first) @ person.T).max(1).values
    retained = Lab("heads-fast").retained(student)
    found_after = reinversion.run(replace(base, erased=student, recipe=recipe, memo={}), budget=QUICK)
    print(
        json.dumps(
            {
                "bank": len(bank),
                "first_of_bank": {
                    "latents": len(first),
                    "cosine_mean": round(float(known.mean()), 4),
                    "cosine_max": round(float(known.max()), 4),
                },
                "retained": retained,
                "reinversion": found_after.figures,
            }
        )
    )


if __name__ == "__main__":
    main()
