"""An attacker's search for the person in the student as it is; what it finds joins the training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guide_hub.guide.latents import neighbour_offset
from guide_hub.orbit import orbit_label

if TYPE_CHECKING:
    from guide_hub.guide.eraser import Eraser, Erasure

FIRST_STEP = 0.1  # its length in W+, in medians of ||w - w_avg||
PRIOR = 0.1  # of (distance from w_avg in those medians, beyond the person's own) ** 2: faces, no patterns


def mine(eraser: Eraser, erasure: Erasure, steps: int, seed: int) -> Tensor:
    """A latent of W+ [1, num_ws, w_dim] where the student still shows the person, as the loss's recogniser
    sees it: Adam from a point of the person's ball, under a new yaw each step. The student stays as it is.
    """
    recipe, space, student = eraser.recipe, eraser.space, eraser.student
    rng = torch.Generator().manual_seed(seed)
    person, unit = eraser.shown(erasure), eraser.median
    alpha = torch.rand(1, generator=rng) * eraser.alpha_max
    direction = torch.randn(erasure.w_u.shape, generator=rng).to(erasure.w_u)
    offset = neighbour_offset(erasure.w_u, erasure.w_u + direction, alpha, recipe.target.norm)
    w = (erasure.w_u + offset).detach().requires_grad_(True)
    free = _far(erasure.w_u, space.w_avg, unit)
    adam = torch.optim.Adam([w], lr=FIRST_STEP * unit / math.sqrt(w.numel()))
    for p in eraser.parameters:
        p.requires_grad_(False)
    try:
        for _ in range(steps):
            yaw = (2 * float(torch.rand((), generator=rng)) - 1) * recipe.camera.yaw_range
            c = orbit_label(student.config, recipe.camera, yaw).to(space.device)
            planes = student.planes(w, noise_mode="const")
            picture = student.render(
                planes, w, c, deterministic=True, neural_rendering_resolution=recipe.speed.rays
            )["image"]
            unlike = 1 - (eraser.loss.identity(picture) @ person.T).mean()
            loss = unlike + PRIOR * (_far(w, space.w_avg, unit) - free).clamp(min=0).square()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
    finally:
        for p in eraser.parameters:
            p.requires_grad_(True)
    return w.detach()


def _far(w: Tensor, w_avg: Tensor, unit: float) -> Tensor:
    return (w - w_avg).square().sum().sqrt() / unit
