"""Those who stay: random people, and the people most like the erased one, before against after."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.draws import sample
from guide_hub.attacks.sight import front, look, person, pictures, share, short
from guide_hub.guide.latents import outside
from guide_hub.guide.target import unit_of
from guide_hub.latents import LatentSpace

POOL, POOL_SEED = 4096, 0x9001
SHOWN = 5


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Are the draws, and the `lookalikes` outside the erased ball, still themselves? From the front."""
    _, (before, after) = sample(case, budget, done)
    cosine = (before * after).sum(1)
    near = lookalikes(case, budget)
    c, judge = front(case), case.networks.identity_judge
    sides = [look(model, near, c, judge, budget.rays_of(model)) for model in (case.source, case.erased)]
    alike = (sides[0] * sides[1]).sum(1)
    least = case.recipe.gate.retained_min
    retained = share(cosine, case.threshold)
    return Finding(
        "retention",
        "Those who stay",
        retained >= least,
        f"at least {least:.0%} of random people are still themselves; those most like the erased one are "
        "reported beside them",
        {
            "random": len(cosine),
            "random_verified": short(retained),
            "random_cosine": short(cosine.mean()),
            "random_cosine_5th_percentile": short(cosine.quantile(0.05)),
            "neighbours": len(near),
            "neighbours_verified": short(share(alike, case.threshold)),
            "neighbours_cosine": short(alike.mean()),
            "neighbours_likeness_before": short((sides[0] @ person(case)).mean()),
        },
        [],
        {
            f"the {SHOWN} most like the person, {when}": pictures(model, near[:SHOWN], c)
            for when, model in (("before", case.source), ("after", case.erased))
        },
    )


def lookalikes(case: Case, budget: Budget) -> Tensor:
    """The random people outside the erased ball whom the judge finds most like the person, in the source.

    W chooses whom to render, by the direction from w_avg: [lookalikes, num_ws, w_dim], most alike first.
    """
    space, target, w_u = LatentSpace(case.source), case.recipe.target, case.ws[:1]
    radius = case.recipe.adjacency.alpha_max * unit_of(target, space)
    pool = space.random(POOL, torch.Generator().manual_seed(POOL_SEED + case.seed))
    pool = pool[outside(pool, [w_u], radius, target.norm)]
    towards = F.cosine_similarity((pool - space.w_avg).flatten(1), (w_u - space.w_avg).flatten(1))
    pool = pool[towards.topk(min(budget.candidates, len(pool))).indices]
    seen = look(case.source, pool, front(case), case.networks.identity_judge, budget.rays_of(case.source))
    likeness = seen @ person(case)
    return pool[likeness.topk(min(budget.lookalikes, len(pool))).indices]
