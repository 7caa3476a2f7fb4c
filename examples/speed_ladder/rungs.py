"""The rungs: each takes some work out of an erasure of the recipe `heads`. What paid is an option of recipes
(`speed:`); what did not lives here alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from guide_hub.eg3d import EG3D
from guide_hub.guide import Draws, Eraser, Erasure
from guide_hub.guide import eraser as erasing
from guide_hub.guide.eraser import StepLosses
from guide_hub.guide.losses import Rendering, View
from guide_hub.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Rung:
    """A recipe's options, by section, over those of `heads`, and what no recipe has."""

    name: str
    text: str
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: bool = False  # losses on the rendered picture, before super-resolution
    train: str = "all"  # or affine: the style layers alone; or rank N: of the convolutions, a delta of rank N
    planes_first: int = 0  # so many first steps on tri-planes alone, nothing rendered
    halving: int = 0  # the step size is halved every so many steps
    settle: int = 0  # so many more steps when it is enough, of a size that falls to 0
    remapped: bool = False  # begins with the closed form that shows w_t at w_u

    @property
    def recipe(self) -> Recipe:
        recipe = load_recipe("heads")
        recipe = dataclasses.replace(recipe, speed=dataclasses.replace(recipe.speed, whole_step=True))
        for section, values in self.options.items():
            recipe = dataclasses.replace(
                recipe, **{section: dataclasses.replace(getattr(recipe, section), **values)}
            )
        return recipe


STOP = {"check_every": 5, "enough": 0.1, "whole_step": True}
POOL = {"pool": 20, **STOP}
RAYS = {"rays": 32, **POOL}
KEEP = {"speed": RAYS, "bystanders": {"identity": 0.2}}
LARGE = {**KEEP, "optim": {"lr": 3e-3}}
ENOUGH = {**LARGE, "speed": {**RAYS, "enough": 0.3}}
KIN = {**ENOUGH, "adjacency": {"towards": "kin", "reach": 1.35}}


POOL_10 = {**KIN, "speed": {**ENOUGH["speed"], "pool": 10}}
AVERAGE = {**POOL_10, "optim": {"lr": 3e-3, "average": 0.8}}
PROTECT = {
    **AVERAGE,
    "sequence": {"protect": 10, "protect_per_step": 2},
    "bystanders": {"identity": 0.2, "samples": 4},
}


def sections(recipe: str, *more: str) -> dict[str, dict[str, Any]]:
    parts = ("optim", "adjacency", "bystanders", "sequence", "speed", *more)
    of = load_recipe(recipe)
    return {part: dataclasses.asdict(getattr(of, part)) for part in parts}


HEADS_FAST = sections("heads-fast")


def fast(**changes: Any) -> dict[str, dict[str, Any]]:
    """heads-fast, with some of its `speed` changed."""
    return {**HEADS_FAST, "speed": {**HEADS_FAST["speed"], **changes}}


RUNGS = [
    Rung("heads", "all of 60 steps, as GUIDE's loop has them"),
    Rung("stop", "ends when it is enough", {"speed": STOP}),
    Rung("pool", "+ the draws come round after 20 steps", {"speed": POOL}),
    Rung("rays-32", "+ half the rays a side", {"speed": RAYS}),
    Rung("keep", "+ L_global sees identity", KEEP),
    Rung("large", "+ steps of three times the size", LARGE),
    Rung("enough", "+ enough is a cosine of 0.3", ENOUGH),
    Rung("kin", "+ neighbours are the person's other pictures", KIN),
    Rung("pool-10", "+ the draws come round after 10 steps", POOL_10),
    Rung("average", "+ the weights are an average over the steps", AVERAGE),
    Rung("protect", "+ a third of the bystanders are those most like the person", PROTECT),
    Rung(
        "new-neighbours",
        "+ neighbours new in every step, one where the check saw the person, and more identity kept",
        {**fast(), "adjacency": KIN["adjacency"], "optim": AVERAGE["optim"]},
    ),
    Rung("heads-fast", "+ one towards a photo that found the person; up to 120 steps", fast()),
    Rung(
        "heads-few",
        "heads-fast, draws new in every step, more weight on the person, a longer average, "
        "two neighbours of 20 spared",
        sections("heads-few", "local", "replay"),
    ),
    Rung(
        "heads-many",
        "heads-few, eight bystanders beside the two like the person, in the end 20 steps at a falling rate",
        sections("heads-many", "local", "replay"),
    ),
    Rung("rays-16", "heads-fast, a quarter of the rays a side", fast(rays=16)),
    Rung(
        "lean",
        "heads-fast, four bystanders a step in place of six",
        {**fast(), "bystanders": {**fast()["bystanders"], "samples": 2, "weight": 12.0}},
    ),
    Rung("halving", "heads-fast, steps halved every 10", fast(), halving=10),
    Rung("settle", "heads-fast, 10 more steps, ever smaller", fast(), settle=10),
    Rung("raw", "heads-fast, losses before super-resolution", fast(rays=None), raw=True),
    Rung("affine", "heads-fast, the style layers alone", fast(), train="affine"),
    Rung("rank-4", "heads-fast, convolutions by a delta of rank 4", fast(), train="rank 4"),
    Rung("planes-first", "heads-fast, after 10 steps on tri-planes alone", fast(), planes_first=10),
    Rung("closed-form", "heads-fast, begins with the closed form", fast(), remapped=True),
]


def raw_view(model: EG3D, ws: Tensor, c: Tensor, how: Rendering, side: int) -> View:
    """`guide.losses.view`, but that the picture is what the rays make. The noise is const here."""
    planes = model.planes(ws, noise_mode=how.noise_mode)
    out = model.render(
        planes, ws, c.expand(len(ws), -1), deterministic=how.deterministic,
        neural_rendering_resolution=how.rays, superresolve=False,
    )  # fmt: skip
    return View(planes, out["image_raw"])


class LowRank(nn.Module):
    """`weight + B A` of a convolution's weight [O, I, k, k], B [O, r] at 0 and A [r, I k k] random."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, columns, generator=torch.Generator().manual_seed(0)))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


class LadderEraser(Eraser):
    """An eraser that climbs one rung."""

    def __init__(self, rung: Rung, student: EG3D, *others: Any) -> None:
        super().__init__(student, *others)
        self.rung, self.done = rung, 0
        self.convs = [m for m in student.backbone.synthesis.modules() if hasattr(m, "noise_strength")]
        if rung.train != "all":
            self._train(rung.train)

    def _train(self, what: str) -> None:
        synthesis = self.student.backbone.synthesis.requires_grad_(False)
        if what.startswith("rank "):
            for conv in self.convs:
                parametrize.register_parametrization(conv, "weight", LowRank(conv.weight, int(what[5:])))
        for name, parameter in synthesis.named_parameters():
            parameter.requires_grad_(".affine." in name or name.endswith((".a", ".b")))
        self.parameters = [p for p in synthesis.parameters() if p.requires_grad]
        optim = self.recipe.optim
        self.optimizer = torch.optim.Adam(self.parameters, lr=optim.lr, betas=optim.betas, eps=optim.eps)

    def run(self, places: Tensor, seed: int) -> int:
        """Erases the latent places[:1], with the photos' behind it; how many steps it took."""
        erasure = dataclasses.replace(self.target(places[:1]), photos=places[1:] if len(places) > 1 else None)
        if self.rung.remapped:
            self._remap(erasure)
        while not self.finished(erasure, self.done):
            self.step(erasure, self.draw_at(erasure, seed, 0, self.done))
            self.done += 1
        for rest in range(self.rung.settle, 0, -1):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.optim.lr * rest / (self.rung.settle + 1)
            super().step(erasure, self.draw_at(erasure, seed, 0, self.done))
            self.done += 1
        self.settle()
        if self.rung.train.startswith("rank "):
            for conv in self.convs:
                parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)
        return self.done

    def step(self, erasure: Erasure, draws: Draws) -> StepLosses:
        if self.done < self.rung.planes_first:
            return self._step_on_planes(erasure, draws)
        if self.rung.halving:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.optim.lr * 0.5 ** (self.done // self.rung.halving)
        return super().step(erasure, draws)

    def _step_on_planes(self, erasure: Erasure, draws: Draws) -> StepLosses:
        self.optimizer.zero_grad(set_to_none=True)
        losses = StepLosses()
        for pairs in self.pairs(erasure, draws):
            with torch.no_grad():
                aim = self.teacher.planes(pairs.w_teacher)
            loss = (self.student.planes(pairs.w_student) - aim).square().mean()
            loss.backward()
            losses.local += float(loss.detach())
        self.optimizer.step()
        return losses

    @torch.no_grad()
    def _remap(self, erasure: Erasure, ridge: float = 1e-2) -> None:
        """Every style layer's A becomes A + A (w_t - w_u) k', where k = C^-1 w_id / (w_id' C^-1 w_id) and C
        is the covariance of W: w_u gets the styles of w_t, and others change as little as can be."""
        w_avg = self.space.w_avg[0, 0]
        ws = self.space.random(4000, torch.Generator().manual_seed(1))[:, 0] - w_avg
        cov = ws.T @ ws / len(ws)
        cov += ridge * cov.diagonal().mean() * torch.eye(len(cov), device=cov.device)
        w_id, move = erasure.w_u[0, 0] - w_avg, erasure.w_t[0, 0] - erasure.w_u[0, 0]
        key = torch.linalg.solve(cov, w_id)
        key = key / (key @ w_id)
        for layer in self.student.backbone.synthesis.modules():
            affine = getattr(layer, "affine", None)
            if affine is not None:
                shift = affine.weight @ move
                affine.weight += torch.outer(shift, key)
                affine.bias -= affine.gain * shift * (key @ w_avg)  # styles are of w, not of w - w_avg


@contextmanager
def climbing(rung: Rung) -> Iterator[Callable[..., LadderEraser]]:
    """Makes the rung's erasers."""
    before = erasing.view
    if rung.raw:
        erasing.view = raw_view
    try:
        yield lambda *of: LadderEraser(rung, *of)
    finally:
        erasing.view = before
