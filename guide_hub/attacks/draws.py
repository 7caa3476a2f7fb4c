"""Random people of the two models: does chance show the person?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import front, look, person, pictures, short
from guide_hub.latents import LatentSpace

SEED = 0xD4A3  # draws of no other measure
PART = 64
LEFT = 0.5  # of the source's lookalikes may still be taken for the person
NEW = 3  # standard deviations of a binomial count that new lookalikes may exceed its mean by


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Top likeness over `draws` random z at psi 1 from the front, of both models at the same z."""
    ws, seen = sample(case, budget, done)
    real = person(case)
    before, after = (embeddings @ real for embeddings in seen)
    n, far = len(ws), case.recipe.gate.far
    was, now = before >= case.threshold, after >= case.threshold
    left, new = int((was & now).sum()), int((now & ~was).sum())
    expected = n * far
    most = expected + NEW * (expected * (1 - far)) ** 0.5
    passed = None if not was.any() and not now.any() else left <= LEFT * int(was.sum()) and new <= most
    rule = (
        f"of the draws that the judge takes for the person before, at most {LEFT:.0%} are taken after, and "
        f"at most {most:.1f} new ones: strangers pass at {far:g}"
    )
    if passed is None:
        rule = f"no draw of {n} was ever taken for the person, so nothing can be told: more draws are needed"
    top = int(after.argmax())
    counts = _places(n)
    lines: dict[str, list[float | None]] = {
        name: [short(cosine.sort(descending=True).values[k - 1]) for k in counts]
        for name, cosine in (("before", before), ("after", after))
    }
    return Finding(
        "draws",
        "Random people of the model",
        passed,
        rule,
        {
            "draws": n,
            "cosine_top_before": short(before.max()),
            "cosine_top_after": short(after.max()),
            "taken_before": int(was.sum()),
            "taken_after": int(now.sum()),
            "taken_after_new": new,
            "expected_of_strangers": short(expected),
        },
        [
            Curve(
                "Extreme likeness: the k-th highest of all draws", "k", "cosine",
                [float(k) for k in counts], lines, {"threshold": case.threshold},
            )
        ],
        {
            "the draw most like the person, before and after": torch.cat(
                [pictures(model, ws[top : top + 1], front(case)) for model in (case.source, case.erased)]
            )
        },
    )  # fmt: skip


def sample(
    case: Case, budget: Budget, done: Callable[[float], None] = lambda share: None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Random latents [n, num_ws, w_dim] and the judge's embeddings [n, E] of both models' pictures.

    They are of the models alone, so the next person's case takes the same ones.
    """
    key = ("draws", budget.draws, budget.rays, case.seed)
    if key not in case.memo:
        rng = torch.Generator().manual_seed(SEED + case.seed)
        ws, c = LatentSpace(case.source).random(budget.draws, rng), front(case)
        judge, before, after = case.networks.identity_judge, list[Tensor](), list[Tensor]()
        for k, part in enumerate(ws.split(PART)):
            for rows, model in ((before, case.source), (after, case.erased)):
                rows.append(look(model, part, c, judge, budget.rays_of(model)))
            done(min(1.0, (k + 1) * PART / len(ws)))
        case.memo[key] = ws, (torch.cat(before), torch.cat(after))
    found: tuple[Tensor, tuple[Tensor, Tensor]] = case.memo[key]
    return found


def _places(n: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to n."""
    return [k * 10**e for e in range(len(str(n))) for k in (1, 2, 5) if k * 10**e <= n]
