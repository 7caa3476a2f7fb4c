"""Optimisation of a latent and its camera against a photo (EG3D's projector), in W or in W+."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.inversion.pose import pose_label

POSE_LR = 5e-3  # radians that a first step turns each angle by
L2_WEIGHT = 1.0  # of the mean squared error over the face, pictures in [-1, 1]; the perceptual distance has 1
IDENTITY_WEIGHT = 1.0  # of 1 - cosine
CHUNK, CHUNK_SIZE = 8, 128  # photos in one graph, at that picture size; fewer in proportion to the pixels


def refine(
    model: EG3D,
    photos: Tensor,
    ws: Tensor,
    pose: Tensor,
    perceptual: PerceptualDistance,
    identity: IdentityEncoder,
    steps: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """Adam on w and pose: photos [P, 3, H, W], ws [P, num_ws, w_dim], pose [P, 3].

    A start whose rows are alike stays in W, one row for all layers; one whose rows differ is fitted in W+,
    each row for itself. `lr` is the length of a first step of w (whole-tensor norm). Rays and noise are
    deterministic, the model's parameters take no gradient. Photos do not share anything, so they are fitted
    a few at a time.
    """
    if steps == 0:
        return ws, pose
    if torch.allclose(ws, ws[:, :1]):
        ws = ws[:, :1]
    chunk = chunk_of(model.config.img_resolution)
    fitted = [
        _refine(model, *part, perceptual, identity, steps, lr)
        for part in zip(photos.split(chunk), ws.split(chunk), pose.split(chunk), strict=True)
    ]
    found, angles = zip(*fitted, strict=True)
    return torch.cat(found), torch.cat(angles)


def chunk_of(size: int) -> int:
    """How many photos of `size` pixels a side go through one graph: 8 at 128, 1 at 512."""
    return max(1, round(CHUNK * (CHUNK_SIZE / size) ** 2))


def _refine(
    model: EG3D,
    photos: Tensor,
    ws: Tensor,
    pose: Tensor,
    perceptual: PerceptualDistance,
    identity: IdentityEncoder,
    steps: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    size = model.config.img_resolution
    # half the resolution, which EG3D's training passes through, takes half the time
    rays = max(model.config.neural_rendering_resolution // 2, 1)
    target = torch.nn.functional.interpolate(photos, (size, size), mode="bilinear", antialias=True)
    mask = centre_mask(size).to(target)
    with torch.no_grad():
        wanted = identity(target)
    w, angles = ws.clone().requires_grad_(), pose.clone().requires_grad_()
    rate = lr / math.sqrt(ws.shape[2] * model.num_ws)
    optimizer = torch.optim.Adam(
        [{"params": [w], "lr": rate}, {"params": [angles], "lr": POSE_LR}], betas=(0.9, 0.99)
    )
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        for step in range(steps):
            for group, peak in zip(optimizer.param_groups, (rate, POSE_LR), strict=True):
                group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
            image = model.synthesis(
                w.expand(-1, model.num_ws, -1),
                pose_label(angles),
                deterministic=True,
                neural_rendering_resolution=rays,
            )["image"]
            l2 = ((image - target).square() * mask).flatten(1).mean(1)
            alike = 1 - (identity(image) * wanted).sum(1)
            loss = perceptual(image * mask, target * mask) + L2_WEIGHT * l2 + IDENTITY_WEIGHT * alike
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
    finally:
        for p in frozen:
            p.requires_grad_(True)
    return w.detach().expand(-1, model.num_ws, -1).contiguous(), angles.detach()


def centre_mask(size: int) -> Tensor:
    """1 over the face, 0 towards the corners, [1, 1, size, size]: a photo's ground is none of the person."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r = torch.sqrt((x / 0.75) ** 2 + ((y - 0.05) / 0.95) ** 2)
    return (1 - ((r - 0.9) / 0.2).clamp(0, 1))[None, None]
