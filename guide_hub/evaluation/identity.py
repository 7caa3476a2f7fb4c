"""Is the person gone, and is everybody else still there? GUIDE's measures with a judge the loss never saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import embed_views, render_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance


@dataclass(frozen=True)
class Likeness:
    """Photos against the renders at their latents.

    `cosine`: the mean over photos and views, in [-1, 1]. `verified`: the share of views, in [0, 1], whose
    cosine is at or over the threshold.
    """

    cosine: float
    verified: float


@dataclass(frozen=True)
class PersonMeasure:
    """One identity before and after. `others` are its held-out photos at their own latents; None without any.

    `guide` is the paper's ID: the render before against the render after at the same `w_u` and view.
    """

    before: Likeness
    after: Likeness
    guide: float
    others_before: Likeness | None
    others_after: Likeness | None


@dataclass(frozen=True)
class RetainedMeasure:
    """Random people who were not erased: source render against erased render at the same w and view."""

    n: int
    verified: float
    cosine: float
    perceptual: float


def likeness(photos: Tensor, views: Tensor, threshold: float) -> Likeness:
    """photos [P, E] against renders [P, V, E], each against its own, or all against the same [1, V, E]."""
    cosine = (views * photos[:, None]).sum(-1)
    return Likeness(float(cosine.mean()), float((cosine >= threshold).double().mean()))


@torch.no_grad()
def embed(judge: IdentityEncoder, photos: Tensor) -> Tensor:
    """Unit embeddings [P, E] of photos [P, 3, H, W], one at a time."""
    return torch.cat([judge(photo) for photo in photos.split(1)])


@torch.no_grad()
def measure_person(
    source: EG3D,
    erased: EG3D,
    judge: IdentityEncoder,
    photos: Tensor,
    ws: Tensor,
    c: Tensor,
    threshold: float,
    fitted: int = 1,
) -> PersonMeasure:
    """photos [P, 3, H, W], of which the first `fitted` found the erased latent ws[0]; each other one has its
    own in ws [1 + P - fitted, num_ws, w_dim]. Cameras c [V, 25]."""
    return measure_embedded(source, erased, judge, embed(judge, photos), ws, c, threshold, fitted)


@torch.no_grad()
def measure_embedded(
    source: EG3D,
    erased: EG3D,
    judge: IdentityEncoder,
    real: Tensor,
    ws: Tensor,
    c: Tensor,
    threshold: float,
    fitted: int = 1,
) -> PersonMeasure:
    """`measure_person` from the photos' embeddings `real` [P, E]."""
    before, after = (embed_views(model, ws, c, judge) for model in (source, erased))
    others = len(real) > fitted
    return PersonMeasure(
        before=likeness(real[:fitted], before[:1], threshold),
        after=likeness(real[:fitted], after[:1], threshold),
        guide=float((before[0] * after[0]).sum(-1).mean()),
        others_before=likeness(real[fitted:], before[1:], threshold) if others else None,
        others_after=likeness(real[fitted:], after[1:], threshold) if others else None,
    )


@torch.no_grad()
def measure_retained(
    source: EG3D,
    erased: EG3D,
    judge: IdentityEncoder,
    perceptual: PerceptualDistance,
    ws: Tensor,
    c: Tensor,
    threshold: float,
) -> RetainedMeasure:
    """ws [N, num_ws, w_dim] of random people, cameras c [V, 25]."""
    cosines, distances = [], []
    for w in ws.split(1):
        a, b = (render_views(model, w, c)[0] for model in (source, erased))
        cosines.append((judge(a) * judge(b)).sum(-1))
        distances.append(perceptual(a, b))
    cosine = torch.cat(cosines)
    verified = (cosine >= threshold).double().mean()
    return RetainedMeasure(len(ws), float(verified), float(cosine.mean()), float(torch.cat(distances).mean()))
