"""Photos to latents: the encoder's start, refined until the picture matches (GUIDE's `E`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.inversion import InversionEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.inversion.pose import pose_label
from guide_hub.inversion.projector import Schedule, refine, refine_person
from guide_hub.latents import LatentSpace
from guide_hub.recipe import Inversion as Options


@dataclass(frozen=True)
class Inversion:
    """One latent and camera a photo: ws [P, num_ws, w_dim], pose [P, 3] (yaw, pitch, roll in radians).

    `shared` [1, num_ws, w_dim] is what a joint fit found of the person beside each photo's expression and
    light; None where every photo was fitted for itself.
    """

    ws: Tensor
    pose: Tensor
    shared: Tensor | None = None

    @property
    def c(self) -> Tensor:
        """The cameras [P, 25]."""
        return pose_label(self.pose)


class Inverter:
    """Inverts EG3D crops [P, 3, H, W] in [-1, 1] into one model.

    With an encoder network the start is its answer; without one it is `w_avg`. `optimize` ignores the
    encoder, `encoder` skips the refinement, `auto` does both. InputError: `encoder` without a network for it.
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

    def __call__(self, crops: Tensor, poses: Tensor | None = None, *, joint: bool = False) -> Inversion:
        """`poses` [P, 3]: angles from the landmarks, where the camera starts if no encoder finds it.

        `joint`: the photos are of one person. They get one latent, `shared`, and a small offset and a camera
        each.
        """
        start = Inversion(*self.start(crops, poses))
        if self.options.backend == "encoder":
            return replace(start, shared=start.ws.mean(0, keepdim=True)) if joint else start
        return self._refined(crops, start, joint, self._schedule(camera_steps=self.options.camera_steps))

    def more(self, crops: Tensor, found: Inversion) -> Inversion:
        """`more_steps` in W+ from what was found, jointly if that was; with `encoder` there is none."""
        if self.options.backend == "encoder":
            return found
        schedule = self._schedule(steps=0, wplus_steps=self.options.more_steps)
        return self._refined(crops, found, found.shared is not None, schedule)

    def of_latent(self, latent: Tensor, crops: Tensor, poses: Tensor | None = None) -> Inversion:
        """The person is given, latent [1, num_ws, w_dim]: only the photos' cameras are fitted."""
        ws = latent.to(self.space.device).expand(len(crops), -1, -1)
        pose = self._poses(crops, poses)
        schedule = self._schedule(steps=0, wplus_steps=0, camera_steps=max(1, self.options.camera_steps))
        _, pose = refine(self.model, crops, ws, pose, self.perceptual, self.identity, schedule)
        return Inversion(ws, pose, latent)

    @torch.no_grad()
    def start(self, crops: Tensor, poses: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """ws [P, num_ws, w_dim] and pose [P, 3] (yaw, pitch, roll in radians) before the refinement."""
        given = self._poses(crops, poses)
        if self.encoder is None:
            return self.space.w_avg.repeat(len(crops), 1, 1), given
        ws, pose = self.encoder.start(crops, self.space)
        return ws, torch.where(pose.any(1, keepdim=True), pose, given)  # exactly frontal: it finds no camera

    def _poses(self, crops: Tensor, poses: Tensor | None) -> Tensor:
        return torch.zeros(len(crops), 3, device=crops.device) if poses is None else poses.to(crops)

    def _schedule(self, **changes: int) -> Schedule:
        options, scale = self.options, self.space.median_offset()
        schedule = Schedule(
            options.steps, options.lr * scale, scale, wplus_steps=options.wplus_steps, noise=options.noise
        )  # fmt: skip
        return replace(schedule, **changes)

    def _refined(self, crops: Tensor, start: Inversion, joint: bool, schedule: Schedule) -> Inversion:
        networks = (self.perceptual, self.identity)
        if joint:
            return Inversion(
                *refine_person(self.model, crops, start.ws, start.pose, *networks, schedule, start.shared)
            )
        return Inversion(*refine(self.model, crops, start.ws, start.pose, *networks, schedule))
