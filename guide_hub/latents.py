"""W of one model: random latents, its mean and its scale."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label

Norm = Literal["whole", "per_layer"]


class LatentSpace:
    """W of one model: random latents, its mean and its scale. Conditions on the frontal camera at psi 1."""

    def __init__(self, model: EG3D):
        self.model = model
        self.device = model.w_avg.device
        self.cond = camera_label(0.0, 0.0, pivot=model.config.rendering.avg_camera_pivot).to(self.device)
        self.w_avg = model.w_avg.detach().expand(1, model.num_ws, -1)

    @torch.no_grad()
    def map(self, z: Tensor) -> Tensor:
        """`Map(z)`: z [N, z_dim] -> ws [N, num_ws, w_dim]."""
        return self.model.mapping(z.to(self.device), self.cond.expand(len(z), -1))

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` latents of z ~ N(0, I), drawn on the generator's device: one seed means the same everywhere."""
        return self.map(torch.randn(n, self.model.config.z_dim, generator=generator))

    def median_offset(self, n: int = 1000, norm: Norm = "whole", seed: int = 0) -> float:
        """Median of `||w - w_avg||` over `n` random latents: the unit of d and alpha_max in small models."""
        w = self.random(n, torch.Generator().manual_seed(seed))
        return float(norm_of(w - self.w_avg, norm).median())


def norm_of(offset: Tensor, norm: Norm) -> Tensor:
    """L2 norm of an offset [N, num_ws, w_dim], kept broadcastable.

    `whole` takes the whole tensor of a sample ([N, 1, 1]; what the released code does), `per_layer` each row
    ([N, num_ws, 1]).
    """
    dims = (1, 2) if norm == "whole" else (2,)
    return offset.square().sum(dims, keepdim=True).sqrt()
