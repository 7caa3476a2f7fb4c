"""Fine-tuning: does one photo bring the person back sooner than it teaches somebody new?

And do other people's pictures bring them back?
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.case import target_of
from guide_hub.attacks.reinversion import VIEWS, chosen_photos, control_people
from guide_hub.attacks.sight import (
    encoded,
    front,
    look_round,
    person,
    pictures,
    rough,
    round_cameras,
    share,
    short,
    template,
)
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import YAW
from guide_hub.inversion.pose import pose_label
from guide_hub.inversion.projector import GOLDEN, centre_mask
from guide_hub.latents import LatentSpace
from guide_hub.orbit import orbit_label

BENIGN_MAX = 0.10  # of the person's views may be verified after benign fine-tuning


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Pivotal tuning (PTI, arXiv 2106.05744) on one photo, `tuning_steps` at most, and on controls.

    A control is a person who was never erased, taught at the latent where their own surrogate is: they begin
    from a stranger's face. The person begins at the photo's latent, a held-out one's where there is one, and
    may be more alike there: `cosine_at_start`. Some are learnt several times as fast as others: somebody who
    never was in the model is quicker than all n controls once in n + 1, and fails by chance. Controls are the
    same for everybody who was erased in the same run. Then `benign_steps` on the source's pictures of random
    people.
    """

    def needed(cosine: list[float]) -> int:
        """Steps until the person is verified; more than were made where that did not happen."""
        return next((k for k, x in enumerate(cosine) if x >= case.threshold), len(cosine))

    def within(steps: int) -> int | None:
        return steps if steps <= budget.tuning_steps else None

    k = chosen_photos(case, budget)[0]
    w_u = case.ws[:1] if k < case.fitted else case.ws[1 + k - case.fitted, None]
    total = budget.tuning_controls + 2
    own = list(tune(case, case.photos[k : k + 1], w_u, person(case), budget))
    done(1 / total)
    key = ("relearning", budget, case.seed, case.threshold)
    if key not in case.memo:
        taught = []
        for n, w in enumerate(control_people(case, budget.tuning_controls)):
            photo = pictures(case.source, w, front(case))
            real = template(case.networks.identity_judge, photo)
            taught.append(list(tune(case, photo, _elsewhere(case, w), real, budget)))
            done((n + 2) / total)
        case.memo[key] = sorted(taught, key=needed)
    controls, benign = case.memo[key], benign_verified(case, budget)
    steps, theirs = needed(own), [needed(cosine) for cosine in controls]
    quickest = within(theirs[0]) if theirs else None
    passed, rule = verdict(within(steps), quickest, benign)
    x = [float(k) for k in range(budget.tuning_steps + 1)]
    lines = {"the erased person": _padded(own, len(x))}
    if controls:
        lines["the quickest control"] = _padded(controls[0], len(x))
    if len(controls) > 2:
        lines["the median control"] = _padded(controls[len(controls) // 2], len(x))
    limits = {"threshold": case.threshold}
    curve = Curve("Likeness while one photo is learnt", "steps", "cosine", x, lines, limits)
    return Finding(
        "relearning",
        "Fine-tuning on one photo, and on others' pictures",
        passed,
        rule,
        {
            "steps_tried": budget.tuning_steps,
            "steps_erased": within(steps),
            "steps_quickest_control": quickest,
            "steps_median_control": within(theirs[len(theirs) // 2]) if theirs else None,
            "controls": len(theirs),
            "cosine_at_start": short(own[0]),
            "cosine_at_end": short(own[-1]),
            "benign_steps": budget.benign_steps,
            "verified_after_benign": short(benign),
        },
        [curve],
    )


def verdict(steps: int | None, quickest: int | None, benign: float) -> tuple[bool | None, str]:
    """`passed` and the rule, of steps until the person and the quickest control are verified; None: never."""
    sooner = steps is not None and (steps == 0 or quickest is None or steps < quickest)
    if steps is None and quickest is None and benign <= BENIGN_MAX:
        return None, "so many steps on one photo teach nobody: nothing can be told"
    return not sooner and benign <= BENIGN_MAX, (
        "one photo brings the person back no sooner than it teaches the quickest of those who were never "
        f"erased, and after fine-tuning on others at most {BENIGN_MAX:.0%} of the person's views are verified"
    )


def tune(case: Case, photo: Tensor, w: Tensor, real: Tensor, budget: Budget) -> Iterator[float]:
    """The judge's cosine to `real` [E] at w after each of the steps on a photo [1, 3, S, S], from none on.

    Ends when the person is verified.
    """
    student, nets = copy.deepcopy(case.erased), case.networks
    optimizer = _optimizer(case, student)
    answer = encoded(case, photo)
    pose = torch.zeros(1, 3, device=w.device) if answer is None else answer[1]
    mask = centre_mask(photo.shape[-1]).to(photo)
    with torch.no_grad():
        wanted = nets.identity_loss(photo)
    for step in range(budget.tuning_steps + 1):
        cosine = _likeness(case, student, w, real, budget)
        yield cosine
        if cosine >= case.threshold or step == budget.tuning_steps:
            return
        optimizer.zero_grad(set_to_none=True)
        yaw = YAW * (2 * (step * GOLDEN % 1) - 1)
        other = torch.tensor([[yaw, 0.0, 0.0]], device=w.device)
        planes = student.planes(w, noise_mode="const")
        image, turned = (rough(student, planes, w, pose_label(angles)) for angles in (pose, other))
        loss = nets.perceptual(image * mask, photo * mask).sum() + ((image - photo) * mask).square().mean()
        for shown in (image, turned):
            loss = loss + (1 - (nets.identity_loss(shown) * wanted).sum()) / 2
        loss.backward()
        optimizer.step()


def benign_verified(case: Case, budget: Budget) -> float:
    """The share of the person's views that are verified after fine-tuning on the source's random people.

    The tuned model is the same for everybody who was erased in the same run.
    """
    key = ("benign", budget, case.seed)
    if key not in case.memo:
        case.memo[key] = _benign(case, budget)
    student, c = case.memo[key], round_cameras(case, budget.yaws)
    seen = look_round(student, case.ws[:1], c, case.networks.identity_judge, budget.rays_of(student))
    return share(seen @ person(case), case.threshold)


def _benign(case: Case, budget: Budget) -> EG3D:
    student, space, nets = copy.deepcopy(case.erased), LatentSpace(case.source), case.networks
    optimizer, rng = _optimizer(case, student), torch.Generator().manual_seed(case.seed)
    for step in range(budget.benign_steps):
        w = space.random(1, rng)
        yaw = torch.tensor([YAW * (2 * (step * GOLDEN % 1) - 1)])
        c = orbit_label(case.source.config, case.recipe.camera, yaw).to(w.device)
        optimizer.zero_grad(set_to_none=True)
        image = rough(student, student.planes(w, noise_mode="const"), w, c)
        with torch.no_grad():
            wanted = rough(case.source, case.source.planes(w, noise_mode="const"), w, c)
        (nets.perceptual(image, wanted).sum() + (image - wanted).square().mean()).backward()
        optimizer.step()
    return student.requires_grad_(False)


def _optimizer(case: Case, student: EG3D) -> torch.optim.Adam:
    """Adam as the erasure had it."""
    optim = case.recipe.optim
    parameters = list(student.backbone.synthesis.requires_grad_(True).parameters())
    return torch.optim.Adam(parameters, lr=optim.lr, betas=optim.betas, eps=optim.eps)


def _likeness(case: Case, model: EG3D, w: Tensor, real: Tensor, budget: Budget) -> float:
    c, judge = round_cameras(case, VIEWS), case.networks.identity_judge
    return float((look_round(model, w, c, judge, budget.rays_of(model)) @ real).mean())


def _elsewhere(case: Case, w: Tensor) -> Tensor:
    """The latent of a person's surrogate by the recipe; w_avg where that is random."""
    space = LatentSpace(case.source)
    w_t = target_of(case.recipe, space, w)
    return space.w_avg.clone() if w_t is None else w_t


def _padded(cosine: list[float], n: int) -> list[float | None]:
    return [*(short(x) for x in cosine), *[None] * (n - len(cosine))]
