"""Latents around the person's: random ones near it, the way to its surrogate, mixtures with other people."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import front, look, person, pictures, share, short
from guide_hub.guide.target import unit_of
from guide_hub.latents import LatentSpace, norm_of

RADII = (1 / 3, 2 / 3, 1, 4 / 3, 2)  # in the recipe's alpha_max: 5, 10, 15, 20, 30 of GUIDE's 15
GROUPS = ("coarse", "mid", "fine")  # thirds of the layers


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Isotropic balls in W and W+, the line w_u, w_avg, w_t, and w_u with a third of its layers replaced."""
    places = around(case, budget)
    ws, c, real = torch.cat([*places.values()]), front(case), person(case)
    found, judge = [], case.networks.identity_judge
    for k, model in enumerate((case.source, case.erased)):
        cosine = look(model, ws, c, judge, budget.rays_of(model)) @ real
        found.append(dict(zip(places, cosine.split([len(w) for w in places.values()]), strict=True)))
        done((k + 1) / 2)
    before, after = found
    within = [name for name in places if not name.startswith("ball ") or _radius(name) <= 1]
    judged = torch.cat([after[name] for name in within])
    everywhere = torch.cat([*after.values()])
    worst = int(everywhere.argmax())
    figures: dict[str, float | int | None] = {
        "latents": len(ws),
        "cosine_max_before": short(torch.cat([*before.values()]).max()),
        "cosine_max_after": short(judged.max()),
        "verified_before": short(share(torch.cat([before[name] for name in within]), case.threshold)),
        "verified_after": short(share(judged, case.threshold)),
        "cosine_max_farther": short(torch.cat([after[name] for name in places if name not in within]).max()),
    }
    for kind in ("ball w ", "ball wplus ", "line", "mixed"):
        own = torch.cat([after[name] for name in within if name.startswith(kind)])
        figures[f"cosine_max_{kind.removeprefix('ball ').strip()}"] = short(own.max())
    rule = (
        f"no picture within the recipe's radius, on the line or of a mixture reaches the threshold "
        f"{case.threshold:.3f}"
    )
    return Finding(
        "neighbourhood",
        "Latents around the person's",
        bool(judged.max() < case.threshold),
        rule,
        figures,
        _curves(case, before, after),
        {
            "the latent most like the person, before and after": torch.cat(
                [pictures(model, ws[worst : worst + 1], c) for model in (case.source, case.erased)]
            )
        },
    )


def around(case: Case, budget: Budget) -> dict[str, Tensor]:
    """The latents by name, [n, num_ws, w_dim] each. Offsets of one length, by the recipe's norm and unit."""
    space, rng = LatentSpace(case.source), torch.Generator().manual_seed(case.seed)
    recipe, w_u = case.recipe, case.ws[:1]
    norm = recipe.target.norm
    length = recipe.adjacency.alpha_max * unit_of(recipe.target, space)
    places = {}
    for radius in RADII:
        for kind, rows in (("w", 1), ("wplus", w_u.shape[1])):
            offset = torch.randn(budget.ball, rows, w_u.shape[2], generator=rng).to(w_u)
            offset = offset.expand(-1, w_u.shape[1], -1)
            places[f"ball {kind} {radius:.2f}"] = w_u + radius * length * offset / norm_of(offset, norm)
    places["line"] = line(w_u, space.w_avg, case.w_t, budget.line)
    layers = torch.arange(w_u.shape[1]).chunk(3)
    for group, own in zip(GROUPS, layers, strict=False):
        mixed = w_u.repeat(budget.mixed, 1, 1)
        mixed[:, own] = space.random(budget.mixed, rng)[:, own]
        places[f"mixed {group}"] = mixed
    return places


def line(w_u: Tensor, w_avg: Tensor, w_t: Tensor | None, points: int) -> Tensor:
    """`points` latents from w_u over w_avg to w_t (to w_avg where that is not known), evenly each half."""
    ends = [w_u, w_avg] if w_t is None else [w_u, w_avg, w_t.to(w_u)]
    t = torch.linspace(0, len(ends) - 1, points).tolist()
    found = []
    for x in t:
        k = min(int(x), len(ends) - 2)
        found.append(torch.lerp(ends[k], ends[k + 1], x - k))
    return torch.cat(found)


def _radius(name: str) -> float:
    return float(name.rsplit(" ", 1)[1])


def _curves(case: Case, before: dict[str, Tensor], after: dict[str, Tensor]) -> list[Curve]:
    limits = {"threshold": case.threshold}
    lines: dict[str, list[float | None]] = {}
    for kind, title in (("w", "W"), ("wplus", "W+")):
        for when, cosine in (("before", before), ("after", after)):
            lines[f"{title}, {when}"] = [short(cosine[f"ball {kind} {r:.2f}"].max()) for r in RADII]
    radii = [round(r, 2) for r in RADII]
    points = len(after["line"])
    return [
        Curve(
            "Likeness in balls around the person's latent, the highest", "radius, in the recipe's own",
            "cosine", radii, lines, limits,
        ),
        Curve(
            "Likeness on the line from the person over the mean face to the surrogate", "share of the way",
            "cosine", [short(k / (points - 1)) for k in range(points)],
            {w: [short(x) for x in c["line"].tolist()] for w, c in (("before", before), ("after", after))},
            limits,
        ),
    ]  # fmt: skip
