"""A photo's crop to a latent and a camera: inversion encoders behind one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from guide_hub.latents import LatentSpace


class InversionEncoder(Protocol):
    """A network that looks at photos once.

    EG3D crops [P, 3, H, W] in [-1, 1] -> ws [P, num_ws, w_dim] of the model, and pose [P, 3] (yaw, pitch,
    roll in radians). InputError: it was not made for such a model.
    """

    def start(self, crops: Tensor, space: LatentSpace) -> tuple[Tensor, Tensor]: ...
