"""GUIDE with the earlier people's (w_j, w_t,j) in every step, as the recipe's `replay:` says.

The teacher still shows them: rehearsing sends them to their surrogates again, and their neighbourhoods leave
the global samples, which would pull them back. Who is coming back is rehearsed more often than who is not,
and an erasure does not end early while somebody is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guide_hub.guide.eraser import Erasure, StepLosses, step_seed
from guide_hub.modes.base import Done, Mode, Setup, Stage

PROBED = 8  # neighbours of each, others in every look
WATCHED = 3  # people looked at again in every check: those who were the most alike
IN_TURN = 2  # and so many of the rest, one after the other
CALM = 0.1  # the likeness that counts for whoever is less alike than that


class Replay(Mode):
    """Needs the stored latents of everybody before; whom a run did not store, it cannot rehearse.

    With `speed.check_every` the recogniser of the loss looks at the earlier people, from the front, before
    the first step, and in every check at the most alike and at some of the rest. They are rehearsed in
    proportion to the square of their likeness, and the stage goes on, up to all its iterations, until nobody
    is over `replay.enough`. While it waits for them alone, and in the cooldown after that, L_adj and decoys
    rest, and they weigh what the stage's person does. One of a rehearsed person's `replay.neighbours` is
    where they were seen most.
    """

    def __init__(self, setup: Setup, latents: list[Tensor]):
        super().__init__(setup, latents)
        missing = len(self.earlier) - len(self.everybody())
        if missing:
            setup.warn(f"{missing} people of earlier runs are not rehearsed: their latents were not kept")
        self.likeness = torch.zeros(0)  # of each of `known`, where the recipe has them looked at
        self.gone = False  # the stage's person, at the latest check

    def known(self) -> list[Erasure]:
        return [e for k, e in self.everybody().items() if k not in self.stage]

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        self.moved: list[int] = []
        if self.seeing:
            self._make_way()

    @property
    def seeing(self) -> bool:
        """Whether there is somebody to look after, and a teacher that still shows them: one that was pulled
        without them tells neither who is back nor whom a surrogate looks like."""
        replay = self.recipe.replay
        return bool(replay.weight and replay.per_step and self.eraser.earlier and self.setup.original)

    @property
    def watching(self) -> bool:
        return bool(self.recipe.speed.check_every and self.seeing)

    def prepare(self) -> None:
        self.gone = False
        if self.watching:
            everybody = range(len(self.eraser.earlier))
            self.likeness = torch.zeros(len(everybody))
            self.shown_at = torch.zeros_like(torch.cat([e.w_u for e in self.eraser.earlier]))
            self._look(everybody, 0)

    def finished(self, step: int) -> bool:
        if not self.watching:
            return super().finished(step)
        return self.eraser.after_cooldown(lambda: self._nobody(step) or step >= self.recipe.optim.iterations)

    def _nobody(self, step: int) -> bool:
        """Whether a look, if step `step` is one's turn, finds none of them."""
        every = self.recipe.speed.check_every
        if not step or step % every:
            return False
        self._look(self._watched(step // every), step)
        self.gone = self.eraser.enough(self.erasures[self.stage[0]], step)
        return self.gone and bool(self.likeness.max() <= self.recipe.replay.enough)

    def step(self, step: int) -> StepLosses:
        k = self.stage[0]
        draws = self.eraser.draw_at(self.erasures[k], self.seed, k, step)
        if self.watching:
            rng = torch.Generator().manual_seed(step_seed(self.seed, self.number(k), -11, step))
            weights = self.likeness.clamp(min=CALM).square()
            chosen = torch.multinomial(weights, len(draws.replayed), generator=rng)
            draws = replace(
                draws,
                replayed=tuple(chosen.tolist()),
                shown_replay=self.shown_at[chosen],
                for_them=self.gone,
            )
        return self.eraser.step(self.erasures[k], draws)

    # ------------------------------------------------------------------------------------------------------

    def _make_way(self) -> None:
        """An earlier person whose surrogate looks like somebody else who was erased goes elsewhere: there
        that one would be shown for good, whatever becomes of their own latent.

        `faces`: whom the place of each of the earlier people must not show, [n, E] each.
        """
        eraser, everybody = self.eraser, self.everybody()
        people, enough = list(everybody), self.recipe.replay.enough
        earlier = [k for k in people if k not in self.stage]  # as in eraser.earlier
        theirs, shown = (
            eraser.faces(eraser.teacher, torch.cat(ws))
            for ws in ([e.w_u for e in everybody.values()], [e.w_t for e in eraser.earlier])
        )
        self.faces = [theirs[people.index(k)][None] for k in earlier]
        if self.recipe.target.kind == "average":
            return
        for i, k in enumerate(earlier):
            others = theirs[[other != k for other in people]]
            alike = others @ shown[i] > enough
            if alike.any():
                erasure = self.set_apart(k, everybody[k], partial(self._shows, theirs))
                if erasure is not everybody[k]:
                    eraser.earlier[i] = erasure
                    self.faces[i] = torch.cat([self.faces[i], others[alike]])
                    self._send(k, erasure)
                    self.moved.append(k)

    def _shows(self, faces: Tensor, w_t: Tensor) -> bool:
        """Whether the teacher shows one of them at w_t."""
        shown = self.eraser.faces(self.eraser.teacher, w_t)[0]
        return bool((faces @ shown).max() > self.recipe.replay.enough)

    def _send(self, k: int, erasure: Erasure) -> None:
        if k < 0:
            self.earlier[k] = replace(self.earlier[k], w_t=erasure.w_t)
        else:
            self.done[k] = replace(self.done[k], erasure=erasure)

    def kept(self) -> dict[int, Done]:
        everybody = self.everybody()
        return super().kept() | {k: self.done[k] if k >= 0 else Done(everybody[k]) for k in self.moved}

    def recall(self, done: dict[int, Done]) -> None:
        super().recall({k: d for k, d in done.items() if k >= 0})
        for k, d in done.items():
            if k < 0:
                self._send(k, d.erasure)

    def _watched(self, check: int) -> list[int]:
        """Whom the check, numbered from 1, looks at: the most alike, and others in turn."""
        by_likeness = self.likeness.argsort(descending=True, stable=True).tolist()
        first, rest = by_likeness[:WATCHED], sorted(by_likeness[WATCHED:])
        at = check * IN_TURN
        return first + [rest[(at + i) % len(rest)] for i in range(min(IN_TURN, len(rest)))]

    def _look(self, who: Iterable[int], step: int) -> None:
        """The highest cosine of what the student shows at and around each one's latent to their `faces`."""
        for j in who:
            known, seed = self.eraser.earlier[j], step_seed(-12, step)
            likeness, offset = self.eraser.look(known, self.faces[j], PROBED, seed)
            self.likeness[j], self.shown_at[j] = likeness.max(), offset[0]

    def own_state(self) -> dict[str, Any]:
        if not self.watching:
            return {}
        return {"likeness": self.likeness, "shown_at": self.shown_at, "gone": self.gone}

    def load_own_state(self, state: dict[str, Any]) -> None:
        if self.watching:
            self.likeness, self.gone = state["likeness"].clone(), state["gone"]
            self.shown_at = state["shown_at"].to(self.teacher.w_avg.device, copy=True)
