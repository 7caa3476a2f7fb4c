"""White-box re-inversion: a search through the erased model's latents, a photo in hand.

The attacker's recogniser and perceptual network are the loss's; the judge tells whether it is the person. The
same search on the source says what it is worth, on people who were never erased what it finds of those, and
on people whom no such model shows what it makes of anybody: a photo in hand, a generator can be bent to much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import (
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
RECOVERY_MAX = 0.5  # of the likeness that the same search finds in the source
CONTROL_SEED = 0xC0117
LIKELY = 2000  # random latents that tell how likely one is
RIDGE = 1e-3
LENS = (1.6, 0.8)  # of the focal lengths: through it a face has a shape that the model's people have not


@dataclass(frozen=True)
class Found:
    """What restarts found of one photo: ws [R, num_ws, w_dim], and the judge's cosines [R, VIEWS]."""

    ws: Tensor
    cosine: Tensor


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """`restarts` searches for each of `photos`, in W and then in W+: erased model, source, the others."""
    space = LatentSpace(case.source)
    wanted = [case.photos[k : k + 1] for k in chosen_photos(case, budget)]
    people = control_people(case, budget.controls)
    bent = control_people(case, budget.controls + budget.strangers)[budget.controls :]
    total, finished = 2 * len(wanted) + len(people) + len(bent), 0
    real, erased, source = person(case), list[Found](), list[Found]()
    controls, strangers = list[Found](), list[Found]()

    def advance() -> None:
        nonlocal finished
        finished += 1
        done(finished / total)

    for photo in wanted:
        for model, found in ((case.erased, erased), (case.source, source)):
            found.append(search(case, model, space, photo, case.ws[:1], real, budget))
            advance()
    for others, camera, found in (
        (people, front(case), controls),
        (bent, through_lens(front(case)), strangers),
    ):
        for w in others:
            photo = pictures(case.source, w, camera)
            own = template(case.networks.identity_judge, photo)
            found.append(search(case, case.erased, space, photo, w, own, budget))
            advance()
    return _finding(case, budget, space, wanted, erased, source, controls, strangers)


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
    case: Case, model: EG3D, space: LatentSpace, photo: Tensor, w_u: Tensor, real: Tensor, budget: Budget
) -> Found:
    """All restarts on a photo [1, 3, S, S] of the person `real` [E], who was at w_u."""
    starts, pose = _starts(case, space, photo, w_u, budget.restarts)
    options, scale = case.recipe.inversion, space.median_offset()
    schedule = Schedule(
        budget.w_steps, options.lr * scale, scale, camera_steps=options.camera_steps,
        wplus_steps=budget.wplus_steps, seed=case.seed,
    )  # fmt: skip
    found = []
    for start in starts:  # one by one: a start in W+ would take the others of its graph there
        ws, _ = refine(
            model, photo, start, pose, case.networks.perceptual, case.networks.identity_loss, schedule
        )
        found.append(_better(case, model, photo, start, ws))
    c, judge = round_cameras(case, VIEWS), case.networks.identity_judge
    ws = torch.cat(found)
    return Found(ws, look_round(model, ws, c, judge, budget.rays_of(model)) @ real)


def _better(case: Case, model: EG3D, photo: Tensor, *tried: Tensor) -> Tensor:
    """Of latents [1, num_ws, w_dim] what the attacker's own recogniser finds most like the photo."""
    identity = case.networks.identity_loss
    seen = look(model, torch.cat(tried), front(case), identity)
    return tried[int((seen @ template(identity, photo)).argmax())]


def _starts(
    case: Case, space: LatentSpace, photo: Tensor, w_u: Tensor, n: int
) -> tuple[list[Tensor], Tensor]:
    """At most n starts [1, num_ws, w_dim]: w_u, the encoder's answer, w_avg, random ones; the pose [1, 3]."""
    starts, pose = [w_u], torch.zeros(1, 3, device=w_u.device)
    if case.networks.inversion is not None:
        with torch.no_grad():
            answer, pose = case.networks.inversion.start(photo, space)
        starts.append(answer)
    starts.append(space.w_avg.clone())
    rng = torch.Generator().manual_seed(case.seed)
    return [*starts, *space.random(n, rng).split(1)][:n], pose


class Unlikeliness:
    """How unlikely a latent is: its Mahalanobis distance over the median of random ones; typical is 1."""

    def __init__(self, space: LatentSpace):
        rows = space.random(LIKELY, torch.Generator().manual_seed(1))[:, 0].double()
        self.mean = rows.mean(0)
        cov = torch.cov(rows.T)
        cov += RIDGE * cov.diagonal().mean() * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
        self.root = torch.linalg.cholesky(cov)
        self.typical = float(self._distance(rows).median())

    def __call__(self, ws: Tensor) -> Tensor:
        """ws [N, num_ws, w_dim] -> [N], the mean over the rows."""
        return self._distance(ws.double().flatten(0, 1)).view(ws.shape[:2]).mean(1) / self.typical

    def _distance(self, rows: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, (rows - self.mean).T, upper=False).norm(dim=0)


def _finding(
    case: Case,
    budget: Budget,
    space: LatentSpace,
    wanted: list[Tensor],
    erased: list[Found],
    source: list[Found],
    controls: list[Found],
    strangers: list[Found],
) -> Finding:
    after, before = (torch.cat([f.cosine for f in found]) for found in (erased, source))
    best_after, best_before = after.mean(1).max(), before.mean(1).max()
    verified, recovery = share(after, case.threshold), float(best_after.clamp(min=0) / best_before)
    unlikely = Unlikeliness(space)
    ws = torch.cat([f.ws for f in erased])
    top = int(after.mean(1).argmax())
    figures: dict[str, float | int | None] = {
        "searches": len(after),
        "steps": budget.w_steps + budget.wplus_steps,
        "cosine_best_after": short(best_after),
        "cosine_best_before": short(best_before),
        "recovery": short(recovery),
        "verified_after": short(verified),
        "verified_before": short(share(before, case.threshold)),
        "cosine_best_controls": None,
        "verified_controls": None,
        "cosine_best_strangers": None,
        "verified_strangers": None,
        "unlikeliness_best": short(unlikely(ws)[top]),
        "unlikeliness_source": short(unlikely(torch.cat([f.ws for f in source])).mean()),
    }
    for kind, others in (("controls", controls), ("strangers", strangers)):
        if others:
            theirs = torch.stack([f.cosine for f in others])  # [people, R, V]
            figures[f"cosine_best_{kind}"] = short(theirs.mean(2).amax(1).mean())
            figures[f"verified_{kind}"] = short(share(theirs, case.threshold))
    passed = None
    rule = "the same search does not find the person in the source either, so nothing can be told"
    if best_before >= case.threshold:
        passed = verified <= VERIFIED_MAX and recovery <= RECOVERY_MAX
        rule = (
            f"of the views of all that was found at most {VERIFIED_MAX:.0%} are taken for the person, and "
            f"the likeness is at most {RECOVERY_MAX:g} of what the same search finds in the source"
        )
    ranks = [float(k + 1) for k in range(len(after))]
    lines: dict[str, list[float | None]] = {
        name: [short(x) for x in cosine.mean(1).sort(descending=True).values.tolist()]
        for name, cosine in (("erased", after), ("source", before))
    }
    model_rows = {}
    for name, model, found in (("erased", case.erased, erased), ("source", case.source, source)):
        best = torch.cat([f.ws for f in found])[int(torch.cat([f.cosine for f in found]).mean(1).argmax())]
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
