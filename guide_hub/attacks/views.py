"""The same latents from cameras that the training never had."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import look_round, person, pictures, round_cameras, share, short

REACH = math.pi / 6  # radians of yaw to each side: twice as far as training and gate go
PITCHES = (0.15, -0.15, 0.3)  # radians off the recipe's one pitch
HELD_OUT_MAX = 0.05  # of the views of held-out photos may still be the person


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """The person's latent and the held-out photos' from `yaws` x `pitches` cameras, before and after."""
    judge, real = case.networks.identity_judge, person(case)
    rows = [round_cameras(case, budget.yaws, REACH, pitch) for pitch in PITCHES[: budget.pitches]]
    c, cosines = torch.cat(rows), []
    for k, model in enumerate((case.source, case.erased)):
        cosines.append(look_round(model, case.ws, c, judge, budget.rays_of(model)) @ real)
        done((k + 1) / 2)
    before, after = cosines  # [1 + H, V]
    worst = int(after[0].argmax())
    held_out = share(after[1:], case.threshold) if len(after) > 1 else None
    rule = (
        f"no view of {len(c)} reaches the threshold {case.threshold:.3f}, and of those of held-out photos "
        f"at most {HELD_OUT_MAX:.0%} do"
    )
    yaws = [short(math.degrees(x)) for x in torch.linspace(-REACH, REACH, budget.yaws).tolist()]
    lines: dict[str, list[float | None]] = {
        "before": _worst(before[:1], budget),
        "after": _worst(after[:1], budget),
    }
    if held_out is not None:
        lines["held-out photos, after"] = _worst(after[1:], budget)
    title = "Likeness over the yaw, the worst of the pitches"
    curve = Curve(title, "yaw, degrees", "cosine", yaws, lines, {"threshold": case.threshold})
    shown = [pictures(model, case.ws[:1], c[worst : worst + 1]) for model in (case.source, case.erased)]
    return Finding(
        "views",
        "Cameras that the training never had",
        bool(after[0, worst] < case.threshold) and (held_out or 0.0) <= HELD_OUT_MAX,
        rule,
        {
            "views": len(c),
            "cosine_before": short(before[0].mean()),
            "cosine_after": short(after[0].mean()),
            "cosine_worst_view": short(after[0, worst]),
            "verified_before": short(share(before[0], case.threshold)),
            "verified_after": short(share(after[0], case.threshold)),
            "held_out_verified_before": short(share(before[1:], case.threshold)) if len(after) > 1 else None,
            "held_out_verified_after": None if held_out is None else short(held_out),
        },
        [curve],
        {"photos": case.photos, "the view most like the person, before and after": torch.cat(shown)},
    )


def _worst(cosine: Tensor, budget: Budget) -> list[float | None]:
    """[N, V] -> by yaw, the highest."""
    return [short(x) for x in cosine.reshape(-1, budget.yaws).amax(0).tolist()]
