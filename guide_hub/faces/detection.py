"""Faces and their five landmarks in a photo: MTCNN, whose weights come inside the facenet-pytorch package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from guide_hub.errors import InputError

MIN_PROBABILITY = 0.9  # EG3D's own preprocessing rejects less
MIN_SIZE = 64
BYSTANDER = 0.4  # of the largest face's size
SMALLEST = 20  # pixels: what the detector looks for at all
MAX_SIDE = 1600  # larger photos are searched reduced: MTCNN needs no more, and its pyramid costs by the pixel


@dataclass(frozen=True)
class Face:
    """A detected face. `box` (left, top, right, bottom) and `points` [5, 2] are in the photo's pixels.

    Points: left eye, right eye, nose tip, mouth left, mouth right, left and right as they lie in the picture.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    probability: float

    @property
    def size(self) -> float:
        """The shorter side of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    def contains(self, x: float, y: float) -> bool:
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


def smallest_face(resolution: int) -> float:
    """What `min_size` suits a model of that resolution: an EG3D frame's face is half as wide as the frame."""
    return min(MIN_SIZE, 3 / 8 * resolution)


class Detector:
    """MTCNN (arXiv 1604.02878), built at its first use; the same photo always gives the same faces."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._network: Any = None

    def detect(self, image: Image.Image) -> list[Face]:
        """All faces, largest first; an empty list where there is none."""
        image = image.convert("RGB")
        scale = min(1.0, MAX_SIDE / max(image.size))
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            scales = np.array([size[0] / image.width, size[1] / image.height])
            image = image.resize(size, Image.Resampling.BILINEAR)
        else:
            scales = np.ones(2)
        if min(image.size) < SMALLEST:
            return []
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxes, probabilities, points = self._mtcnn().detect(image, landmarks=True)
        if boxes is None:
            return []
        faces = []
        for box, probability, five in zip(boxes, probabilities, points, strict=True):
            left, top, right, bottom = np.asarray(box, np.float64) / np.tile(scales, 2)
            landmarks = np.asarray(five, np.float64) / scales
            sides = (float(left), float(top), float(right), float(bottom))
            faces.append(Face(sides, landmarks, float(probability)))
        return sorted(faces, key=lambda face: -face.size)

    def _mtcnn(self) -> Any:
        if self._network is None:
            from facenet_pytorch import MTCNN

            self._network = MTCNN(keep_all=True, device=self.device, min_face_size=SMALLEST)
            self._network.eval().requires_grad_(False)
        return self._network

    def one_face(
        self,
        image: Image.Image,
        face_hint: tuple[float, float] | None = None,
        *,
        min_probability: float = MIN_PROBABILITY,
        min_size: float = MIN_SIZE,
    ) -> Face:
        """The one face of a photo, or the one that holds the pixel `face_hint` (x, y).

        InputError, without naming the photo: no face, several faces and no hint, none at the hint, a
        detection below `min_probability`, a box whose shorter side is below `min_size` pixels. Uncertain
        faces, those below `min_size` and those far smaller than the largest do not count as several: they
        are bystanders and false alarms.
        """
        faces = self.detect(image)
        if not faces:
            raise InputError("shows no face", remedy="use a sharp, well lit photo of the whole face")
        if face_hint is not None:
            face = _at(faces, face_hint)
        else:
            certain = [face for face in faces if face.probability >= min_probability]
            subject = max(min_size, BYSTANDER * certain[0].size) if certain else 0
            several = [face for face in certain if face.size >= subject]
            if len(several) > 1:
                raise InputError(
                    f"shows {len(several)} faces",
                    remedy="point at one with `face: [x, y]` (pixels) beside the photo's path in the request",
                )
            face = certain[0] if certain else faces[0]
        if face.probability < min_probability:
            raise InputError(
                f"shows a face that is uncertain ({face.probability:.2f}, at least {min_probability:.2f})",
                remedy="use a sharper photo with less of the face hidden",
            )
        if face.size < min_size:
            raise InputError(
                f"shows a face of only {face.size:.0f} pixels (at least {min_size:.0f})",
                remedy="use a larger photo",
            )
        return face


def _at(faces: list[Face], point: tuple[float, float]) -> Face:
    """The face whose box holds the point; of overlapping ones the one whose centre is nearest."""
    holding = [face for face in faces if face.contains(*point)]
    if not holding:
        raise InputError(
            "shows no face at the pixel that `face` gives",
            remedy=f"{len(faces)} found elsewhere; check `face: [x, y]` in the request" if faces else "",
        )

    def distance(face: Face) -> float:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        return float(np.hypot(x - point[0], y - point[1]))

    return min(holding, key=distance)
