"""A request's photos as EG3D crops with their cameras. All photos that cannot be used are named at once, by
place in the request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guide_hub.errors import InputError, Problem
from guide_hub.faces import detection, quality
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.detection import Detector, Face
from guide_hub.faces.pose import Pose, fit_camera
from guide_hub.request import Identity, Photo


@dataclass(frozen=True)
class FaceCrop:
    """A photo's face in EG3D's frame: `image` [3, size, size] in [-1, 1] and the camera that saw it."""

    photo: Photo
    image: Tensor
    pose: Pose

    @property
    def key(self) -> str:
        """The photo's place in the request, such as identities[0].images[1]."""
        return self.photo.key


@dataclass
class Reading:
    """What was found in a photo, as far as it went, and all that speaks against using it."""

    photo: Photo
    face: Face | None = None
    sharpness: float | None = None
    crop: FaceCrop | None = None
    problems: tuple[Problem, ...] = ()


def read_photo(photo: Photo, detector: Detector, size: int, device: torch.device) -> Reading:
    """Finds, judges and crops the photo's face. Nothing about the photo is raised: see `problems`."""
    reading = Reading(photo)
    try:
        image = photo.open()
        reading.face = face = detector.find(image, photo.face)
        crop = eg3d_crop(image, face.points, size)
        pose = fit_camera(crop.points, size)
        reading.crop = FaceCrop(photo, to_tensor(np.asarray(crop.image)).to(device), pose)
        reading.sharpness = quality.sharpness(image, face.points)
        found = detection.faults(face, image.size)
        # of a face that may be none, or of a few pixels, pose and blur say nothing
        found = found or quality.faults(pose, reading.sharpness)
    except InputError as error:
        found = error.problems
    reading.problems = tuple(p if p.line else photo.problem(p.message, p.remedy) for p in found)
    return reading


def read_photos(identities: Iterable[Identity], size: int, device: torch.device) -> Iterator[list[Reading]]:
    """`read_photo` of each identity's photos, in order."""
    detector = Detector(device)
    for identity in identities:
        yield [read_photo(photo, detector, size, device) for photo in identity.images]


def read_faces(identities: Iterable[Identity], size: int, device: torch.device) -> list[list[FaceCrop]]:
    """The crops of each identity's photos, `size` pixels wide, in order.

    InputError names every photo that cannot be used, with its line and column.
    """
    people, problems = [], []
    for readings in read_photos(identities, size, device):
        people.append([reading.crop for reading in readings if reading.crop is not None])
        problems += [problem for reading in readings for problem in reading.problems]
    if problems:
        raise InputError(*problems)
    return people


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> [3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
