"""Cameras: EG3D's OpenCV convention (x right, y down, z forward), its 25-number labels, and its rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from guide_hub.eg3d.ops import draw

FOV = 18.837  # degrees; EG3D's models of faces
OFFICIAL_PI, OFFICIAL_SQRT2 = 3.14159, 1.414  # the reference's digits: FOV must give its 4.2634

Pivot = Sequence[float] | Tensor


def fov_to_intrinsics(fov: float = FOV) -> Tensor:
    """Intrinsics [3, 3] of a field of view in degrees, normalised by the picture's size."""
    focal = 1 / (math.tan(fov * OFFICIAL_PI / 360) * OFFICIAL_SQRT2)
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], dtype=torch.float32)


def lookat_cam2world(
    h: float | Tensor, v: float | Tensor, pivot: Pivot = (0.0, 0.0, 0.0), radius: float | Tensor = 2.7
) -> Tensor:
    """Cameras on the sphere of `radius` about the world's origin that look at `pivot`: [N, 4, 4].

    `h` [N] is the azimuth in radians. `v` [N] in (0, pi) is not an angle but spreads heights evenly over
    the sphere: the polar angle is arccos(1 - 2 v / pi). h = v = pi / 2 stands at (0, 0, radius). Pivot: [3]
    or [N, 3].
    """
    device = torch.as_tensor(h).device
    columns = (torch.as_tensor(x, dtype=torch.float32, device=device).reshape(-1, 1) for x in (h, v, radius))
    azimuth, height, distance = torch.broadcast_tensors(*columns)
    theta = math.pi - azimuth
    phi = torch.arccos(1 - 2 * height.clamp(1e-5, math.pi - 1e-5) / math.pi)
    target = torch.as_tensor(pivot, dtype=torch.float32, device=device)
    origin = distance * torch.cat([phi.sin() * theta.cos(), phi.cos(), phi.sin() * theta.sin()], dim=1)
    return cam2world_from_forward(target - origin, origin)


def cam2world_from_forward(forward: Tensor, origin: Tensor) -> Tensor:
    """Upright cameras at `origin` [N, 3] that look along `forward` [N, 3]: [N, 4, 4]."""
    forward = _unit(forward)
    up = torch.tensor([0.0, 1.0, 0.0], device=forward.device).expand_as(forward)
    right = -_unit(torch.linalg.cross(up, forward))
    up = _unit(torch.linalg.cross(forward, right))
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=forward.device).expand(len(forward), 1, 4)
    return torch.cat([torch.stack([right, up, forward, origin], dim=2), bottom], dim=1)


def sample_cam2world(
    n: int,
    *,
    h_mean: float = math.pi / 2,
    v_mean: float = math.pi / 2,
    h_std: float = 0.0,
    v_std: float = 0.0,
    pivot: Pivot = (0.0, 0.0, 0.0),
    radius: float = 2.7,
    distribution: Literal["gaussian", "uniform"] = "gaussian",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random look-at cameras [n, 4, 4] about (h_mean, v_mean); a uniform one's `std` is half its width."""
    cpu = torch.device("cpu")
    if distribution == "gaussian":
        dh, dv = (draw(torch.randn, (n, 1), generator, cpu) for _ in range(2))
    else:
        dh, dv = (draw(torch.rand, (n, 1), generator, cpu) * 2 - 1 for _ in range(2))
    return lookat_cam2world(dh * h_std + h_mean, dv * v_std + v_mean, pivot, radius)


def camera_label(
    yaw: float | Tensor,
    pitch: float | Tensor = 0.0,
    radius: float | Tensor = 2.7,
    pivot: Pivot = (0.0, 0.0, 0.0),
    fov: float = FOV,
) -> Tensor:
    """Labels c [N, 25] of `lookat_cam2world`'s cameras at h = pi / 2 + yaw and v = pi / 2 + pitch."""
    yaw, pitch = torch.as_tensor(yaw), torch.as_tensor(pitch)
    cam2world = lookat_cam2world(math.pi / 2 + yaw, math.pi / 2 + pitch, pivot, radius)
    return make_label(cam2world, fov_to_intrinsics(fov).to(cam2world.device))


def make_label(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """cam2world [N, 4, 4] and intrinsics [3, 3] or [N, 3, 3] -> c [N, 25]."""
    n = len(cam2world)
    return torch.cat([cam2world.reshape(n, 16), intrinsics.expand(n, 3, 3).reshape(n, 9)], dim=1)


def split_label(c: Tensor) -> tuple[Tensor, Tensor]:
    """c [N, 25] -> cam2world [N, 4, 4], intrinsics [N, 3, 3]."""
    return c[:, :16].reshape(-1, 4, 4), c[:, 16:25].reshape(-1, 3, 3)


def rays(cam2world: Tensor, intrinsics: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions, [N, R * R, 3] each, through the pixels' centres row by row.

    The homogeneous product comes first and the origin is subtracted after it: the other order is equal on
    paper and moves the reference's pictures by 2e-4.
    """
    n, device = len(cam2world), cam2world.device
    fx, fy = intrinsics[:, 0, 0:1], intrinsics[:, 1, 1:2]
    cx, cy, skew = intrinsics[:, 0, 2:3], intrinsics[:, 1, 2:3], intrinsics[:, 0, 1:2]
    centres = (torch.arange(resolution, dtype=torch.float32, device=device) + 0.5) / resolution
    v, u = (grid.reshape(1, -1).expand(n, -1) for grid in torch.meshgrid(centres, centres, indexing="ij"))
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    y = (v - cy) / fy
    points = torch.stack([x, y, torch.ones_like(x), torch.ones_like(x)], dim=1)
    world = torch.bmm(cam2world, points)[:, :3].transpose(1, 2)
    origins = cam2world[:, None, :3, 3].expand(-1, resolution**2, -1)
    return origins, F.normalize(world - origins, dim=2)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)
