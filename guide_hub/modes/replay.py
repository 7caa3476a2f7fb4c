"""GUIDE with the earlier people's (w_j, w_t,j) in every step, as the recipe's `replay:` says.

The teacher still shows them: rehearsing sends them to their surrogates again, and their neighbourhoods leave
the global samples, which would pull them back. Who is coming back is rehearsed more often than who is not,
and an erasure does not end early while somebody is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guide_hub.guide.eraser import Erasure, StepLosses, step_seed
from guide_hub.modes.base import Mode, Setup, rehearsable

PROBED = 4  # neighbours of each, others in every look
WATCHED = 3  # people looked at again in every check: those who were the most alike
IN_TURN = 2  # and so many of the rest, one after the other
CALM = 0.1  # the likeness that counts for whoever is less alike than that


class Replay(Mode):
    """Needs the stored latents of everybody before; whom a run did not store, it cannot rehearse.

    With `speed.check_every` the recogniser of the loss looks at the earlier people, from the front, before
    the first step, and in every check at the most alike and at some of the rest. They are rehearsed in
    proportion to the square of their likeness, and the stage goes on, up to all its iterations, until nobody
    is over `replay.enough`. While it waits for them alone, L_adj rests.
    """

    def __init__(self, setup: Setup, latents: list[Tensor]):
        super().__init__(setup, latents)
        missing = len(self.earlier) - len(rehearsable(self.earlier))
        if missing:
            setup.warn(f"{missing} people of earlier runs are not rehearsed: their latents were not kept")
        self.likeness = torch.zeros(0)  # of each of `known`, where the recipe has them looked at
        self.gone = False  # the stage's person, at the latest check

    def known(self) -> list[Erasure]:
        return rehearsable(self.earlier) + [d.erasure for d in self.done.values()]

    @property
    def watching(self) -> bool:
        return bool(self.recipe.speed.check_every and self.recipe.replay.weight and self.eraser.earlier)

    def prepare(self) -> None:
        self.gone = False
        if self.watching:
            self.faces = self._faces()
            self.likeness = self._look(range(len(self.eraser.earlier)), 0)

    def finished(self, step: int) -> bool:
        every = self.recipe.speed.check_every
        if self.watching and step and step % every == 0:
            watched = self._watched(step // every)
            self.likeness[watched] = self._look(watched, step)
            self.gone = self.eraser.enough(self.erasures[self.stage[0]], step)
            calm = bool(self.likeness.max() <= self.recipe.replay.enough)
            return step >= self.recipe.optim.iterations or (self.gone and calm)
        return super().finished(step)

    def step(self, step: int) -> StepLosses:
        k = self.stage[0]
        draws = self.eraser.draw_at(self.erasures[k], self.seed, k, step)
        if self.watching:
            rng = torch.Generator().manual_seed(step_seed(self.seed, self.number(k), -11, step))
            weights = self.likeness.clamp(min=CALM).square()
            chosen = torch.multinomial(weights, len(draws.replayed), generator=rng)
            draws = replace(draws, replayed=tuple(chosen.tolist()))
            if self.gone:
                draws = replace(draws, alpha=draws.alpha[:0], z_adjacent=draws.z_adjacent[:0])
        return self.eraser.step(self.erasures[k], draws)

    # ------------------------------------------------------------------------------------------------------

    def _faces(self) -> Tensor:
        """Everybody before as the teacher shows them: [J, E]."""
        return self.eraser.faces(self.teacher, torch.cat([e.w_u for e in self.eraser.earlier]))

    def _watched(self, check: int) -> list[int]:
        """Whom the check, numbered from 1, looks at: nobody is out of sight for good."""
        by_likeness = self.likeness.argsort(descending=True, stable=True).tolist()
        first, rest = by_likeness[:WATCHED], sorted(by_likeness[WATCHED:])
        at = check * IN_TURN
        return first + [rest[(at + i) % len(rest)] for i in range(min(IN_TURN, len(rest)))]

    def _look(self, who: Iterable[int], step: int) -> Tensor:
        """The highest cosine of each of `who` to what the student shows at and around their latents."""
        found, eraser = [], self.eraser
        with eraser.averaged():
            for j in who:
                ws = eraser.around(eraser.earlier[j].w_u, PROBED, step_seed(-12, step))
                found.append((eraser.faces(self.student, ws) @ self.faces[j]).max())
        return torch.stack(found).cpu()

    def own_state(self) -> dict[str, Any]:
        return {"likeness": self.likeness, "gone": self.gone} if self.watching else {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        if self.watching:
            self.faces, self.likeness = self._faces(), state["likeness"].clone()
            self.gone = state["gone"]
