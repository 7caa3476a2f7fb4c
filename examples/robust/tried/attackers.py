"""Attackers who search along: does an erasure keep up with them? By hand, and no recipe's.

    python attackers.py --steps 120 --attackers 4 --moves 2

Every step of the erasure each attacker makes two of their own, towards the person as the loss's recogniser
sees them, among likely latents, first in W and after 40 in W+; after 120 a new one begins, each in its turn.
Where one shows the person, L_adj and the repulsion have that latent too. Then others are measured, and the
search of `run.py` looks for the person in what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tests"), str(HERE.parent), str(HERE.parents[1] / "sequence_study")]

import heads_cases
import torch
from torch import Tensor

from guide_hub.attacks import reinversion
from guide_hub.attacks.likely import Likely
from guide_hub.guide import Eraser, Erasure
from guide_hub.guide.eraser import Pairs
from guide_hub.guide.latents import neighbour_offset
from guide_hub.guide.losses import Away
from guide_hub.modes.neighbours import nearest
from guide_hub.orbit import orbit_label
from guide_hub.recipe import load_recipe
from lab import Lab
from options import SHORT

IN_W, ALL = 40, 120  # steps of an attacker in W, and in all
RATE = 0.2  # of a typical latent's distance from w_avg, over all of its numbers
SEEN = 0.2  # cosine from which a latent joins the training
REPEL = 1.0


class Attackers:
    """`v`: a latent each, in the chart of `Likely`, [1, 1 or num_ws, w_dim]."""

    def __init__(self, eraser: Eraser, erasure: Erasure, n: int) -> None:
        self.eraser, self.erasure = eraser, erasure
        self.likely, self.rng = Likely(eraser.space, reinversion.LIKELY_MAX), torch.Generator().manual_seed(5)
        self.v: list[Tensor] = [torch.empty(0)] * n
        self.adam: list[torch.optim.Adam | None] = [None] * n
        self.age, self.cosine = [0] * n, torch.zeros(n)
        for i in range(n):
            self.begin(i, i * ALL // n)

    def begin(self, i: int, age: int = 0) -> None:
        """Near the person, near the mean face or, half of the times, at a random latent."""
        space, kind = self.eraser.space, int(torch.randint(4, (), generator=self.rng))
        w = space.random(1, self.rng)
        if kind < 2:
            centre = space.w_avg if kind else self.erasure.w_u
            alpha = torch.rand(1, generator=self.rng) * self.eraser.alpha_max
            w = centre + neighbour_offset(centre, w, alpha, self.eraser.recipe.target.norm)
        self.age[i], self.cosine[i] = age, 0.0
        v = self.likely.inward(self.likely.clamp(w)[:, :1])
        self.put(i, v if age < IN_W else v.expand_as(w))

    def put(self, i: int, v: Tensor) -> None:
        self.v[i] = v.detach().clone().requires_grad_(True)
        rate = RATE * self.eraser.median / self.erasure.w_u.numel() ** 0.5
        self.adam[i] = torch.optim.Adam([self.v[i]], lr=rate)

    def ws(self) -> Tensor:
        rows = self.erasure.w_u.shape[1]
        return torch.cat([self.likely.outward(v).expand(-1, rows, -1) for v in self.v])

    def move(self, times: int) -> Tensor:
        """So many steps of each; the latents [n, num_ws, w_dim] before the last, of which `cosine` tells."""
        eraser, recipe = self.eraser, self.eraser.recipe
        student, person = eraser.student, eraser.shown(self.erasure)
        for p in eraser.parameters:
            p.requires_grad_(False)
        for _ in range(times):
            yaw = (2 * float(torch.rand((), generator=self.rng)) - 1) * recipe.camera.yaw_range
            ws, c = self.ws(), orbit_label(student.config, recipe.camera, yaw).expand(len(self.v), -1)
            picture = student.render(
                student.planes(ws, noise_mode="const"), ws, c, deterministic=True,
                neural_rendering_resolution=recipe.speed.rays,
            )["image"]  # fmt: skip
            cosine = (eraser.loss.identity(picture) @ person.T).mean(1)
            (1 - cosine).sum().backward()
            self.cosine = cosine.detach()
            for i, adam in enumerate(self.adam):
                assert adam is not None
                adam.step()
                adam.zero_grad(set_to_none=True)
                with torch.no_grad():
                    self.v[i].copy_(self.likely.bound(self.v[i]))
                self.age[i] += 1
                if self.age[i] == IN_W:
                    self.put(i, self.v[i].expand(-1, self.erasure.w_u.shape[1], -1))
                elif self.age[i] == ALL:
                    self.begin(i)
        for p in eraser.parameters:
            p.requires_grad_(True)
        return ws.detach()


class Trial:
    """An erasure of the person of docs/attacks.md against `n` attackers, and what is left of them."""

    def __init__(self, n: int, **optim: float) -> None:
        recipe, self.base = load_recipe("heads-fast"), heads_cases.nobody()
        robust, speed = replace(recipe.robust, repel=REPEL), replace(recipe.speed, pool=0)
        self.recipe = replace(recipe, robust=robust, speed=speed, optim=replace(recipe.optim, **optim))
        nets = self.base.networks
        self.eraser = Eraser(
            heads_cases.heads(), self.base.source, self.recipe, nets.perceptual, nets.identity_loss
        )
        self.erasure = self.eraser.target(self.base.ws[:1])
        protect = self.recipe.sequence.protect
        self.eraser.protected = nearest(self.eraser, [self.erasure], [self.erasure.w_u], protect)
        self.attackers = Attackers(self.eraser, self.erasure, n)

    def pairs(self, found: Tensor, weight: float) -> Pairs:
        """L_adj and the repulsion at latents where the person was found."""
        weights = replace(self.eraser.local, repulsion=REPEL).times(weight)
        away = Away(self.eraser.shown(self.erasure), self.recipe.robust.repel_above)
        w_t = self.erasure.w_t + found - self.erasure.w_u
        return Pairs("adjacency", found, w_t, weights, away, once=True)

    def log(self, **figures: int) -> None:
        seen = [round(x, 2) for x in self.attackers.cosine.tolist()]
        print(json.dumps({**figures, "attackers": seen}), file=sys.stderr, flush=True)

    def end(self) -> dict[str, Any]:
        """The erasure's end; how others fare, and what the search of `run.py` finds."""
        self.eraser.settle()
        student = self.eraser.student.requires_grad_(False)
        retained = Lab("heads-fast").retained(student)
        case = replace(self.base, erased=student, recipe=self.recipe, memo={})
        return {"retained": retained, "reinversion": reinversion.run(case, budget=SHORT).figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--attackers", type=int, default=4)
    parser.add_argument("--moves", type=int, default=2, help="of each attacker, for every step")
    args = parser.parse_args()
    trial = Trial(args.attackers)
    eraser, attackers = trial.eraser, trial.attackers
    for step in range(args.steps):
        draws = eraser.draw_at(trial.erasure, 0, 0, step)
        pairs, found = eraser.pairs(trial.erasure, draws), attackers.move(args.moves)
        found = found[attackers.cosine > SEEN]
        if len(found):
            pairs.append(trial.pairs(found, trial.recipe.adjacency.weight))
        eraser.descend(pairs, draws)
        if step % 10 == 9:
            trial.log(step=step + 1)
    print(json.dumps(trial.end()))


if __name__ == "__main__":
    main()
