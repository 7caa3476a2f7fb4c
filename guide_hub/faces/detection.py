"""Faces and their five landmarks in a photo: MTCNN, whose weights come inside the facenet-pytorch package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from guide_hub.errors import InputError, Problem

MIN_PROBABILITY = 0.9  # EG3D's own preprocessing rejects less
SURE = 0.99  # MTCNN finds faces that lie on their side or stand on their head too, but seldom as surely
MIN_SIZE = 64
MIN_INSIDE = 0.75  # of the box's area within the photo
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

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def contains(self, x: float, y: float) -> bool:
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


class Detector:
    """MTCNN (arXiv 1604.02878), built at its first use; the same photo always gives the same faces."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._network: Any = None

    def detect(self, image: Image.Image) -> list[Face]:
        """All faces, largest first; an empty list where there is none."""
        whole, image = image.size, _reduced(image.convert("RGB"))
        scales = np.array(image.size) / np.array(whole)
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

    def find(self, image: Image.Image, face_hint: tuple[float, float] | None = None) -> Face:
        """The one face of a photo, or the one that holds the pixel `face_hint` (x, y), good or not.

        InputError, without naming the photo: no face, several faces and no hint, none at the hint, a face
        that is not upright. Uncertain faces, those below `MIN_SIZE` and those far smaller than the largest
        do not count as several: they are bystanders and false alarms.
        """
        faces = self.detect(image)
        face = _choose(faces, face_hint) if faces else None
        if face is None or face.probability < SURE:
            turn = self._turn(image, face)
            if turn:
                how = "stands on its head" if turn == 180 else "lies on its side"
                raise InputError(f"shows a face that {how}", remedy="turn the photo upright")
        if face is None:
            raise InputError("shows no face", remedy="use a sharp, well lit photo, cut to the whole head")
        return face

    def one_face(self, image: Image.Image, face_hint: tuple[float, float] | None = None) -> Face:
        """`find`, and InputError too where the face has `faults`."""
        face = self.find(image, face_hint)
        problems = faults(face, image.size)
        if problems:
            raise InputError(*problems)
        return face

    def _turn(self, image: Image.Image, face: Face | None) -> int:
        """The quarter turn in degrees after which a face, `face` where given, is found far more surely."""
        small = _reduced(image)
        scale = image.width / small.width
        for turn in (180, 90, 270):
            for other in self.detect(small.rotate(turn, expand=True)):
                x, y = _turned_back(other.centre, turn, small.size)
                if other.probability >= SURE and (face is None or face.contains(x * scale, y * scale)):
                    return turn
        return 0


def _reduced(image: Image.Image) -> Image.Image:
    scale = min(1.0, MAX_SIDE / max(image.size))
    if scale == 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _turned_back(point: tuple[float, float], turn: int, size: tuple[int, int]) -> tuple[float, float]:
    """Where a point of the picture turned by `turn` degrees lies in the picture of `size` (w, h) itself."""
    (x, y), (width, height) = point, size
    if turn == 180:
        return width - x, height - y
    return (width - y, x) if turn == 90 else (y, height - x)


def _choose(faces: list[Face], face_hint: tuple[float, float] | None) -> Face:
    if face_hint is not None:
        return _at(faces, face_hint)
    certain = [face for face in faces if face.probability >= MIN_PROBABILITY]
    subject = max(MIN_SIZE, BYSTANDER * certain[0].size) if certain else 0
    several = [face for face in certain if face.size >= subject]
    if len(several) > 1:
        raise InputError(
            f"shows {len(several)} faces",
            remedy="point at one with `face: [x, y]` (pixels) beside the photo's path in the request",
        )
    return certain[0] if certain else faces[0]


def faults(face: Face, size: tuple[int, int]) -> list[Problem]:
    """Why a face in a photo of `size` (w, h) cannot be used: uncertain, small, cut off; empty if it can."""
    found = []
    if face.probability < MIN_PROBABILITY:
        found.append(
            Problem(
                f"shows a face that is uncertain ({face.probability:.2f}, at least {MIN_PROBABILITY:.2f})",
                "use a sharper photo with less of the face hidden",
            )
        )
    if face.size < MIN_SIZE:
        found.append(
            Problem(
                f"shows a face of only {face.size:.0f} pixels (at least {MIN_SIZE})", "use a larger photo"
            )
        )
    left, top, right, bottom = face.box
    inside = (min(right, size[0]) - max(left, 0)) * (min(bottom, size[1]) - max(top, 0))
    points_inside = ((face.points >= 0) & (face.points <= size)).all()
    if inside < MIN_INSIDE * (right - left) * (bottom - top) or not points_inside:
        found.append(
            Problem("shows a face that the photo's edge cuts off", "use a photo that shows the whole head")
        )
    return found


def _at(faces: list[Face], point: tuple[float, float]) -> Face:
    """The face whose box holds the point; of overlapping ones the one whose centre is nearest."""
    holding = [face for face in faces if face.contains(*point)]
    if not holding:
        raise InputError(
            "shows no face at the pixel that `face` gives",
            remedy=f"{len(faces)} found elsewhere; check `face: [x, y]` in the request",
        )
    return min(holding, key=lambda face: float(np.hypot(*np.subtract(face.centre, point))))
