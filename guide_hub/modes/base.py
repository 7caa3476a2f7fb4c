"""What a mode decides: who is erased together, from which weights, by which steps, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.guide.eraser import Eraser, Erasure, Share, StepLosses, alone, step_seed
from guide_hub.guide.latents import bystanders
from guide_hub.modes.neighbours import nearest
from guide_hub.modes.surrogates import resemblance_to, set_apart
from guide_hub.recipe import Recipe

Stage = tuple[int, ...]  # who is erased at the same time


@dataclass(frozen=True, eq=False)
class Memory:
    """What a later run needs of one erased identity. Private: it goes to the ledger alone."""

    w_u: Tensor | None = field(repr=False)  # [1, num_ws, w_dim]; None where the mode stores no person
    w_t: Tensor | None = field(repr=False)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)  # the mode's own, on the CPU
    photos: Tensor | None = field(default=None, repr=False)  # see Erasure


@dataclass(frozen=True, eq=False)
class Done:
    """What one identity leaves to the rest of its run; `tensors` are on the CPU."""

    erasure: Erasure
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a mode works with. `earlier` are the identities of runs before, in their order."""

    student: EG3D
    teacher: EG3D
    recipe: Recipe
    perceptual: PerceptualDistance
    identity: IdentityEncoder
    seed: int
    earlier: Sequence[Memory] = ()
    share: Share = alone
    original: bool = True  # whether the teacher is the model from before the first erasure
    kin: Tensor | None = None  # `guide.kin`, where the recipe asks for it and it is there already
    warn: Callable[[str], None] = lambda text: None


class Mode:
    """GUIDE, one person after the other; the other modes say where they differ.

    This run's people are numbered from 0 as in `latents` ([1 + P, num_ws, w_dim] each: the one to erase, and
    where P photos of the person lie), those of runs before by negative numbers: k < 0 is `earlier[k]`. Seeds
    hang on (seed, number, step), so that nobody's change when somebody is added at the end. For each of
    `stages()`: `begin`, then `prepare`, or `load_state` where the stage goes on, then `step` until
    `finished`, then `end`; `recall` in place of all of them where the stage was done before. After the last
    one, `finish`.
    """

    remembers = True  # whether the people themselves go into the memories
    folds = True  # whether a stage's end has the student without its people, and without those before
    preparing = ""  # what `prepare` does, in words before the person's name
    from_original = False  # whether a stage begins with the teacher's weights

    def __init__(self, setup: Setup, latents: list[Tensor]):
        self.student, self.teacher = setup.student, setup.teacher
        self.recipe, self.options, self.seed = setup.recipe, setup.recipe.sequence, setup.seed
        self.earlier, self.latents = list(setup.earlier), [ws[:1] for ws in latents]
        self.photos = [ws[1:] if len(ws) > 1 else None for ws in latents]
        self.setup = setup
        self.kin = setup.kin
        self.done: dict[int, Done] = {}
        self.stage: Stage = ()
        self.erasures: dict[int, Erasure] = {}  # the stage's

    # ------------------------------------------------------------------------------------------------------
    # What other modes change

    def stages(self) -> list[Stage]:
        return [(k,) for k in range(len(self.latents))]

    def number(self, k: int) -> int:
        """Person k's number in the seeds."""
        return k

    def known(self) -> list[Erasure]:
        """Whom the stage's eraser rehearses, and keeps out of its global samples."""
        return []

    def prepare(self) -> None:
        """What a stage needs before its first step; `state` holds it."""

    def total(self) -> int:
        """Steps of the stage, at most."""
        return self.recipe.optim.steps

    def finished(self, step: int) -> bool:
        return self.eraser.finished(self.erasures[self.stage[0]], step)

    def step(self, step: int) -> StepLosses:
        k = self.stage[0]
        return self.eraser.step(self.erasures[k], self.eraser.draw_at(self.erasures[k], self.seed, k, step))

    def left(self, k: int) -> dict[str, Tensor]:
        """What stays of person k beside the latents."""
        return {}

    def finish(self) -> None:
        """Gives the student the weights of the run's end."""

    def own_state(self) -> dict[str, Any]:
        """What `prepare` and the steps made: tensors and plain values."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None: ...

    # ------------------------------------------------------------------------------------------------------
    # What all have in common

    def begin(self, stage: Stage) -> None:
        """The stage's eraser and targets. The student has the weights that the stage before left."""
        self.stage = stage
        self.erasures = {}
        if self.from_original:
            self.student.backbone.synthesis.load_state_dict(self.teacher.backbone.synthesis.state_dict())
        self.eraser = self.make_eraser(self.known())
        for k in stage:
            self.erasures[k] = self.target(k)
        self.eraser.decoys = self.decoys()
        self.eraser.protected = self.protected()

    def make_eraser(self, earlier: list[Erasure]) -> Eraser:
        nets = self.setup
        eraser = Eraser(
            self.student, self.teacher, self.recipe, nets.perceptual, nets.identity, earlier, nets.share
        )
        if self.recipe.adjacency.towards == "kin":  # once for all stages: it is of the teacher
            if self.kin is None:
                self.kin = eraser.kin
            eraser.kin = self.kin
        return eraser

    def target(self, k: int) -> Erasure:
        """Where person k goes: to nobody else's surrogate. Those of runs before go where they went."""
        if k < 0:
            return _erasure(self.earlier[k])
        erasure = self.eraser.target(self.latents[k], seed=step_seed(self.seed, self.number(k), -2))
        erasure = replace(erasure, photos=self.photos[k])
        if self.recipe.target.kind == "average":  # the paper's baseline: everybody becomes the mean face
            return erasure
        return self.set_apart(k, erasure)

    def everybody(self) -> dict[int, Erasure]:
        """Whose latents are known: of runs before, of this one, of the stage as far as it has
        its targets; runs before by negative numbers, in their order."""
        numbered = enumerate(self.earlier, -len(self.earlier))
        stored = {k: _erasure(m) for k, m in numbered if m.w_u is not None and m.w_t is not None}
        return stored | {k: d.erasure for k, d in self.done.items()} | self.erasures

    def set_apart(self, k: int, erasure: Erasure, refuse: Callable[[Tensor], bool] | None = None) -> Erasure:
        """Person k's erasure, with another w_t where it lies close to a known surrogate or looks like
        somebody who was erased: a run that stored nobody left neither. The old one stays where there is
        no better, and where `refuse` says so of the new."""
        others, eraser = [e for number, e in self.everybody().items() if number != k], self.eraser
        w_t = set_apart(
            erasure.w_t, [e.w_t for e in others], eraser.space, self.recipe.target.norm,
            step_seed(self.seed, self.number(k), -4),
            resemblance_to([*(e.w_u for e in others), erasure.w_u], eraser) if others else None,
        )  # fmt: skip
        if w_t is erasure.w_t or (refuse is not None and refuse(w_t)):
            return erasure
        self.setup.warn("a person's surrogate was too close to another's or to an erased face, and moved")
        return replace(erasure, w_t=w_t)

    def decoys(self) -> list[Erasure]:
        """Random people who are erased along with the stage's."""
        count, eraser = self.recipe.robust.decoys, self.eraser
        if not count:
            return []
        seed = step_seed(self.seed, self.number(self.stage[0]), -10)
        centres = [e.w_u for e in [*self.known(), *self.erasures.values()]]
        ws = bystanders(
            eraser.space, count, centres, eraser.alpha_max, torch.Generator().manual_seed(seed),
            self.recipe.target.norm,
        )  # fmt: skip
        return [eraser.target(w, seed=step_seed(seed, i)) for i, w in enumerate(ws.split(1))]

    def protected(self) -> Tensor | None:
        """The retained people most like the stage's, nobody's twice: [n, num_ws, w_dim]."""
        if not self.options.protect:
            return None
        erased = [e.w_u for e in self.eraser.earlier] + [e.w_u for e in self.erasures.values()]
        return nearest(self.eraser, list(self.erasures.values()), erased, self.options.protect)

    def end(self) -> None:
        self.eraser.settle()
        for k in self.stage:
            self.done[k] = Done(self.erasures[k], self.left(k))

    def recall(self, done: dict[int, Done]) -> None:
        self.done.update(done)

    def state(self) -> dict[str, Any]:
        """What going on inside the stage needs, beside the number of steps done."""
        return {**self.eraser.state(), "mode": self.own_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.eraser.load_state(state)
        self.load_own_state(state["mode"])

    def kept(self) -> dict[int, Done]:
        """What the stage did, for `recall`; a mode may have moved earlier people's surrogates too."""
        return {k: self.done[k] for k in self.stage}

    def memories(self) -> list[Memory]:
        """One for each of this run's people."""
        kept = [self.done[k] for k in range(len(self.latents))]
        return [
            Memory(d.erasure.w_u, d.erasure.w_t, d.tensors, d.erasure.photos)
            if self.remembers
            else Memory(None, None, d.tensors)
            for d in kept
        ]

    # ------------------------------------------------------------------------------------------------------
    # Trained weights as one vector, in the order of `eraser.parameters`

    def weights(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.eraser.parameters])

    @torch.no_grad()
    def set_weights(self, flat: Tensor) -> None:
        for p, part in zip(self.eraser.parameters, self.parts(flat), strict=True):
            p.copy_(part)

    def gradient(self) -> Tensor:
        """Zero where a number has none."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.eraser.parameters]
        return torch.cat([g.reshape(-1) for g in grads])

    def parts(self, flat: Tensor) -> list[Tensor]:
        """A vector of all trained numbers, in the parameters' shapes."""
        sizes = [p.numel() for p in self.eraser.parameters]
        return [x.view_as(p) for x, p in zip(flat.split(sizes), self.eraser.parameters, strict=True)]


def _erasure(memory: Memory) -> Erasure:
    assert memory.w_u is not None
    assert memory.w_t is not None
    return Erasure(memory.w_u, memory.w_t, memory.photos)


def require_people(earlier: Sequence[Memory]) -> None:
    """InputError: a mode that begins from the original would bring back whom the memories do not hold."""
    missing = sum(m.w_u is None or m.w_t is None for m in earlier)
    if missing:
        raise InputError(
            f"this mode starts from the original model, and of {missing} earlier people nothing is kept "
            "to erase them again",
            remedy="use sequence.mode chain, replay or project, or erase them again from their photos",
        )
