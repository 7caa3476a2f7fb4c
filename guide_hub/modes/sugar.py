"""SUGAR (arXiv 2512.06562), the rival: a learned surrogate, and a Fisher penalty in place of L_global.

As its authors have it, the teacher stays the original, the penalty pulls to the weights that the run before
left, and nothing protects earlier erasures. Their radii shrink with the batch, by a norm over all of it; here
each latent has its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guide_hub.guide.eraser import Erasure, Pairs, StepLosses, step_seed
from guide_hub.guide.latents import neighbour_offset
from guide_hub.modes.base import Mode
from guide_hub.modes.deidentify import Deidentifier, surrogate, train

LATENTS = 2  # behind a Fisher estimate
RADIUS = 2.0  # of those about w_avg, in d: 40 at SUGAR's d = 20


class Sugar(Mode):
    """A neighbour goes to its own surrogate, `Phi`'s of it, not to w_t beside the person's.

    F: SUGAR squares the gradient of `-l_L2 MSE(F_u(w), F_0(w))` along two steps of ascent, which is 0 at the
    original's weights where noise is const. Ours is that loss's curvature there, by random projections of the
    planes: `sum F (theta - theta*)^2` is `l_L2 MSE` to second order, diagonally. L_global is left out but for
    `protect`; the recipe's kind of target plays no part. The figures of a step lack the penalty.
    """

    preparing = "finding a surrogate for"

    def target(self, k: int) -> Erasure:
        return Erasure(self.latents[k], self.latents[k], self.photos[k])  # until Phi knows better

    def prepare(self) -> None:
        k, options = self.stage[0], self.options
        seed = step_seed(self.seed, self.number(k), -9)
        self.phi = Deidentifier(seed).to(self.teacher.w_avg.device)
        train(self.phi, self.eraser, self.erasures[k].w_u, options.surrogate_steps, seed)
        self.anchor = self.weights()
        self.importance = self._fisher(self.erasures[k].w_u, seed)
        self._begin_steps()

    def _begin_steps(self) -> None:
        k = self.stage[0]
        with torch.no_grad():
            w_t = surrogate(self.phi, self.eraser, self.latents[k])
        self.erasures[k] = self.set_apart(k, replace(self.erasures[k], w_t=w_t))
        self.eraser.after_backward = self._penalty

    def _fisher(self, w_u: Tensor, seed: int) -> Tensor:
        """The mean over latents of the squared gradient of `sqrt(l_L2 / n) <v, F(w)>`, v ~ N(0, I): [P]."""
        eraser, rng = self.eraser, torch.Generator().manual_seed(seed)
        offset = eraser.space.random(LATENTS, rng) - w_u
        norm = self.recipe.target.norm
        radius = torch.full((LATENTS,), RADIUS * self.recipe.target.d * eraser.unit)
        around = eraser.space.w_avg + neighbour_offset(w_u, w_u + offset, radius, norm)
        total = torch.zeros_like(self.anchor)
        for w in around.split(1):
            planes = self.student.planes(w, noise_mode="const")
            v = torch.randn(planes.shape, generator=rng).to(planes)
            eraser.optimizer.zero_grad(set_to_none=True)
            (v * planes).sum().mul((self.recipe.local.l2 / planes.numel()) ** 0.5).backward()
            total += self.gradient().square() / LATENTS
        eraser.optimizer.zero_grad(set_to_none=True)
        return total

    @torch.no_grad()
    def _penalty(self) -> None:
        pull = 2 * self.options.fisher * self.importance * (self.weights() - self.anchor)
        for p, part in zip(self.eraser.parameters, self.parts(pull), strict=True):
            p.grad = part.clone() if p.grad is None else p.grad + part

    def step(self, step: int) -> StepLosses:
        k, eraser = self.stage[0], self.eraser
        erasure = self.erasures[k]
        draws = eraser.draw_at(erasure, self.seed, self.number(k), step)
        draws = replace(draws, w_global=draws.w_global[:0])
        pairs = [
            self._sent(pair) if pair.name == "adjacency" else pair for pair in eraser.pairs(erasure, draws)
        ]
        return eraser.descend(pairs, draws)

    @torch.no_grad()
    def _sent(self, neighbours: Pairs) -> Pairs:
        return replace(neighbours, w_teacher=surrogate(self.phi, self.eraser, neighbours.w_student))

    def own_state(self) -> dict[str, Any]:
        return {"phi": self.phi.state_dict(), "anchor": self.anchor, "importance": self.importance}

    def load_own_state(self, state: dict[str, Any]) -> None:
        device = self.teacher.w_avg.device
        self.phi = Deidentifier(0).to(device).requires_grad_(False)
        self.phi.load_state_dict(state["phi"])
        self.anchor, self.importance = state["anchor"].to(device), state["importance"].to(device)
        self._begin_steps()
