"""Surrogate reflection: what the erased model shows in the person's place, mirrored through the mean face.

UFO (GUIDE, section 3.2) sends w_u to the other side of w_avg, so the surrogate's own latent in the source
points back at the person. A target that is no function of w_u gives nothing away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from guide_hub.attacks.base import Case, Curve, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import encoded, front, look, person, pictures, short
from guide_hub.inversion import Schedule, refine
from guide_hub.latents import LatentSpace, norm_of

LENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the mirrored latent from w_avg, in medians


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Inverts the erased model's frontal picture at w_u in the source, and looks at it and its mirror images.

    The inversion is the projector's, in W, by the loss's networks.
    """
    space, c, real = LatentSpace(case.source), front(case), person(case)
    surrogate = pictures(case.erased, case.ws[:1], c)
    found = _invert(case, space, surrogate, budget)
    done(0.8)
    offset = found - space.w_avg
    direction = offset / norm_of(offset, "whole").clamp(min=1e-12)
    unit = space.median_offset()
    mirrored = torch.cat([space.w_avg - length * unit * direction for length in LENGTHS])
    shown = torch.cat([found, mirrored])
    cosine = look(case.source, shown, c, case.networks.identity_judge, budget.rays_of(case.source)) @ real
    best = int(cosine[1:].argmax())
    away = F.cosine_similarity(offset.flatten(1), (case.ws[:1] - space.w_avg).flatten(1))
    lines: dict[str, list[float | None]] = {"mirrored": [short(x) for x in cosine[1:].tolist()]}
    return Finding(
        "reflection",
        "The surrogate, mirrored through the mean face",
        bool(cosine.max() < case.threshold),
        f"neither the surrogate's latent nor a mirror image of it reaches the threshold {case.threshold:.3f}",
        {
            "steps": budget.mirror_steps,
            "cosine_surrogate": short(cosine[0]),
            "cosine_mirrored": short(cosine[1:].max()),
            "length_of_best": LENGTHS[best],
            "direction": short(away[0]),
        },
        [
            Curve(
                "Likeness of the mirror images, shown by the source", "length, medians", "cosine",
                [*LENGTHS], lines, {"threshold": case.threshold},
            )
        ],
        {
            "the surrogate, its inversion in the source, the best mirror image": torch.cat(
                [surrogate, pictures(case.source, torch.stack([found[0], mirrored[best]]), c)]
            )
        },
    )  # fmt: skip


def _invert(case: Case, space: LatentSpace, photo: Tensor, budget: Budget) -> Tensor:
    """A picture [1, 3, H, W] in the source: [1, num_ws, w_dim]."""
    nets, options, scale = case.networks, case.recipe.inversion, space.median_offset()
    start, pose = encoded(case, photo) or (space.w_avg.clone(), torch.zeros(1, 3, device=photo.device))
    schedule = Schedule(budget.mirror_steps, options.lr * scale, scale, options.camera_steps, seed=case.seed)
    ws, _ = refine(case.source, photo, start, pose, nets.perceptual, nets.identity_loss, schedule)
    return ws
