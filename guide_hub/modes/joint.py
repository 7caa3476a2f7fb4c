"""Everybody at once, from the original's weights: those of this run and of all runs before.

Without the original it begins from the model as it was pulled, and rehearses there whom the ledger holds.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import torch

from guide_hub.guide.eraser import StepLosses, step_seed
from guide_hub.modes.base import Mode, Setup, Stage, require_people
from guide_hub.recipe import Replay

__all__ = ["Joint"]


class Joint(Mode):
    """A step takes the next `per_step` people of a shuffled round, under one camera; its loss is their mean.

    Everybody is visited `optim.iterations` times. The order in which people were given makes no difference:
    theirs is that of their latents' digests, and with it the seeds, which here do shift with one more person.
    """

    folds = False
    from_original = True

    def __init__(self, setup: Setup, latents: list[torch.Tensor]):
        super().__init__(setup, latents)
        if setup.original:
            require_people(self.earlier)
        self.recipe = replace(self.recipe, replay=Replay(weight=0.0))  # `earlier` only leave L_global

    def stages(self) -> list[Stage]:
        if not self.latents:
            return []
        known = enumerate([m.w_u for m in self.earlier], -len(self.earlier))
        people = {k: w_u for k, w_u in known if w_u is not None}
        people.update(enumerate(self.latents))
        digests = {k: hashlib.sha256(w.cpu().numpy().tobytes()).digest() for k, w in people.items()}
        return [tuple(sorted(people, key=digests.__getitem__))]

    def number(self, k: int) -> int:
        return self.stage.index(k)

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        if len(stage) > 1:
            self.eraser.earlier = list(self.erasures.values())

    @property
    def together(self) -> int:
        return min(self.options.per_step, len(self.stage))

    def total(self) -> int:
        return math.ceil(self.recipe.optim.iterations * len(self.stage) / self.together)

    def finished(self, step: int) -> bool:
        if step >= self.total():
            return True
        return all(self.eraser.enough(erasure, step) for erasure in self.erasures.values())

    def step(self, step: int) -> StepLosses:
        visits = [self.visit(step * self.together + i) for i in range(self.together)]
        chosen = [(self.erasures[self.stage[k]], k, turn) for k, turn in visits]
        draws = [self.eraser.draw_at(erasure, self.seed, k, turn) for erasure, k, turn in chosen]
        pairs = [
            replace(pairs, weights=pairs.weights.times(1 / len(chosen)))
            for (erasure, *_), its in zip(chosen, draws, strict=True)
            for pairs in self.eraser.pairs(erasure, its)
        ]
        return self.eraser.descend(pairs, draws[0])

    def visit(self, i: int) -> tuple[int, int]:
        """Whose turn visit number i is, by place in the stage, and how many of theirs were before. The order
        of a pool's rounds comes again."""
        turn, place = divmod(i, len(self.stage))
        round_ = turn % self.recipe.speed.pool if self.recipe.speed.pool else turn
        rng = torch.Generator().manual_seed(step_seed(self.seed, -6, round_))
        return int(torch.randperm(len(self.stage), generator=rng)[place]), turn
