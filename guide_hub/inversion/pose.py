"""A photo's camera as three angles about the face's centre, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_hub.eg3d.camera import FOV, cam2world_from_forward, fov_to_intrinsics, make_label

FACE_CENTRE = (0.0, 0.006, 0.161)  # the origin of EG3D's five standard points: the middle of its crop
RADIUS = 2.7


def pose_label(pose: Tensor, radius: float = RADIUS, fov: float = FOV) -> Tensor:
    """pose [N, 3] (yaw, pitch, roll in radians; positive pitch looks down from above) -> c [N, 25].

    The camera stands on the sphere of `radius` about the origin and looks at the face's centre, which is
    where EG3D's in-the-wild crop puts the middle of the picture.
    """
    yaw, pitch, roll = pose.unbind(1)
    direction = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=1)
    origin = radius * direction
    centre = torch.tensor(FACE_CENTRE, device=pose.device)
    upright = cam2world_from_forward(centre - origin, origin)
    right, down = upright[:, :, 0:1], upright[:, :, 1:2]
    cos, sin = roll.cos().view(-1, 1, 1), roll.sin().view(-1, 1, 1)
    turned = torch.cat([cos * right + sin * down, cos * down - sin * right, upright[:, :, 2:]], dim=2)
    return make_label(turned, fov_to_intrinsics(fov).to(pose.device))
