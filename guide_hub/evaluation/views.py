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


def yaw_cameras(model: EG3D, camera: Camera, views: int) -> Tensor:
    """GUIDE's evaluation cameras about the recipe's orbit: c [views, 25]."""
    yaws = torch.linspace(-YAW, YAW, views) if views > 1 else torch.zeros(1)
    return orbit_label(model.config, camera, yaws).to(model.w_avg.device)


@torch.no_grad()
def render_views(model: EG3D, ws: Tensor, c: Tensor, batch: int = BATCH, rays: int | None = None) -> Tensor:
    """Every latent from every camera: ws [N, num_ws, w_dim], c [V, 25] -> [N, V, 3, H, W] in [-1, 1].

    `rays`: the side of the pictures before super-resolution, None: the model's.
    """
    people = []
    for w in ws.split(1):
        planes = model.planes(w, noise_mode="const")
        images = [
            model.render(
                planes.expand(len(part), *planes.shape[1:]),
                w.expand(len(part), -1, -1),
                part,
                deterministic=True,
                neural_rendering_resolution=rays,
            )["image"]
            for part in c.split(batch)
        ]
        people.append(torch.cat(images).clamp(-1, 1))
    return torch.stack(people)


@torch.no_grad()
def embed_views(
    model: EG3D, ws: Tensor, c: Tensor, judge: IdentityEncoder, batch: int = BATCH, rays: int | None = None
) -> Tensor:
    """Unit embeddings of every latent from every camera: [N, V, E]. Pictures are not kept."""
    return torch.stack([judge(render_views(model, w, c, batch, rays)[0]) for w in ws.split(1)])
