"""Difference beacon: where the two models differ most is where the person was, and the source shows them.

Nobody needs a photo for it: the search only compares the public base with the erased model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.reinversion import VIEWS, control_people
from guide_hub.attacks.sight import front, look, look_round, person, pictures, rough, round_cameras, short
from guide_hub.eg3d import EG3D
from guide_hub.inversion.projector import chunk_of
from guide_hub.latents import LatentSpace, norm_of

LR = 0.1  # length of a first step, in medians
FARTHEST = 1.5  # medians from w_avg that the search stays within
NOTHING = 1e-3  # two models that differ no more than that are one


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """`argmax_w 1 - cos(f(G_s(w)), f(G_u(w)))` from random starts, f the loss's recogniser; the judge looks.

    It looks at each find's mirror image through w_avg too: what moves the person often moves their opposite
    as far. The beacons are the same for everybody who was erased in the same run.
    """
    key = ("beacon", budget.beacon_restarts, budget.beacon_steps, case.seed)
    if key not in case.memo:
        case.memo[key] = search(case, budget, done)
    ws, disparity = case.memo[key]
    judge, real = case.networks.identity_judge, person(case)
    both = torch.stack([ws, 2 * LatentSpace(case.source).w_avg - ws], 1)  # [R, 2, num_ws, w_dim]
    cameras, rays = round_cameras(case, VIEWS), budget.rays_of(case.source)
    seen = look_round(case.source, both.flatten(0, 1), cameras, judge, rays)
    seen = seen.view(len(ws), 2, VIEWS, -1)
    cosine = (seen @ real).mean(2).amax(1)  # [R]
    others = torch.cat(control_people(case, budget.decoys))
    theirs = look(case.source, others, front(case), judge, rays)
    decoys = (seen @ theirs.T).mean(2).flatten(0, 1).amax(0)  # [decoys]
    passed = None
    rule = "the two models show the same people everywhere: there is nothing to find"
    if float(disparity[0]) > NOTHING:
        passed = bool(cosine.max() < case.threshold or cosine.max() <= decoys.max())
        rule = (
            "of the places where the two models differ most, and those opposite, none shows the person in "
            "the source, or they show people who were not erased as well"
        )
    top = both[0]
    lines: dict[str, list[float | None]] = {"the source there": [short(x) for x in cosine.tolist()]}
    return Finding(
        "beacon",
        "Where the two models differ most",
        passed,
        rule,
        {
            "searches": len(ws),
            "steps": budget.beacon_steps,
            "disparity_top": short(disparity[0]),
            "cosine_top": short(cosine[0]),
            "cosine_best": short(cosine.max()),
            "cosine_decoys": short(decoys.max()),
            "hits": int((cosine >= case.threshold).sum()),
        },
        [
            Curve(
                "Likeness of what each search found, the largest difference first", "search", "cosine",
                [float(k + 1) for k in range(len(ws))], lines,
                {"threshold": case.threshold},
            )
        ],
        {
            "where they differ most, and opposite to it: the source, the erased model": torch.cat(
                [pictures(model, top, front(case)) for model in (case.source, case.erased)]
            )
        },
    )  # fmt: skip


def search(case: Case, budget: Budget, done: Callable[[float], None]) -> tuple[Tensor, Tensor]:
    """Latents ws [R, num_ws, w_dim] and the two models' disparity there [R], the largest first."""
    space, c = LatentSpace(case.source), front(case)
    scale, rows = space.median_offset(), case.source.num_ws
    rng = torch.Generator().manual_seed(case.seed)
    centre = space.w_avg[:, :1]
    w = space.random(budget.beacon_restarts, rng)[:, :1].clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=LR * scale / math.sqrt(rows * w.shape[2]), betas=(0.9, 0.99))
    chunk = chunk_of(case.source.config.img_resolution)
    for step in range(budget.beacon_steps):
        optimizer.zero_grad(set_to_none=True)
        for part in w.split(chunk):
            _alike(case, part.expand(-1, rows, -1), c).sum().backward()
        optimizer.step()
        with torch.no_grad():
            offset = w - centre
            length = norm_of(offset, "whole") * math.sqrt(rows)
            w.copy_(centre + offset * (FARTHEST * scale / length).clamp(max=1))
        done((step + 1) / budget.beacon_steps)
    ws = w.detach().expand(-1, rows, -1).contiguous()
    with torch.no_grad():
        disparity = torch.cat([1 - _alike(case, part, c) for part in ws.split(chunk)])
    order = disparity.argsort(descending=True, stable=True)
    return ws[order], disparity[order]


def _alike(case: Case, ws: Tensor, c: Tensor) -> Tensor:
    """The loss's recogniser on both models' pictures: cosines [N]."""

    def seen(model: EG3D) -> Tensor:
        return case.networks.identity_loss(rough(model, model.planes(ws, noise_mode="const"), ws, c))

    return (seen(case.source) * seen(case.erased)).sum(1)
