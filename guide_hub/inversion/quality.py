"""Does the model show the photos' person? The gate before an erasure, by the judge that no loss uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import embed_views, render_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance


@dataclass(frozen=True)
class Quality:
    """One row a photo. `cosine`: the judge's, photo against the renders at its latent, mean over the gate's
    views; `perceptual`: its distance to the render from its own camera."""

    cosine: tuple[float, ...]
    perceptual: tuple[float, ...]
    threshold: float

    @property
    def shown(self) -> tuple[bool, ...]:
        """Which photos the judge recognises."""
        return tuple(cosine >= self.threshold for cosine in self.cosine)

    def mean_cosine(self, first: int) -> float:
        """Of the first so many photos."""
        return sum(self.cosine[:first]) / first


@torch.no_grad()
def measure_quality(
    model: EG3D,
    judge: IdentityEncoder,
    perceptual: PerceptualDistance,
    photos: Tensor,
    ws: Tensor,
    c: Tensor,
    cameras: Tensor,
    threshold: float,
) -> Quality:
    """photos [P, 3, S, S], their ws [P, num_ws, w_dim] and cameras c [P, 25]; the gate's cameras [V, 25]."""
    cosine, distance = [], []
    for photo, w, own in zip(photos.split(1), ws.split(1), c.split(1), strict=True):
        views = embed_views(model, w, cameras, judge)[0]
        cosine.append(float((views @ judge(photo)[0]).mean()))
        distance.append(float(perceptual(render_views(model, w, own)[0], photo)))
    return Quality(tuple(cosine), tuple(distance), threshold)
