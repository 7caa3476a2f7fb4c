"""A request's photos as EG3D crops. All photos that cannot be used are named at once, by place in the
request."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guide_hub.errors import InputError
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.detection import Detector, smallest_face
from guide_hub.request import Request


def load_crops(request: Request, size: int, device: torch.device) -> list[Tensor]:
    """One tensor [photos, 3, size, size] in [-1, 1] an identity, in the request's order."""
    detector = Detector(device)
    people, problems = [], []
    for identity in request.identities:
        crops = []
        for photo in identity.images:
            try:
                image = photo.open()
                face = detector.one_face(image, photo.face, min_size=smallest_face(size))
                crops.append(eg3d_crop(image, face.points, size).image)
            except InputError as error:
                at_photo = [p if p.line else photo.problem(p.message, p.remedy) for p in error.problems]
                problems.extend(at_photo)
        if crops:
            people.append(torch.stack([to_tensor(np.asarray(crop)) for crop in crops]).to(device))
    if problems:
        raise InputError(*problems)
    return people


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> [3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
