"""Tri-plane look-up: the features of points in space (EG3D, section 4.1)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2048  # points whose twelve taps stay in a core's cache


def project(points: Tensor) -> Tensor:
    """Points [N, P, 3] on the three planes: [N, 3, P, 2], first coordinate along the width.

    The planes are (x, y), (x, z), (z, x). None is (y, z): a slip in the released code, which its models need.
    """
    x, y, z = points.unbind(-1)
    return torch.stack([torch.stack(axes, dim=-1) for axes in ((x, y), (x, z), (z, x))], dim=1)


def sample_planes(planes: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """Bilinear features of planes [N, 3, C, H, W] at points [N, P, 3]: [N, 3, P, C]; 0 outside the box."""
    n, _, channels, height, width = planes.shape
    grid = project(points * (2 / box_warp)).reshape(n * 3, 1, -1, 2)
    images = planes.reshape(n * 3, channels, height, width)
    out = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return out.view(n, 3, channels, -1).transpose(2, 3)


class TriPlanes:
    """Planes [N, 3, C, H, W], to be looked up several times.

    On a CPU, and where the points need no gradient, as one weighted sum of twelve rows a point: four times as
    quick as `grid_sample` at 256 px and 32 channels.
    """

    def __init__(self, planes: Tensor, box_warp: float) -> None:
        self.planes, self.box_warp = planes, box_warp

    @cached_property
    def rows(self) -> Tensor:
        """One a place of a plane: [N * 3 * H * W, C]."""
        return self.planes.permute(0, 1, 3, 4, 2).flatten(0, 3)

    def features(self, points: Tensor) -> Tensor:
        """Mean over the three planes of `sample_planes`, at points [N, P, 3]: [N, P, C]."""
        if self.planes.device.type != "cpu" or (points.requires_grad and torch.is_grad_enabled()):
            return sample_planes(self.planes, points, self.box_warp).mean(1)
        n, _, channels, height, width = self.planes.shape
        index, weights = _taps(project(points * (2 / self.box_warp)), height, width)
        return _WeightedRows.apply(self.rows, index, weights.to(self.rows.dtype)).view(n, -1, channels)


def _taps(grid: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which of N * 3 * H * W rows, and their weights: [N * P, 12] each, of grid [N, 3, P, 2]."""
    n = len(grid)
    u, v = ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2
    left, top = u.floor(), v.floor()
    first = (torch.arange(n * 3, dtype=torch.int32) * (height * width)).view(n, 3, 1)
    index, weights = [], []
    for y, along_y in ((top, top + 1 - v), (top + 1, v - top)):
        line = first + y.clamp(0, height - 1).int() * width
        share = along_y * ((y >= 0) & (y < height)) / 3  # a third: the mean over the planes
        for x, along_x in ((left, left + 1 - u), (left + 1, u - left)):
            index.append(line + x.clamp(0, width - 1).int())
            weights.append(share * along_x * ((x >= 0) & (x < width)))
    return _by_point(index), _by_point(weights)


def _by_point(corners: list[Tensor]) -> Tensor:
    """Four [N, 3, P] to [N * P, 12]."""
    return torch.stack(corners, -1).transpose(1, 2).reshape(-1, 12)


class _WeightedRows(torch.autograd.Function):
    """`(weights[..., None] * rows[index]).sum(1)`: [P, C] of index [P, 12]. The gradient goes to `rows`.

    `embedding_bag`'s own backward takes four times as long as the sums here.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.rows = len(rows)
        return F.embedding_bag(index, rows, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        index, weights = ctx.saved_tensors
        (grad,) = grads
        rows = grad.new_zeros(ctx.rows, grad.shape[1])
        for here, share, g in zip(index.split(CHUNK), weights.split(CHUNK), grad.split(CHUNK), strict=True):
            rows.index_add_(0, here.flatten(), (share.unsqueeze(2) * g.unsqueeze(1)).flatten(0, 1))
        return rows, None, None
