"""The orbit that a recipe names, about one model: GUIDE's training and evaluation cameras."""

from __future__ import annotations

from torch import Tensor

from guide_hub.eg3d import EG3DConfig
from guide_hub.eg3d.camera import camera_label
from guide_hub.recipe import Camera


def orbit_label(config: EG3DConfig, camera: Camera, yaw: float | Tensor) -> Tensor:
    """Cameras at `yaw` [N] (radians off the front) on the recipe's orbit: c [N, 25]."""
    rendering = config.rendering
    pivot = (0.0, 0.0, 0.0) if camera.pivot == "origin" else rendering.avg_camera_pivot
    radius = camera.radius or rendering.avg_camera_radius
    return camera_label(yaw, camera.pitch, radius, pivot, camera.fov)
