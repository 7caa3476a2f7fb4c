"""White-box re-inversion: a search through the erased model's latents, a photo in hand.

The attacker's recogniser and perceptual network are the loss's; the judge tells whether it is the person. The
same search on the source says what it is worth, on people who were never erased what it finds of those, and
on people whom no such model shows what it makes of anybody. It stays among likely latents: beyond them W+ can
be bent to any face, which a last stretch without that bound shows and which judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.likely import Likely
from guide_hub.attacks.sight import (
    encoded,
    front,
    look,
    look_round,
    person,
    pictures,
    round_cameras,
    share,
    short,
    template,
)
from guide_hub.eg3d import EG3D
from guide_hub.inversion import Schedule, refine
from guide_hub.latents import LatentSpace

VIEWS = 3  # a found latent is judged from
VERIFIED_MAX = 0.10  # of what all restarts found
RECOVERY_MAX = 0.5  # of the likeness that the same search finds in the source, beyond that of strangers
LIKELY_MAX = 1.5  # typical distances from the mean of W; at 2 strangers are found more often
CONTROL_SEED = 0xC0117
LENS = (1.6, 0.5)  # of the focal lengths: through it a face has a shape that the model's people have not


@dataclass(frozen=True)
class Found:
    """What R restarts found of one photo: ws [R, num_ws, w_dim], poses [R, 3], the judge's cosines [R, V]."""

    ws: Tensor
    pose: Tensor
    cosine: Tensor

    def best(self) -> int:
        return int(self.cosine.mean(1).argmax())


@dataclass(frozen=True)
class Searched:
    """All that was searched for: a `Found` a photo of the person's, and one a person of the others.

    `beyond`: one search each, without the bound, for the person and a stranger.
    """

    erased: list[Found]
    source: list[Found]
    controls: list[Found]
    strangers: list[Found]
    beyond: list[Found]


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """`restarts` searches for each of `photos`, in W and then in W+: erased model, source, the others.

    All stay among likely latents; the best of the person and that of a stranger then go on for `wplus_steps`
    without a bound. Those of the others are the same for everybody who was erased in the same run.
    """
    likely = Likely(LatentSpace(case.source), LIKELY_MAX)
    wanted = [case.photos[k : k + 1] for k in chosen_photos(case, budget)]
    total, finished = 2 * len(wanted) + budget.controls + budget.strangers + 2, 0
    real = person(case)

    def searched(model: EG3D, photo: Tensor, w_u: Tensor, real: Tensor) -> Found:
        nonlocal finished
        found = search(case, model, likely, photo, w_u, real, budget)
        finished += 1
        done(finished / total)
        return found

    erased, source = list[Found](), list[Found]()
    for photo in wanted:
        erased.append(searched(case.erased, photo, case.ws[:1], real))
        source.append(searched(case.source, photo, case.ws[:1], real))
    best = max(range(len(wanted)), key=lambda k: float(erased[k].cosine.mean(1).max()))
    free = go_on(case, case.erased, wanted[best], erased[best], real, budget)
    key = ("reinversion", budget, case.seed)
    if key not in case.memo:
        case.memo[key] = _others(case, budget, searched)
    controls, strangers, beyond = case.memo[key]
    return _finding(
        case, budget, likely, wanted, Searched(erased, source, controls, strangers, [free, *beyond])
    )


def _others(
    case: Case, budget: Budget, searched: Callable[[EG3D, Tensor, Tensor, Tensor], Found]
) -> tuple[list[Found], list[Found], list[Found]]:
    """In the erased model: people who were not erased; strangers; the first of these without the bound."""
    people, judge = control_people(case, budget.controls + budget.strangers), case.networks.identity_judge
    lens, found, beyond = through_lens(front(case)), list[Found](), list[Found]()
    for k, w in enumerate(people):
        photo = pictures(case.source, w, front(case) if k < budget.controls else lens)
        real = template(judge, photo)
        found.append(searched(case.erased, photo, w, real))
        if k == budget.controls:
            beyond.append(go_on(case, case.erased, photo, found[-1], real, budget))
    return found[: budget.controls], found[budget.controls :], beyond


def through_lens(c: Tensor) -> Tensor:
    """Cameras [N, 25] with the focal lengths of `LENS`."""
    bent = c.clone()
    bent[:, 16], bent[:, 20] = c[:, 16] * LENS[0], c[:, 20] * LENS[1]
    return bent


def chosen_photos(case: Case, budget: Budget) -> list[int]:
    """Held-out photos first: an attacker has others than those that the erasure used."""
    held_out = list(range(case.fitted, len(case.photos)))
    return [*held_out, *range(case.fitted)][: budget.photos]


def control_people(case: Case, n: int) -> list[Tensor]:
    """Random people who were not erased, [1, num_ws, w_dim] each."""
    rng = torch.Generator().manual_seed(CONTROL_SEED + case.seed)
    return list(LatentSpace(case.source).random(n, rng).split(1)) if n else []


def search(
    case: Case, model: EG3D, likely: Likely, photo: Tensor, w_u: Tensor, real: Tensor, budget: Budget
) -> Found:
    """All restarts on a photo [1, 3, S, S] of the person `real` [E], who was at w_u."""
    starts, pose = _starts(case, photo, w_u, budget.restarts)
    start, n = likely.clamp(torch.cat(starts)), len(starts)
    photos, schedule, nets = photo.expand(n, -1, -1, -1), _schedule(case, budget), case.networks
    poses = pose.expand(n, -1)
    ws, turned = refine(model, photos, start, poses, nets.perceptual, nets.identity_loss, schedule, likely)
    return _judged(case, model, photo, (start, ws), (poses, turned), real, budget)


def go_on(case: Case, model: EG3D, photo: Tensor, found: Found, real: Tensor, budget: Budget) -> Found:
    """From the best of what was found, `wplus_steps` more without a bound."""
    k = found.best()
    start, pose = found.ws[k : k + 1], found.pose[k : k + 1]
    schedule, nets = replace(_schedule(case, budget), steps=0), case.networks
    ws, turned = refine(model, photo, start, pose, nets.perceptual, nets.identity_loss, schedule)
    return _judged(case, model, photo, (start, ws), (pose, turned), real, budget)


def _schedule(case: Case, budget: Budget) -> Schedule:
    options, scale = case.recipe.inversion, LatentSpace(case.source).median_offset()
    return Schedule(
        budget.w_steps, options.lr * scale, scale, camera_steps=options.camera_steps,
        wplus_steps=budget.wplus_steps, seed=case.seed,
    )  # fmt: skip


def _judged(
    case: Case,
    model: EG3D,
    photo: Tensor,
    ws: tuple[Tensor, Tensor],
    pose: tuple[Tensor, Tensor],
    real: Tensor,
    budget: Budget,
) -> Found:
    """The better end of each search, to the attacker's recogniser, of latents and poses (start, end), and the
    judge's cosines of it."""
    best = _better(case, model, photo, *ws)
    each = torch.arange(len(best), device=best.device)
    found, turned = (torch.stack(both, 1)[each, best] for both in (ws, pose))
    c, judge = round_cameras(case, VIEWS), case.networks.identity_judge
    return Found(found, turned, look_round(model, found, c, judge, budget.rays_of(model)) @ real)


def _better(case: Case, model: EG3D, photo: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """[n], of each search's start and end [n, num_ws, w_dim]: 0 or 1, whichever the attacker's own recogniser
    finds more like the photo.
    """
    identity, both = case.networks.identity_loss, torch.stack([start, end], 1)
    seen = look(model, both.flatten(0, 1), front(case), identity) @ template(identity, photo)
    return seen.view(-1, 2).argmax(1)


def _starts(case: Case, photo: Tensor, w_u: Tensor, n: int) -> tuple[list[Tensor], Tensor]:
    """At most n starts [1, num_ws, w_dim]: w_u, the encoder's answer, w_avg, random ones; the pose [1, 3]."""
    space = LatentSpace(case.source)
    starts, pose = [w_u], torch.zeros(1, 3, device=w_u.device)
    answer = encoded(case, photo)
    if answer is not None:
        starts.append(answer[0])
        pose = answer[1]
    starts.append(space.w_avg.clone())
    rng = torch.Generator().manual_seed(case.seed)
    return [*starts, *space.random(n, rng).split(1)][:n], pose


def _finding(case: Case, budget: Budget, likely: Likely, wanted: list[Tensor], of: Searched) -> Finding:
    after, before = (torch.cat([f.cosine for f in found]) for found in (of.erased, of.source))
    best_after, best_before = (float(x.mean(1).max()) for x in (after, before))
    ws, theirs = (torch.cat([f.ws for f in found]) for found in (of.erased, of.source))
    verified = share(after, case.threshold)
    figures: dict[str, float | int | None] = {
        "searches": len(after),
        "steps": budget.w_steps + budget.wplus_steps,
        "unlikeliness_max": likely.limit,
        "cosine_best_after": short(best_after),
        "cosine_best_before": short(best_before),
        "recovery": short(max(best_after, 0) / best_before),
        "recovery_beyond_strangers": None,
        "verified_after": short(verified),
        "verified_before": short(share(before, case.threshold)),
        **_figures("controls", case, of.controls),
        **_figures("strangers", case, of.strangers),
        "unlikeliness_best": short(likely.unlikeliness(ws)[after.mean(1).argmax()]),
        "unlikeliness_source": short(likely.unlikeliness(theirs).mean()),
        **_figures("unbounded", case, of.beyond[:1]),
        "unlikeliness_unbounded": short(likely.unlikeliness(of.beyond[0].ws).mean()),
        **_figures("strangers_unbounded", case, of.beyond[1:]),
    }
    floor = figures["cosine_best_strangers"] or 0.0  # without strangers the rule is the stricter one
    passed, rule = None, "the same search does not find the person in the source either: nothing can be told"
    if case.threshold <= best_before <= floor:
        rule = "the same search finds strangers no less than the person in the source: nothing can be told"
    elif best_before >= case.threshold:
        recovery = max(best_after - floor, 0) / (best_before - floor)
        figures["recovery_beyond_strangers"] = short(recovery)
        passed, rule = verdict(verified, recovery, figures["verified_strangers"] or 0.0)
    ranks = [float(k + 1) for k in range(len(after))]
    lines: dict[str, list[float | None]] = {
        name: [short(x) for x in cosine.mean(1).sort(descending=True).values.tolist()]
        for name, cosine in (("erased", after), ("source", before))
    }
    model_rows = {}
    for name, model, found, cosine in (
        ("erased", case.erased, ws, after), ("source", case.source, theirs, before),
    ):  # fmt: skip
        best = found[int(cosine.mean(1).argmax())]
        model_rows[f"the best that was found in the {name}"] = pictures(model, best[None], front(case))
    return Finding(
        "reinversion",
        "Search through the erased model's latents, a photo in hand",
        passed,
        rule,
        figures,
        [
            Curve(
                "Likeness of what each search found, best first", "search", "cosine", ranks, lines,
                {"threshold": case.threshold},
            )
        ],
        {"the attacker's photos": torch.cat(wanted), **model_rows},
    )  # fmt: skip


def verdict(verified: float, recovery: float, strangers: float) -> tuple[bool | None, str]:
    """`passed` and the rule. `recovery`: beyond strangers; `strangers`: the share of their views verified."""
    if recovery <= RECOVERY_MAX and verified > VERIFIED_MAX and strangers > VERIFIED_MAX:
        return None, "the same search makes people of strangers as well, so what it finds tells nothing"
    return verified <= VERIFIED_MAX and recovery <= RECOVERY_MAX, (
        f"of the views of all that was found at most {VERIFIED_MAX:.0%} are taken for the person, and of the "
        "likeness that the same search finds in the source, beyond what it finds of strangers, at most "
        f"{RECOVERY_MAX:g} is left"
    )


def _figures(kind: str, case: Case, found: list[Found]) -> dict[str, float | int | None]:
    """Of people of that kind: the best likeness, the mean over them, and the share of views verified."""
    best, verified = None, None
    if found:
        cosine = torch.stack([f.cosine for f in found])  # [people, R, V]
        best, verified = short(cosine.mean(2).amax(1).mean()), short(share(cosine, case.threshold))
    return {f"cosine_best_{kind}": best, f"verified_{kind}": verified}
