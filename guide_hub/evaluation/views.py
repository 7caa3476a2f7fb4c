"""Rendering people for measurement: fixed cameras, no noise, no jitter, so that figures repeat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.orbit import orbit_label
from guide_hub.recipe import Camera

YAW = math.pi / 12  # GUIDE's evaluation: yaws linspace(-pi/12, pi/12)
BATCH = 8
GPU_PIXELS = 64 * 128 * 128  # in one batch on a GPU, which is idle with fewer


def yaw_cameras(model: EG3D, camera: Camera, views: int) -> Tensor:
    """GUIDE's evaluation cameras about the recipe's orbit: c [views, 25]."""
    yaws = torch.linspace(-YAW, YAW, views) if views > 1 else torch.zeros(1)
    return orbit_label(model.config, camera, yaws).to(model.w_avg.device)


@torch.no_grad()
def render_views(model: EG3D, ws: Tensor, c: Tensor, batch: int = BATCH, rays: int | None = None) -> Tensor:
    """Every latent from every camera: ws [N, num_ws, w_dim], c [V, 25] -> [N, V, 3, H, W] in [-1, 1].

    `batch` pictures at a time, also of several latents; on a GPU it may be more. `rays`: the side of the
    pictures before super-resolution, None: the model's.
    """
    views, found = len(c), []
    batch = _room(model, ws, batch)
    for some in ws.split(max(1, batch // views)):
        planes = model.planes(some, noise_mode="const")
        cameras = range(0, views, batch)
        parts = [_render(model, planes, some, c[k : k + batch], rays) for k in cameras]
        found.append(torch.cat(parts, 1).clamp(-1, 1))
    return torch.cat(found)


def _room(model: EG3D, ws: Tensor, batch: int) -> int:
    """Pictures in one batch: on a GPU as many as fit, if that is more."""
    return max(batch, GPU_PIXELS // model.config.img_resolution**2) if ws.is_cuda else batch


def _render(model: EG3D, planes: Tensor, ws: Tensor, c: Tensor, rays: int | None) -> Tensor:
    """planes [N, ...] of ws from each of c [V, 25]: [N, V, 3, H, W]."""
    n, views = len(ws), len(c)
    if n == 1:  # without copies
        planes, ws = planes.expand(views, *planes.shape[1:]), ws.expand(views, -1, -1)
    else:
        planes, ws, c = planes.repeat_interleave(views, 0), ws.repeat_interleave(views, 0), c.repeat(n, 1)
    images = model.render(planes, ws, c, deterministic=True, neural_rendering_resolution=rays)["image"]
    return images.unflatten(0, (n, views))


@torch.no_grad()
def embed_views(
    model: EG3D, ws: Tensor, c: Tensor, judge: IdentityEncoder, batch: int = BATCH, rays: int | None = None
) -> Tensor:
    """Unit embeddings of every latent from every camera: [N, V, E]. Pictures are not kept."""
    people = ws.split(max(1, _room(model, ws, batch) // len(c)))
    pictures = (render_views(model, some, c, batch, rays) for some in people)
    return torch.cat([judge(p.flatten(0, 1)).unflatten(0, p.shape[:2]) for p in pictures])
