"""Is the person gone, and is everybody else still there? GUIDE's measures with a judge the loss never saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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


@dataclass(frozen=True, eq=False)
class Compared:
    """`measure`, and the judge's embeddings [N, V, E] behind it: of the pictures before, and after."""

    measure: RetainedMeasure
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)


@dataclass(frozen=True)
class Seen:
    """One person on one model; `others` as in `PersonMeasure`."""

    own: Likeness
    others: Likeness | None


class Sitter:
    """One person to be looked at on one model after the other. What does not change is made once.

    faces [P, E]: the judge's embeddings of the photos, of which the first `fitted` found ws[0]; each other
    one has its own in ws [1 + P - fitted, num_ws, w_dim]. Cameras c [V, 25]. `source`: the model from before.
    """

    def __init__(
        self,
        judge: IdentityEncoder,
        faces: Tensor,
        ws: Tensor,
        c: Tensor,
        threshold: float,
        fitted: int = 1,
        source: EG3D | None = None,
    ):
        self.judge, self.faces, self.ws, self.c = judge, faces, ws, c
        self.threshold, self.fitted, self.source = threshold, fitted, source
        self._before: Tensor | None = None

    def views(self, model: EG3D) -> Tensor:
        """What the judge sees at the person's latents: [1 + P - fitted, V, E]."""
        return embed_views(model, self.ws, self.c, self.judge)

    def seen(self, views: Tensor, threshold: float | None = None) -> Seen:
        """The photos against `views`, at the sitter's threshold or another."""
        line = self.threshold if threshold is None else threshold
        own = likeness(self.faces[: self.fitted], views[:1], line)
        held_out = self.faces[self.fitted :]
        return Seen(own, likeness(held_out, views[1:], line) if len(held_out) else None)

    def measured(self, views: Tensor) -> PersonMeasure:
        """The source against `views` of the erased model."""
        if self._before is None:
            assert self.source is not None
            self._before = self.views(self.source)
        before, after = self.seen(self._before), self.seen(views)
        guide = float((self._before[0] * views[0]).sum(-1).mean())
        return PersonMeasure(before.own, after.own, guide, before.others, after.others)


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
    sitter = Sitter(judge, embed(judge, photos), ws, c, threshold, fitted, source)
    return sitter.measured(sitter.views(erased))


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
    pictures = (render_views(source, w, c)[0] for w in ws.split(1))
    return compare_retained(pictures, erased, judge, perceptual, ws, c, threshold).measure


@torch.no_grad()
def compare_retained(
    before: Iterable[Tensor],
    erased: EG3D,
    judge: IdentityEncoder,
    perceptual: PerceptualDistance,
    ws: Tensor,
    c: Tensor,
    threshold: float,
) -> Compared:
    """`measure_retained` from each one's pictures [V, 3, H, W] in the source."""
    faces, distances = [], []
    for w, a in zip(ws.split(1), before, strict=True):
        b = render_views(erased, w, c)[0]
        faces.append((judge(a), judge(b)))
        distances.append(perceptual(a, b))
    old, new = (torch.stack(side) for side in zip(*faces, strict=True))
    cosine = (old * new).sum(-1)
    verified = (cosine >= threshold).double().mean()
    distance = torch.cat(distances).mean()
    return Compared(
        RetainedMeasure(len(ws), float(verified), float(cosine.mean()), float(distance)), old, new
    )
