"""Who is in a picture: identity encoders behind one call, pictures in, unit embeddings out.

Pictures are EG3D-framed. Every encoder brings its own preprocessing; gradients flow through it to the
pictures.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from guide_hub.faces.alignment import ARCFACE_TEMPLATE, similarity_warp
from guide_hub.faces.detection import Detector
from guide_hub.faces.pose import frontal_points


class IdentityEncoder(Protocol):
    """Pictures [N, 3, H, W] in [-1, 1] -> unit embeddings [N, E], compared by their dot product."""

    def __call__(self, images: Tensor) -> Tensor: ...


class PspEncoder(nn.Module):
    """IR-SE50 as pSp and e4e feed it: values are not clamped, a fixed crop stands for alignment."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images, (256, 256), mode="bilinear", align_corners=False)
        return self.network(F.adaptive_avg_pool2d(x[:, :, 35:223, 32:220], 112))


class AlignedEncoder(nn.Module):
    """A recogniser of the ArcFace frame (CurricularFace): landmarks are moved onto the 112 px template.

    MTCNN finds them; where it sees no face, those of the mean face from the front stand in. GUIDE's
    evaluation does the same with a detector of its own.
    """

    def __init__(self, network: nn.Module, detector: Detector) -> None:
        super().__init__()
        self.network = network
        self.detector = detector

    def forward(self, images: Tensor, points: np.ndarray | None = None) -> Tensor:
        """`points` [N, 5, 2] in pixels replace the detector's."""
        if points is None:
            points = np.stack([self._points(image) for image in images.detach()])
        warped = [
            similarity_warp(image, five, ARCFACE_TEMPLATE, 112)
            for image, five in zip(images, points, strict=True)
        ]
        return self.network(torch.stack(warped))

    def _points(self, image: Tensor) -> np.ndarray:
        pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        faces = self.detector.detect(Image.fromarray(pixels))
        return faces[0].points if faces else frontal_points(image.shape[-1])


class FacenetEncoder(nn.Module):
    """facenet-pytorch's InceptionResnetV1 at 160 px, on the face of an EG3D frame.

    `CROP` is MTCNN's mean box in EG3D-framed photos, in frame sizes. As facenet-pytorch does with its
    boxes, it is stretched to a square.
    """

    CROP = (0.228, 0.091, 0.782, 0.846)  # left, top, right, bottom

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        left, top, right, bottom = (round(part * images.shape[-1]) for part in self.CROP)
        face = images[:, :, top:bottom, left:right].clamp(-1, 1)
        face = F.interpolate(face, (160, 160), mode="bilinear", align_corners=False, antialias=True)
        return self.network(face * (127.5 / 128))
