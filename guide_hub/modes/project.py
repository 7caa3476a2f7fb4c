"""Each erasure keeps off the directions of those before it; no person is stored (CORTIS, arXiv 2605.25962).

Not everything of CORTIS is published; what is ours is said where it is. An erasure trains the numbers that
matter for its person more than for others, and after each of its steps the change so far loses what lies in
the span of the earlier erasures' gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guide_hub.guide.eraser import Erasure, StepLosses, step_seed
from guide_hub.guide.latents import outside
from guide_hub.modes.base import Mode, Setup
from guide_hub.modes.subspace import directions

SAMPLES = 8  # gradients behind a saliency
POOL = 512  # random latents that others are taken from
SMALLEST = 1e-30  # in place of a divisor of 0


class Project(Mode):
    """Saliency: `F_i / max(F_R, F_1, ..., F_i-1)`, F the mean squared gradient of the local and adjacency
    losses at the stage's first weights, for the person and (ours) for random people who are sent to their
    surrogates in the same way: L_global itself is near its minimum there. The top `salient` share of all
    numbers is trained.

    Snapshots of the whole loss's masked gradient, at most twice `rank` a stage, give the erasure's basis;
    bases merge to `rank` directions again, each erasure with the same total energy. The projection is within
    the mask (ours), onto what is orthogonal there: so the change keeps to both.

    A memory holds `mask` [P] (which of all P trained numbers), `basis` [r, M] and `energy` [r] over the M of
    the mask, `saliency` [P] (F_i). That is 4 r M + 5 P bytes. The merged basis takes 4 `rank` P, on the CPU.
    """

    remembers = False
    preparing = "finding the weights to train for"

    def __init__(self, setup: Setup, latents: list[Tensor]):
        super().__init__(setup, latents)
        self.merged: tuple[Tensor, Tensor] | None = None  # U of `folded` erasures, and its singular values
        self.folded = 0
        missing = sum("basis" not in memory.tensors for memory in self.earlier)
        if missing:
            setup.warn(f"nothing keeps {missing} people of earlier runs erased: they left no gradients")
        self.every = math.ceil(self.total() / (2 * self.options.rank))

    # Before the first step

    def prepare(self) -> None:
        self.start, self.snapshots, self.now = self.weights(), list[Tensor](), 0
        k = self.stage[0]
        own = self._importance([self.erasures[k]] * SAMPLES)
        rivals = self._importance(self._others(k))
        for tensors in self._before():
            rivals = torch.maximum(rivals, tensors["saliency"].to(rivals.device))
        ratio = own / rivals.clamp(min=SMALLEST)
        least = torch.kthvalue(
            ratio, len(ratio) - max(1, round(self.options.salient * len(ratio))) + 1
        ).values
        self.saliency, self.mask = own, (ratio >= least) & (ratio > 0)
        self._begin_steps()

    def _importance(self, erasures: list[Erasure]) -> Tensor:
        """The mean over `erasures` of the squared gradient of what takes them out: [P]."""
        total = torch.zeros_like(self.start)
        for i, erasure in enumerate(erasures):
            draws = self.eraser.draw(erasure, step_seed(self.seed, self.number(self.stage[0]), -7, i))
            pairs = [
                replace(p, once=True)  # the same draws for other people
                for p in self.eraser.pairs(erasure, draws)
                if p.name in ("local", "adjacency")
            ]
            self.eraser.optimizer.zero_grad(set_to_none=True)
            self.eraser.share(self.eraser, pairs, draws)
            total += self.gradient().square() / len(erasures)
        self.eraser.optimizer.zero_grad(set_to_none=True)
        return total

    def _others(self, k: int) -> list[Erasure]:
        """Random people, from outside the person's ball as far as there are any."""
        eraser, rng = self.eraser, torch.Generator().manual_seed(step_seed(self.seed, self.number(k), -8))
        w = eraser.space.random(POOL, rng)
        away = outside(w, [self.erasures[k].w_u], eraser.alpha_max, self.recipe.target.norm)
        w = torch.cat([w[away], w[~away]])[:SAMPLES]
        return [eraser.target(w_r, seed=i) for i, w_r in enumerate(w.split(1))]

    def _begin_steps(self) -> None:
        merged = self.merged_basis()
        inside = merged[:, self.mask.cpu()].to(self.start.device)
        self.closed = directions(inside, len(inside))[0] if len(inside) else inside
        self.eraser.after_backward, self.eraser.after_step = self._masked, self._projected

    def merged_basis(self) -> Tensor:
        """U of the earlier erasures: orthonormal [at most rank, P], on the CPU."""
        before = self._before()
        for tensors in before[self.folded :]:
            share = (tensors["energy"] / tensors["energy"].sum()).sqrt()
            rows = torch.zeros(len(share), len(self.start))
            rows[:, tensors["mask"]] = share[:, None].to(rows) * tensors["basis"]
            if self.merged is not None:
                rows = torch.cat([self.merged[0] * self.merged[1], rows])
            basis, energy = directions(rows, self.options.rank)
            self.merged = basis, energy.sqrt()[:, None].to(basis)
        self.folded = len(before)
        return torch.zeros(0, len(self.start)) if self.merged is None else self.merged[0]

    def _before(self) -> list[dict[str, Tensor]]:
        """What this mode kept of the people before, in their order."""
        kept = [m.tensors for m in self.earlier] + [d.tensors for d in self.done.values()]
        size = len(self.start)
        return [
            t for t in kept if "basis" in t and "mask" in t and len(t["mask"]) == size and len(t["basis"])
        ]

    # In every step

    def step(self, step: int) -> StepLosses:
        self.now = step
        return super().step(step)

    @torch.no_grad()
    def _masked(self) -> None:
        """Adam leaves alone what never has a gradient."""
        for p, part in zip(self.eraser.parameters, self.parts(self.mask), strict=True):
            if p.grad is not None:
                p.grad *= part
        if self.now % self.every == 0:
            self.snapshots.append(self.gradient()[self.mask].cpu())

    @torch.no_grad()
    def _projected(self) -> None:
        """Of the change since the stage began, so that rounding does not add up over the steps."""
        if not len(self.closed):
            return
        change = (self.weights() - self.start)[self.mask]
        change -= (self.closed @ change) @ self.closed
        weights = self.start.clone()
        weights[self.mask] += change
        self.set_weights(weights)

    # What stays

    def left(self, k: int) -> dict[str, Tensor]:
        basis, energy = directions(torch.stack(self.snapshots), self.options.rank)
        return {"mask": self.mask.cpu(), "basis": basis, "energy": energy, "saliency": self.saliency.cpu()}

    def own_state(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "mask": self.mask,
            "saliency": self.saliency,
            "snapshots": torch.stack(self.snapshots) if self.snapshots else None,
        }

    def load_own_state(self, state: dict[str, Any]) -> None:
        device = self.teacher.w_avg.device
        self.start, self.mask, self.saliency = (
            state[key].to(device) for key in ("start", "mask", "saliency")
        )
        self.snapshots = [] if state["snapshots"] is None else list(state["snapshots"])
        self._begin_steps()
