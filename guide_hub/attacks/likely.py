"""Which latents a model is likely to draw, and a search that stays among them.

Any face can be forced out of a generator by a latent that it would never draw, W+ being large; such a find
says nothing of what the weights remember. Hence the search among *likely* seeds of Memories of Forgotten
Concepts (arXiv 2412.00782), in W whitened by its principal components, as Improved StyleGAN Embedding
(arXiv 2012.09036) has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guide_hub.latents import LatentSpace

SAMPLES = 2000  # random latents behind the covariance
RIDGE = 1e-3  # of the mean variance, to each: without it W's empty directions have no length


class Likely:
    """Latents within `limit` typical distances of the mean: `guide_hub.inversion.projector.Chart`.

    A distance is Mahalanobis', of each row of ws, over the median of random latents: a typical latent is at
    1. The chart's coordinates are W's principal components in standard deviations (times W's mean one, so
    that a learning rate means what it does in W): Adam's steps in W itself leave the likely latents by its
    narrow directions, and what brings them back undoes the rest as well.
    """

    def __init__(self, space: LatentSpace, limit: float):
        self.limit = limit
        rows = space.random(SAMPLES, torch.Generator().manual_seed(1))[:, 0].double()
        self.mean = rows.mean(0)
        variance, self.axes = torch.linalg.eigh(torch.cov(rows.T))
        self.unit = variance.mean().sqrt()
        self.deviation = (variance.clamp(min=0) + RIDGE * variance.mean()).sqrt()
        self.typical = self._whitened(rows).norm(dim=-1).median()

    def distance(self, ws: Tensor) -> Tensor:
        """ws [..., w_dim] -> [...], in typical distances."""
        return self._whitened(ws).norm(dim=-1) / self.typical

    def unlikeliness(self, ws: Tensor) -> Tensor:
        """ws [N, num_ws, w_dim] -> [N], the mean over the rows."""
        return self.distance(ws).mean(1)

    def clamp(self, ws: Tensor) -> Tensor:
        """Every row of ws [..., w_dim] that lies outside comes back along the line to the mean."""
        share = self._share(self.distance(ws))
        return torch.where(share < 1, self.mean + share * (ws - self.mean), ws.double()).to(ws)

    def inward(self, w: Tensor) -> Tensor:
        return (self._whitened(w) * self.unit).to(w)

    def outward(self, v: Tensor) -> Tensor:
        return (self.mean + (v.double() / self.unit * self.deviation) @ self.axes.T).to(v)

    def bound(self, v: Tensor) -> Tensor:
        return v * self._share(v.norm(dim=-1) / (self.unit * self.typical)).to(v)

    def _whitened(self, w: Tensor) -> Tensor:
        return ((w.double() - self.mean) @ self.axes) / self.deviation

    def _share(self, distance: Tensor) -> Tensor:
        return (self.limit / distance).clamp(max=1)[..., None]
