"""GUIDE's ID figures (arXiv 2405.09879, as its code computes them): before against after, latent by latent.

At each latent the judge compares the picture that the source shows with the one that the erased model shows,
same w, same view; the cosine is averaged over 11 yaws. No photo takes part, so that the same cosine against
the real photo stands beside each figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.interval import Figure, mean_figure
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.identity import IdentityEncoder

VIEWS = 11  # yaws linspace(-pi/12, pi/12)


@dataclass(frozen=True)
class IdFigures:
    """Mean cosines in [-1, 1]: `id` at the erased latent, `others` at the other photos' own, `avg` at all.

    `others` is None for a person with one photo. Intervals are Student's: of one person over photos, but for
    `id`, which has a single latent and is over its views; of several people over identities.
    """

    id: Figure
    others: Figure | None
    avg: Figure

    def to_dict(self) -> dict[str, Any]:
        figures = {"id": self.id, "id_others": self.others, "id_avg": self.avg}
        return {name: figure and figure.to_dict() for name, figure in figures.items()}


@dataclass(frozen=True)
class PaperFigures:
    """One person, or the mean of several. `render`: against the source's render (the paper's figures);
    `photo`: against the real photo, after; `photo_before`: the same on the source."""

    render: IdFigures
    photo: IdFigures
    photo_before: IdFigures

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).to_dict() for name in ("render", "photo", "photo_before")}


@torch.no_grad()
def measure_paper(
    source: EG3D, erased: EG3D, judge: IdentityEncoder, ws: Tensor, photos: Tensor, c: Tensor
) -> PaperFigures:
    """One person's figures: ws [P, num_ws, w_dim] (the first: the erased), crops photos [P, 3, H, W] in
    [-1, 1], cameras c [V, 25] (`yaw_cameras(model, camera, VIEWS)`)."""
    real = torch.cat([judge(photo) for photo in photos.split(1)])
    before, after = (embed_views(model, ws, c, judge) for model in (source, erased))
    return paper_figures(before, after, real)


def paper_figures(before: Tensor, after: Tensor, photos: Tensor) -> PaperFigures:
    """The same from unit embeddings: renders [P, V, E] of either model, photos [P, E]."""
    real = photos[:, None]
    return PaperFigures(_person(before * after), _person(real * after), _person(real * before))


def average(people: list[PaperFigures]) -> PaperFigures:
    """Means over identities; `others` over those that have other photos."""

    def mean(name: str) -> IdFigures:
        each = [getattr(person, name) for person in people]
        others = [f.others.value for f in each if f.others is not None]
        return IdFigures(
            mean_figure([f.id.value for f in each], "identities"),
            mean_figure(others, "identities") if others else None,
            mean_figure([f.avg.value for f in each], "identities"),
        )

    return PaperFigures(mean("render"), mean("photo"), mean("photo_before"))


def _person(products: Tensor) -> IdFigures:
    """[P, V, E], photo 0 first."""
    cosine = products.sum(-1).cpu().double()
    by_photo = cosine.mean(1)
    others = mean_figure(by_photo[1:], "photos") if len(by_photo) > 1 else None
    return IdFigures(mean_figure(cosine[0], "views"), others, mean_figure(by_photo, "photos"))
