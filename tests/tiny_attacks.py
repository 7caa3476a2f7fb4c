"""A case on the random model of `tiny_erasure`: nothing in it resembles a face, and it takes no time."""

from __future__ import annotations

import dataclasses
from typing import Any

import tiny_erasure as tiny
import torch
from torch import Tensor

from guide_hub.attacks.base import Case
from guide_hub.attacks.budget import QUICK, Budget
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.latents import LatentSpace
from guide_hub.networks import NetworkNames, Networks
from guide_hub.recipe import load_recipe

LEAST = dataclasses.replace(
    QUICK, yaws=3, ball=2, line=3, mixed=1, draws=6, candidates=3, lookalikes=2, drift_samples=6,
    mirror_steps=2, restarts=2, w_steps=1, wplus_steps=1, tuning_steps=2, tuning_controls=1, benign_steps=1,
    beacon_restarts=2, beacon_steps=2, decoys=2, strangers=1,
)  # fmt: skip


class Centred:
    """In place of a recogniser: a picture's coarse pixels, less those of the mean face, so people differ."""

    def __init__(self, mean: Tensor):
        self.mean = torch.nn.functional.avg_pool2d(mean, 8)

    def __call__(self, images: Tensor) -> Tensor:
        coarse = torch.nn.functional.avg_pool2d(images, 8) - self.mean
        return torch.nn.functional.normalize(coarse.flatten(1), dim=1)


def model(seed: int = 1) -> EG3D:
    """The tiny model; another seed is another model, which shows none of the first one's people."""
    torch.manual_seed(seed)
    return EG3D(tiny.config()).eval().requires_grad_(False)


def case(erased: EG3D | None = None, threshold: float = 0.99, budget: Budget = LEAST, **more: Any) -> Case:
    """A random person of `model()` and a held-out photo; by default the person was not erased at all."""
    source, recipe = model(), load_recipe("heads-fast")
    space, front = LatentSpace(source), yaw_cameras(source, recipe.camera, 1)
    w_u = space.random(1, torch.Generator().manual_seed(3))
    ws = torch.cat([w_u, w_u + 1e-3])
    photos = render_views(source, ws, front)[:, 0]
    mean = render_views(source, space.w_avg, front)[:, 0]
    networks = Networks(
        NetworkNames("loss", "judge", "distance", None), Centred(mean), Centred(mean), tiny.Pixels(), None
    )
    return Case(source, erased or model(), recipe, networks, ws, photos, 1, threshold, **more)
