"""One identity out of the generator: `L = L_local + l_adj L_adj + l_global L_global` (GUIDE, section 3.3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import RefusedError
from guide_hub.evaluation.views import embed_views, yaw_cameras
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.guide.kin import kin_of
from guide_hub.guide.latents import bystanders, neighbour_offset
from guide_hub.guide.losses import Aim, Away, PairLoss, Rendering, Weights, products, view, weighted
from guide_hub.guide.mining import mine
from guide_hub.guide.target import average_target, mixture_target, ufo_target, unit_of
from guide_hub.latents import LatentSpace, norm_of
from guide_hub.orbit import orbit_label
from guide_hub.recipe import Recipe

MAPS_KEPT = 4 << 30  # bytes of the teacher's maps; beyond, they are made of its pictures each time
PHOTO_REACH = (0.6, 1.3)  # of the way to a photo, and beyond
ASIDE = 0.4  # how far such a neighbour lies off the line, in another's distance
COOLED_FROM = 1 / 3  # of the rate, where a cooldown begins
CHECKED = 20  # neighbours that tell whether an erasure is finished, others in every check


@dataclass(frozen=True)
class Erasure:
    """One identity to take out: `w_u` and the `w_t` it is redirected to, [1, num_ws, w_dim] each.

    `photos` [P, num_ws, w_dim]: where the photos that found w_u lie, if that is known.
    """

    w_u: Tensor
    w_t: Tensor
    photos: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """Everything random in one step. One camera is shared by all terms."""

    c: Tensor  # [1, 25]
    z_adjacent: Tensor  # [N_a, z_dim]
    alpha: Tensor  # [N_a]
    w_global: Tensor  # [N_g, num_ws, w_dim]
    replayed: tuple[int, ...] = ()  # which earlier identities are rehearsed
    z_replay: Tensor | None = None  # [len(replayed) * neighbours, z_dim]
    kin_replay: Tensor | None = None  # [len(replayed) * neighbours, 1, w_dim] for `kin`
    turn_replay: Tensor | None = None  # [len(replayed) * neighbours] for `kin`
    alpha_replay: Tensor | None = None  # [len(replayed) * neighbours]
    seed: int = 0  # noise and ray jitter
    protected: Tensor | None = None  # [N_p, num_ws, w_dim]
    direction: Tensor | None = None  # [N_a, num_ws or 1, w_dim], where L_adj is not towards people
    turn: Tensor | None = None  # [N_a], how far `kin` turn towards people
    photo: int | None = None  # towards which photo the last neighbour lies
    photo_reach: float = 0.0  # and how far, 1: as far as it is
    decoy: int | None = None  # which one is erased along
    mined: Tensor | None = None  # [1, num_ws, w_dim]
    shown_replay: Tensor | None = None  # [len(replayed), num_ws, w_dim]: offsets where they are shown most
    for_them: bool = False  # the person is gone, and the step is for those who are rehearsed: no neighbours


REHEARSALS = ("replayed", "z_replay", "kin_replay", "turn_replay", "alpha_replay")
NEIGHBOURS = ("z_adjacent", "alpha", "direction", "turn", "photo", "photo_reach")


@dataclass
class StepLosses:
    """The step's figures: L_local, L_adj with what was mined, L_global, the replayed part, decoys, their
    weighted sum, all raw terms."""

    local: float = 0.0
    adjacency: float = 0.0
    bystanders: float = 0.0
    replay: float = 0.0
    decoy: float = 0.0
    terms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return self.local + self.adjacency + self.bystanders + self.replay + self.decoy

    def add(self, figures: Figures) -> None:
        setattr(self, figures.name, getattr(self, figures.name) + figures.total)
        for name, values in figures.terms.items():
            self.terms.setdefault(name, []).extend(values)


@dataclass(frozen=True)
class Figures:
    """One chunk of a step: its number there, its term, the weighted sum of its losses, all raw terms."""

    number: int
    name: str
    total: float
    terms: dict[str, list[float]]


@dataclass(frozen=True)
class Pairs:
    """Latents of the student beside those of the teacher, with the weights that their losses carry.

    `away`: whom the student's pictures must not look like. `once`: the latents do not come round with a pool.
    """

    name: str
    w_student: Tensor
    w_teacher: Tensor
    weights: Weights
    away: Away | None = None
    once: bool = False


@dataclass(frozen=True)
class Chunk:
    """Latents `part` of a step's pairs, which are the `nth` of their name: other terms may come and go."""

    number: int
    pairs: Pairs
    nth: int
    part: slice

    @property
    def size(self) -> int:
        return int(self.part.stop - self.part.start)

    @property
    def w_student(self) -> Tensor:
        return self.pairs.w_student[self.part]

    @property
    def w_teacher(self) -> Tensor:
        return self.pairs.w_teacher[self.part]

    def place(self, draws: Draws) -> tuple[int, str, int, int]:
        """What its seed hangs on, and what a pool's draws are known by."""
        return draws.seed, self.pairs.name, self.nth, self.part.start


def step_seed(*parts: int | str) -> int:
    """A step's seed from the run's seed and the step's place, so that resuming needs no generator state."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


Share = Callable[["Eraser", list[Pairs], Draws], list[Figures]]


def alone(eraser: Eraser, pairs: list[Pairs], draws: Draws) -> list[Figures]:
    """All chunks of a step in this process. Another `Share` has others do some (`guide_hub.processes`)."""
    return eraser.backward(pairs, draws)


def _nothing() -> None: ...


class Eraser:
    """Fine-tunes `student.backbone.synthesis` against the frozen `teacher`, the model as it was pulled.

    `earlier` are the identities already folded into the student. The teacher still knows them, so their
    local terms, and those of `replay.neighbours` neighbours, are replayed and their neighbourhoods leave the
    global samples. `decoys` are erased along. `share` finds the gradients of a step. `protected`
    [n, num_ws, w_dim], or some of them, join every step's global samples. `after_backward` and `after_step`
    are called once a step, with the gradients found and with the weights moved.
    """

    def __init__(
        self,
        student: EG3D,
        teacher: EG3D,
        recipe: Recipe,
        perceptual: PerceptualDistance,
        identity: IdentityEncoder,
        earlier: list[Erasure] | None = None,
        share: Share = alone,
    ):
        self.share = share
        self.decoys: list[Erasure] = []
        self.mined: list[Tensor] = []  # the latest, where an attacker found the person
        self.taken = 0  # steps
        self.averages: list[Tensor] = []  # of the parameters over the steps, where the recipe has them so
        self.averaged_over = 0
        self.cooled: int | None = None  # steps of the cooldown taken; None before it
        self.shown_at: tuple[Tensor, Tensor] | None = None  # w_u; the offset that the check saw most of it at
        self.protected: Tensor | None = None
        self.after_backward: Callable[[], None] = _nothing
        self.after_step: Callable[[], None] = _nothing
        self.student = student
        self.teacher = teacher.eval().requires_grad_(False)
        self.recipe = recipe
        self.earlier = earlier or []
        self.loss = PairLoss(perceptual, identity, recipe.speed)
        self.space = LatentSpace(teacher)
        student.eval().requires_grad_(False)
        self.parameters = list(student.backbone.synthesis.requires_grad_(True).parameters())
        optim = recipe.optim
        self.optimizer = torch.optim.Adam(self.parameters, lr=optim.lr, betas=optim.betas, eps=optim.eps)
        self.unit = unit_of(recipe.target, self.space)
        self.local = Weights(recipe.local.l2, recipe.local.perceptual, recipe.local.identity)
        self._shown: tuple[Tensor, Tensor] | None = None  # of the last person asked for
        self.alpha_max = recipe.adjacency.alpha_max * self.unit  # of the ball that is the person's
        self.reach = (recipe.adjacency.reach or recipe.adjacency.alpha_max) * self.unit  # of neighbours
        self.aims: dict[tuple[int, str, int, int], Aim] = {}  # of draws that come round again

    def target(self, w_u: Tensor, seed: int = 0) -> Erasure:
        """The erasure of `w_u` [1, num_ws, w_dim] by the recipe's kind of target."""
        target, w_avg = self.recipe.target, self.space.w_avg
        if target.kind == "average":
            w_t = average_target(w_u, w_avg)
        elif target.kind == "mixture":
            rng = torch.Generator().manual_seed(step_seed(seed, -1))
            w_t = mixture_target(self.space, target.d * self.unit, target.norm, rng)
        elif target.kind == "random":
            w_t = self.space.random(1, torch.Generator().manual_seed(step_seed(seed, -1)))
        else:
            w_t = ufo_target(w_u, w_avg, target.d * self.unit, target.norm)
        return Erasure(w_u, w_t)

    def draw(self, erasure: Erasure, seed: int) -> Draws:
        """The step's camera, neighbours, bystanders and rehearsals, all from `seed`."""
        recipe, rng = self.recipe, torch.Generator().manual_seed(seed)
        adjacency, wide = recipe.adjacency, recipe.bystanders
        yaw = (2 * float(torch.rand((), generator=rng)) - 1) * recipe.camera.yaw_range
        centres = [e.w_u for e in [*self.earlier, *self.decoys]]
        centres += [erasure.w_u] if wide.exclude_adjacency_ball else []
        known = min(recipe.replay.per_step, len(self.earlier)) if recipe.replay.weight else 0
        again = known * recipe.replay.neighbours
        z_dim = self.teacher.config.z_dim
        draws = Draws(
            c=orbit_label(self.teacher.config, recipe.camera, yaw).to(self.space.device),
            z_adjacent=torch.randn(adjacency.samples, z_dim, generator=rng),
            alpha=torch.rand(adjacency.samples, generator=rng) * self.reach,
            w_global=bystanders(self.space, wide.samples, centres, self.alpha_max, rng, recipe.target.norm),
            replayed=tuple(torch.randperm(len(self.earlier), generator=rng)[:known].tolist()),
            z_replay=torch.randn(again, z_dim, generator=rng),
            alpha_replay=torch.rand(again, generator=rng) * self.reach,
            seed=step_seed(seed, 1),
            protected=self.protected,
        )
        each = recipe.sequence.protect_per_step
        if self.protected is not None and 0 < each < len(self.protected):
            some = torch.randperm(len(self.protected), generator=rng)[:each]
            draws = replace(draws, protected=self.protected[some.to(self.protected.device)])
        if adjacency.towards != "people":
            draws = replace(draws, direction=self._directions(adjacency.samples, rng))
        if adjacency.towards == "kin":
            draws = replace(
                draws,
                turn=torch.rand(adjacency.samples, generator=rng),
                kin_replay=self._directions(again, rng),
                turn_replay=torch.rand(again, generator=rng),
            )
        if (photos := self._photos(erasure)) is not None:
            least, most = PHOTO_REACH
            draws = replace(
                draws,
                photo=int(torch.randint(len(photos), (), generator=rng)),
                photo_reach=least + (most - least) * float(torch.rand((), generator=rng)),
            )
        if self.decoys:
            draws = replace(draws, decoy=int(torch.randint(len(self.decoys), (), generator=rng)))
        return draws

    def pairs(self, erasure: Erasure, draws: Draws) -> list[Pairs]:
        """The student's and the teacher's latents of every term of the step."""
        recipe, local = self.recipe, self.local
        own, away, new = local, None, recipe.speed.new_neighbours
        if recipe.robust.repel:
            own = replace(local, repulsion=recipe.robust.repel)
            away = Away(self.shown(erasure), recipe.robust.repel_above)
        pairs = [Pairs("local", erasure.w_u, erasure.w_t, own, away)]
        near = bool(len(draws.alpha)) and not draws.for_them
        if recipe.adjacency.weight and near:
            share = 1.0 if recipe.adjacency.reduce == "sum" else 1.0 / len(draws.alpha)
            weights = own.times(recipe.adjacency.weight * share)
            offset = self._towards_photo(erasure, self._offset(erasure.w_u, draws), draws)
            if new and self.shown_at is not None and torch.equal(self.shown_at[0], erasure.w_u):
                offset = torch.cat([self.shown_at[1], offset[1:]])
            w_u, w_t = erasure.w_u + offset, erasure.w_t + offset
            pairs.append(Pairs("adjacency", w_u, w_t, weights, away, once=new))
        shown = [w for w in (draws.w_global, draws.protected) if w is not None and len(w)]
        if recipe.bystanders.weight and shown:
            w_global = torch.cat(shown)
            share = 1.0 if recipe.bystanders.reduce == "sum" else 1.0 / len(w_global)
            weights = Weights(0.0, 1.0, recipe.bystanders.identity).times(recipe.bystanders.weight * share)
            pairs.append(Pairs("bystanders", w_global, w_global, weights))
        if draws.replayed:
            known = [self.earlier[i] for i in draws.replayed]
            w_u, w_t = torch.cat([e.w_u for e in known]), torch.cat([e.w_t for e in known])
            weight = max(recipe.replay.weight, 1.0) if draws.for_them else recipe.replay.weight
            weights = local.times(weight / len(known))
            pairs.append(Pairs("replay", w_u, w_t, weights, once=True))
            if draws.z_replay is not None and draws.alpha_replay is not None and len(draws.z_replay):
                each = len(draws.z_replay) // len(known)
                w_u, w_t = w_u.repeat_interleave(each, 0), w_t.repeat_interleave(each, 0)
                w_r = self._toward(w_u, draws.z_replay, draws.kin_replay, draws.turn_replay)
                offset = neighbour_offset(w_u, w_r, draws.alpha_replay, recipe.target.norm)
                if draws.shown_replay is not None:
                    offset[::each] = draws.shown_replay.to(offset)
                weights = weights.times(recipe.adjacency.weight)
                pairs.append(Pairs("replay", w_u + offset, w_t + offset, weights, once=True))
        if draws.decoy is not None and near:
            decoy = self.decoys[draws.decoy]
            around = self._offset(decoy.w_u, draws)
            w_u, w_t = (torch.cat([w, w + around]) for w in (decoy.w_u, decoy.w_t))
            pairs.append(Pairs("decoy", w_u, w_t, local, once=new))
        if draws.mined is not None:
            w_t = erasure.w_t + draws.mined - erasure.w_u
            weights = own.times(recipe.adjacency.weight)
            pairs.append(Pairs("adjacency", draws.mined, w_t, weights, away, once=True))
        return pairs

    def _offset(self, w_u: Tensor, draws: Draws) -> Tensor:
        """From w_u to the step's neighbours: [N_a, num_ws, w_dim]."""
        w_r = self._toward(w_u, draws.z_adjacent, draws.direction, draws.turn)
        return neighbour_offset(w_u, w_r, draws.alpha, self.recipe.target.norm)

    def _photos(self, erasure: Erasure) -> Tensor | None:
        """Those that the recipe has neighbours towards."""
        wanted = self.recipe.adjacency.photos and erasure.photos is not None and len(erasure.photos)
        return erasure.photos if wanted else None

    def _towards_photo(self, erasure: Erasure, offset: Tensor, draws: Draws) -> Tensor:
        """The step's offsets, the last of which goes to a photo instead."""
        photos = self._photos(erasure)
        if photos is None or draws.photo is None:
            return offset
        way = photos[draws.photo : draws.photo + 1] - erasure.w_u
        return torch.cat([offset[:-1], draws.photo_reach * way + ASIDE * offset[-1:]])

    def _toward(self, w_u: Tensor, z: Tensor, direction: Tensor | None, turn: Tensor | None) -> Tensor:
        """What the neighbours of w_u lie towards: the people of z [N, z_dim], or `direction` [N, ...]; with
        `turn` [N] in (0, 1) both, the direction and so much of the way to people: [N, num_ws, w_dim]."""
        if direction is None:
            return self.space.map(z)
        if turn is None:
            return w_u + direction.to(w_u)
        ours, theirs = direction.to(w_u).expand(-1, w_u.shape[1], -1), self.space.map(z) - w_u
        ours, theirs = (x / norm_of(x, self.recipe.target.norm) for x in (ours, theirs))
        return w_u + ours + turn.to(w_u).view(-1, 1, 1) * theirs

    def _directions(self, n: int, rng: torch.Generator) -> Tensor:
        """As the recipe has them, but for `people`: [n, 1 or num_ws, w_dim]."""
        rows = self.teacher.num_ws if self.recipe.adjacency.towards == "wplus" else 1
        drawn = torch.randn(n, rows, self.teacher.config.w_dim, generator=rng)
        return drawn.to(self.kin) @ self.kin.T if self.recipe.adjacency.towards == "kin" else drawn

    @cached_property
    def kin(self) -> Tensor:
        """Directions along which the loss's recogniser takes the teacher's people for the same."""
        return kin_of(self.teacher, self.loss.identity, self._three()[1:2])

    def around(self, erasure: Erasure, n: int, seed: int) -> Tensor:
        """w_u, `n` neighbours that no step draws, half to all of the reach away, and the photos' places."""
        w_u, photos = erasure.w_u, self._photos(erasure)
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.teacher.config.z_dim, generator=rng)
        kin = self.recipe.adjacency.towards == "kin"
        direction, turn = (self._directions(n, rng), torch.rand(n, generator=rng)) if kin else (None, None)
        w_r = self._toward(w_u, z, direction, turn)
        alpha = torch.linspace(0.5, 1, n) * self.reach
        ws = [w_u, w_u + neighbour_offset(w_u, w_r, alpha, self.recipe.target.norm)]
        return torch.cat(ws if photos is None else [*ws, photos])

    @cached_property
    def median(self) -> float:
        """The median ||w - w_avg|| of the teacher's W, over the whole tensor."""
        return self.space.median_offset()

    @torch.no_grad()
    def shown(self, erasure: Erasure) -> Tensor:
        """The person as the teacher shows them from three yaws, to the loss's recogniser: [3, E]."""
        if self._shown is None or self._shown[0] is not erasure.w_u:
            person = self._seen(self.teacher, erasure.w_u)[0]
            self._shown = erasure.w_u, person
        return self._shown[1]

    def faces(self, model: EG3D, ws: Tensor) -> Tensor:
        """By the loss's recogniser from the front, in pictures as the losses have them: [N, E]."""
        return self._seen(model, ws, yaw_cameras(model, self.recipe.camera, 1))[:, 0]

    def _seen(self, model: EG3D, ws: Tensor, c: Tensor | None = None) -> Tensor:
        """The same from cameras c [V, 25], by default of three yaws: [N, V, E]."""
        c = self._three() if c is None else c
        return embed_views(model, ws, c, self.loss.identity, rays=self.recipe.speed.rays)

    def _three(self) -> Tensor:
        yaws = self.recipe.camera.yaw_range * torch.tensor([-1.0, 0.0, 1.0])
        return orbit_label(self.teacher.config, self.recipe.camera, yaws).to(self.space.device)

    def step(self, erasure: Erasure, draws: Draws) -> StepLosses:
        """One Adam step. RefusedError: the loss is not finite."""
        robust = self.recipe.robust
        if robust.mine_every:
            if self.taken % robust.mine_every == 0:
                found = mine(self, erasure, robust.mine_steps, step_seed(draws.seed, -2, self.taken))
                self.mined = [*self.mined, found][-robust.mined :]
            draws = replace(draws, mined=self.mined[self.taken % len(self.mined)])
        self.taken += 1
        return self.descend(self.pairs(erasure, draws), draws)

    def descend(self, pairs: list[Pairs], draws: Draws) -> StepLosses:
        """One Adam step on the losses of `pairs`, under the camera and the seed of `draws`."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = StepLosses()
        for figures in self.share(self, pairs, draws):
            losses.add(figures)
        if not math.isfinite(losses.total):
            raise RefusedError("the loss is no longer finite", remedy="lower optim.lr in the recipe")
        self.after_backward()
        self._cool()
        self.optimizer.step()
        self.after_step()
        self._average()
        return losses

    def _cool(self) -> None:
        """The cooldown's rates fall by half a cosine."""
        if self.cooled is not None:
            left = (1 + math.cos(math.pi * self.cooled / self.recipe.optim.cooldown)) / 2
            self.optimizer.param_groups[0]["lr"] = self.recipe.optim.lr * COOLED_FROM * left
            self.cooled += 1

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.recipe.optim.average
        if not decay:
            return
        self.averages = self.averages or [torch.zeros_like(p) for p in self.parameters]
        self.averaged_over += 1
        share = max(1 - decay, 1 / self.averaged_over)  # the first steps count alike
        for average, p in zip(self.averages, self.parameters, strict=True):
            average.lerp_(p, share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The student with the weights that the erasure would have if it ended now."""
        own = [p.detach().clone() for p in self.parameters] if self.averages else []
        self.settle()
        try:
            yield
        finally:
            self._set(own)

    def settle(self) -> None:
        """Ends an erasure: the student takes the average over its steps where the recipe has it so."""
        self._set(self.averages)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for p, value in zip(self.parameters, values, strict=bool(values)):
            p.copy_(value)

    def backward(self, pairs: list[Pairs], draws: Draws, first: int = 0, of: int = 1) -> list[Figures]:
        """Gradients of a step's chunks `first`, `first + of`, ...: of all by default. Backward runs for each.

        A chunk is `micro_batch` latents of a term. With const noise and deterministic rays that changes
        nothing but the memory, so terms are split further where there are others to share with; otherwise
        it changes the noise's draws too, since each chunk has a seed of its own. `speed.whole_step` has all
        chunks go together.
        """
        recipe, chunks, number = self.recipe, list[Chunk](), 0
        for term, pair in enumerate(pairs):
            n, nth = len(pair.w_student), sum(other.name == pair.name for other in pairs[:term])
            size = recipe.optim.micro_batch or n
            if self.noiseless:
                size = min(size, -(-n // of))
            for start in range(0, n, size):
                if number % of == first:
                    chunks.append(Chunk(number, pair, nth, slice(start, min(start + size, n))))
                number += 1
        with products(recipe.speed):
            batches = [chunks] if self.whole and chunks else [[chunk] for chunk in chunks]
            return [figures for batch in batches for figures in self._batch(batch, draws)]

    @property
    def whole(self) -> bool:
        """Whether all latents of a step go through the networks at once. Of draws that a pool keeps, the
        teacher's batch is not the student's, so that noise which both share must not be drawn; on a CPU none
        may, for how many processes there are changes nothing there but rounding."""
        apart = self.on_cuda and not self.recipe.shared_noise
        return self.recipe.speed.whole_step and (self.noiseless or apart)

    @property
    def noiseless(self) -> bool:
        """Whether a latent's picture is the same in whatever batch, but for rounding."""
        return self.recipe.noise == "const" and self.recipe.deterministic_rays

    @property
    def on_cuda(self) -> bool:
        return self.space.device.type == "cuda"

    def _batch(self, chunks: list[Chunk], draws: Draws) -> list[Figures]:
        """Gradients of chunks that go through the networks together, with the first one's seed."""
        how = self._rendering(chunks[0], draws)
        aims = self._aims(chunks, draws)
        shown = view(self.student, torch.cat([c.w_student for c in chunks]), draws.c, how, side=0)
        parts = [(c.size, aim, c.pairs.away) for c, aim in zip(chunks, aims, strict=True)]
        terms = self.loss.batch(shown, parts)
        totals = [weighted(t, c.pairs.weights).sum() for c, t in zip(chunks, terms, strict=True)]
        torch.stack(totals).sum().backward()
        return [
            Figures(
                chunk.number,
                chunk.pairs.name,
                float(total.detach()),
                {f"{chunk.pairs.name}.{name}": value.tolist() for name, value in found.items()},
            )
            for chunk, found, total in zip(chunks, terms, totals, strict=True)
        ]

    def _rendering(self, chunk: Chunk, draws: Draws) -> Rendering:
        recipe, seed = self.recipe, step_seed(*chunk.place(draws))
        return Rendering(
            recipe.noise, recipe.deterministic_rays, recipe.shared_noise, seed, recipe.speed.rays
        )

    def _aims(self, chunks: list[Chunk], draws: Draws) -> list[Aim]:
        """The teacher's side of a batch; of a pool's draws, which come round, it is made once."""
        places = [None if c.pairs.once or not self.recipe.speed.pool else c.place(draws) for c in chunks]
        aims = [self.aims.get(place) if place is not None else None for place in places]
        missing = [i for i, aim in enumerate(aims) if aim is None]
        # On a CPU one by one: a resumed run lacks others, and the bytes hang on who is in a batch.
        for new in [missing] if self.on_cuda and missing else [[i] for i in missing]:
            how = self._rendering(chunks[new[0]], draws)
            w = torch.cat([chunks[i].w_teacher for i in new])
            with torch.no_grad():
                shown = view(self.teacher, w, draws.c, how, side=1)
            made = self.loss.aims(shown, [(chunks[i].size, chunks[i].pairs.weights) for i in new])
            for i, aim in zip(new, made, strict=True):
                aims[i] = aim
                if (place := places[i]) is not None:
                    own = aim.alone() if len(new) > 1 else aim
                    kept = sum(other.maps_size for other in self.aims.values()) + own.maps_size
                    self.aims[place] = own if kept <= MAPS_KEPT else replace(own, maps=None)
        return [aim for aim in aims if aim is not None]

    def draw_at(self, erasure: Erasure, seed: int, k: int, step: int) -> Draws:
        """The draws of identity k's step. Of those of a pool, which come round again, rehearsals are new in
        every round, and neighbours where the recipe has them so."""
        speed, new = self.recipe.speed, self.draw(erasure, step_seed(seed, k, step))
        if not speed.pool or step < speed.pool:
            return new
        fields = REHEARSALS + NEIGHBOURS if speed.new_neighbours else REHEARSALS
        pooled = self.draw(erasure, step_seed(seed, k, step % speed.pool))
        return replace(pooled, **{name: getattr(new, name) for name in fields})

    def finished(self, erasure: Erasure, step: int) -> bool:
        """Whether the steps before `step` are enough, the cooldown's with them: by that number, the weights
        and how far the cooldown is, for resuming."""
        return self.after_cooldown(lambda: step >= self.recipe.optim.iterations or self.enough(erasure, step))

    def after_cooldown(self, done: Callable[[], bool]) -> bool:
        """Whether an erasure has had its cooldown, which begins where it is `done`: that is asked no more."""
        if not self.recipe.optim.cooldown:
            return done()
        if self.cooled is None and done():
            self.cooled = 0
        return self.cooled is not None and self.cooled >= self.recipe.optim.cooldown

    def enough(self, erasure: Erasure, step: int) -> bool:
        """Whether the recipe has it looked at step `step`, and the person is seen no more. The place where
        they were seen most is trained next (`speed.new_neighbours`)."""
        speed = self.recipe.speed
        if not speed.check_every or not step or step % speed.check_every:
            return False
        likeness, offset = self.look(erasure, self.shown(erasure)[1:2], CHECKED, step_seed(-3, step))
        self.shown_at = erasure.w_u, offset
        return self.counted(likeness) <= speed.enough

    def counted(self, likeness: Tensor) -> float:
        """The highest that a look at CHECKED neighbours saw, with `speed.spared` of these left out."""
        spared = round(self.recipe.speed.spared * CHECKED)
        neighbours = likeness[1 : 1 + CHECKED].sort(descending=True).values[spared:]
        return float(torch.cat([likeness[:1], neighbours, likeness[1 + CHECKED :]]).max())

    @torch.no_grad()
    def look(self, erasure: Erasure, faces: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """The highest cosine, to the loss's recogniser, of `faces` [F, E] to the student's picture from the
        front at w_u, at each of `n` neighbours that no step draws and at the P photos' places: [1 + n + P];
        and the offset of the place beside w_u that has most.
        """
        ws = self.around(erasure, n, seed)
        with self.averaged():
            cosine = self.faces(self.student, ws) @ faces.T
        likeness = cosine.max(1).values.clamp(max=1)  # rounding goes beyond, and would never be `enough: 1`
        worst = int(likeness[1:].argmax()) + 1
        return likeness, ws[worst : worst + 1] - erasure.w_u

    def erase(self, w_u: Tensor, seed: int) -> Erasure:
        """All steps at once, with the draws of a sequence's first identity under this seed."""
        erasure, step = self.target(w_u, seed=step_seed(seed, 0, -2)), 0
        while not self.finished(erasure, step):
            self.step(erasure, self.draw_at(erasure, seed, 0, step))
            step += 1
        self.settle()
        return erasure

    def state(self) -> dict[str, Any]:
        """What resuming needs, beside the number of steps done: the trained weights and Adam's moments."""
        return {
            "synthesis": self.student.backbone.synthesis.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mined": self.mined,
            "taken": self.taken,
            "averages": self.averages,
            "averaged_over": self.averaged_over,
            "cooled": self.cooled,
            "shown_at": self.shown_at,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.student.backbone.synthesis.load_state_dict(state["synthesis"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mined = [w.to(self.space.device) for w in state.get("mined", [])]
        self.taken = state.get("taken", 0)
        self.averages = [a.to(self.space.device) for a in state.get("averages", [])]
        self.averaged_over = state.get("averaged_over", 0)
        self.cooled = state.get("cooled")
        shown_at = state.get("shown_at")
        self.shown_at = shown_at and (shown_at[0].to(self.space.device), shown_at[1].to(self.space.device))
