"""Everybody at once, from the original's weights: those of this run and of all runs before.

Without the original it begins from the model as it was pulled, and rehearses there whom the ledger holds.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import torch

from guide_hub.guide.eraser import CHECKED, StepLosses, step_seed
from guide_hub.modes.base import Mode, Setup, Stage, require_people
from guide_hub.recipe import Replay

__all__ = ["Joint"]

CALM = 0.2  # the likeness that counts for whoever is less alike than that


class Joint(Mode):
    """A step takes the next `per_step` people of a shuffled round, under one camera; its loss is their mean.

    Everybody is visited `optim.iterations` times. With `speed.check_every`, though, the recogniser of the
    loss looks at everybody after so many rounds: from then on people are drawn by the square of their
    likeness, one neighbour of each is where they were seen most, and when nobody is over `speed.enough`, but
    for what is spared, it ends. The order in which people were given makes no difference: theirs is that of
    their latents' digests, and with it the seeds, which here do shift with one more person.
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
        if self.watching:
            self.faces = [self.eraser.shown(self.erasures[k])[1:2] for k in stage]

    def prepare(self) -> None:
        count = len(self.stage)
        self.turns = [0] * count
        self.likeness = torch.zeros(0)  # nobody has looked yet
        self.shown_at = torch.zeros_like(torch.cat([self.erasures[k].w_u for k in self.stage]))

    @property
    def watching(self) -> bool:
        return bool(self.recipe.speed.check_every)

    @property
    def together(self) -> int:
        return min(self.options.per_step, len(self.stage))

    def total(self) -> int:
        return self._visiting() + self.recipe.optim.cooldown

    def _visiting(self) -> int:
        return math.ceil(self.recipe.optim.iterations * len(self.stage) / self.together)

    def finished(self, step: int) -> bool:
        return self.eraser.after_cooldown(lambda: step >= self._visiting() or self._gone(step))

    def _gone(self, step: int) -> bool:
        """Whether a look, if step `step` is one's turn, finds nobody."""
        speed = self.recipe.speed
        if (
            not self.watching
            or not step
            or step % math.ceil(speed.check_every * len(self.stage) / self.together)
        ):
            return False
        self.likeness, gone = torch.zeros(len(self.stage)), True
        for i, (k, face) in enumerate(zip(self.stage, self.faces, strict=True)):
            likeness, offset = self.eraser.look(self.erasures[k], face, CHECKED, step_seed(-3, step))
            self.likeness[i], self.shown_at[i] = likeness.max(), offset[0]
            gone = gone and self.eraser.counted(likeness) <= speed.enough
        return gone

    def step(self, step: int) -> StepLosses:
        visits = self._visits(step)
        pairs, draws = [], []
        for nth, (i, turn) in enumerate(visits):
            # what is kept of a pool's draws goes by the first's: with others drawn beside it, theirs is new
            again = nth > 0 and bool(len(self.likeness))
            erasure = self.erasures[self.stage[i]]
            self.eraser.shown_at = (erasure.w_u, self.shown_at[i : i + 1]) if len(self.likeness) else None
            draws.append(self.eraser.draw_at(erasure, self.seed, i, turn))
            pairs += [
                replace(pair, weights=pair.weights.times(1 / len(visits)), once=pair.once or again)
                for pair in self.eraser.pairs(erasure, draws[-1])
            ]
            self.turns[i] += 1
        return self.eraser.descend(pairs, draws[0])

    def _visits(self, step: int) -> list[tuple[int, int]]:
        """Whose turn it is, by place in the stage, and how many of theirs were before."""
        if not len(self.likeness):
            return [self.visit(step * self.together + i) for i in range(self.together)]
        weights = self.likeness.clamp(min=CALM).square()
        rng = torch.Generator().manual_seed(step_seed(self.seed, -14, step))
        chosen = torch.multinomial(weights, self.together, generator=rng).tolist()
        return [(i, self.turns[i]) for i in chosen]

    def own_state(self) -> dict[str, Any]:
        return {"turns": self.turns, "likeness": self.likeness, "shown_at": self.shown_at}

    def load_own_state(self, state: dict[str, Any]) -> None:
        self.turns, self.likeness = list(state["turns"]), state["likeness"].clone()
        self.shown_at = state["shown_at"].to(self.teacher.w_avg.device, copy=True)

    def visit(self, i: int) -> tuple[int, int]:
        """Whose turn visit number i is, by place in the stage, and how many of theirs were before. The order
        of a pool's rounds comes again."""
        turn, place = divmod(i, len(self.stage))
        round_ = turn % self.recipe.speed.pool if self.recipe.speed.pool else turn
        rng = torch.Generator().manual_seed(step_seed(self.seed, -6, round_))
        return int(torch.randperm(len(self.stage), generator=rng)[place]), turn
