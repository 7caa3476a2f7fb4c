"""Photos to latents: the encoder's start, refined until the picture matches (GUIDE's `E`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.inversion import InversionEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.inversion.pose import pose_label
from guide_hub.inversion.projector import refine
from guide_hub.latents import LatentSpace
from guide_hub.recipe import Inversion as Options


@dataclass(frozen=True)
class Inversion:
    """One latent and camera a photo: ws [P, num_ws, w_dim], c [P, 25]."""

    ws: Tensor
    c: Tensor


class Inverter:
    """Inverts EG3D crops [P, 3, H, W] in [-1, 1] into one model.

    With an encoder network the start is its answer; without one it is `w_avg` and the frontal camera.
    `optimize` ignores the encoder, `encoder` skips the refinement, `auto` does both.
    InputError: `encoder` without a network for it.
    """

    def __init__(
        self,
        model: EG3D,
        options: Options,
        perceptual: PerceptualDistance,
        identity: IdentityEncoder,
        encoder: InversionEncoder | None = None,
    ):
        if options.backend == "encoder" and encoder is None:
            raise InputError(
                "inversion.backend is encoder, but neither the recipe nor the model's config.json names an "
                "inversion network",
                remedy="name one in networks.inversion, or set inversion.backend to auto or optimize",
            )
        self.model, self.options = model, options
        self.perceptual, self.identity = perceptual, identity
        self.encoder = None if options.backend == "optimize" else encoder
        self.space = LatentSpace(model)

    def __call__(self, crops: Tensor) -> Inversion:
        ws, pose = self.start(crops)
        if self.options.backend != "encoder":
            ws, pose = refine(
                self.model, crops, ws, pose, self.perceptual, self.identity,
                steps=self.options.steps, lr=self.options.lr * self.space.median_offset(),
            )  # fmt: skip
        return Inversion(ws, pose_label(pose))

    @torch.no_grad()
    def start(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """ws [P, num_ws, w_dim] and pose [P, 3] (yaw, pitch, roll in radians) before the refinement."""
        if self.encoder is not None:
            return self.encoder.start(crops, self.space)
        n = len(crops)
        return self.space.w_avg.repeat(n, 1, 1), torch.zeros(n, 3, device=crops.device)
