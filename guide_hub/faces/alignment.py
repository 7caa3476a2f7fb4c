"""Crops from five landmarks: EG3D's in-the-wild framing, and similarity warps to a recogniser's template.

Points are (x, y) pixels, y down, in MTCNN's order: left eye, right eye, nose tip, mouth left, mouth right,
where left and right are the picture's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from guide_hub.errors import InputError

Padding = Literal["auto", "reflect", "edge", "white"]

# The five points on the mean face, y up, z towards the viewer (Deep3DFaceRecon's similarity_Lm3D_all, MIT).
STANDARD_POINTS = np.array(
    [
        [-0.3115, 0.2904, 0.1338],
        [0.3098, 0.2897, 0.1318],
        [0.0033, -0.0462, 0.5524],
        [-0.2522, -0.3813, 0.2241],
        [0.2485, -0.3813, 0.2224],
    ]
)

# InsightFace's 112 x 112 frame: the published 96 x 112 template, moved by 8 pixels.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

FACE_SCALE = 300 / 700  # EG3D: one unit of STANDARD_POINTS takes 300 of the crop's 700 pixels
WHITE = 250


@dataclass(frozen=True)
class Crop:
    """A square, EG3D-framed picture with the `points` [5, 2] in its pixels.

    `pose_pos` [3, 3] is the closed form's rotation: the mean face's axes to x right, y up, z to the viewer.
    """

    image: Image.Image
    points: np.ndarray
    pose_pos: np.ndarray


@dataclass(frozen=True)
class PosFit:
    """Scaled orthography of STANDARD_POINTS: pixels a unit, rotation [3, 3], the origin's image (y up)."""

    scale: float
    rotation: np.ndarray
    centre: np.ndarray


def fit_pos(points: np.ndarray) -> PosFit:
    """Least squares of `x = s R1 . X + tx`, `y = s R2 . X + ty` (pose from orthography and scaling, y up)."""
    design = np.concatenate([STANDARD_POINTS, np.ones((5, 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design, np.asarray(points, np.float64), rcond=None)
    rows, centre = solution[:3].T, solution[3]
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(solution).all() or lengths.min() < 1e-6:
        raise InputError("shows a face whose landmarks coincide", remedy="use a sharper, larger photo")
    first, second = rows / lengths[:, None]
    u, _, vt = np.linalg.svd(np.stack([first, second, np.cross(first, second)]))
    return PosFit(float(lengths.mean()), u @ vt, centre)


def eg3d_crop(image: Image.Image, points: np.ndarray, size: int = 512, padding: Padding = "auto") -> Crop:
    """The face in EG3D's frame (its in-the-wild preprocessing; inversion by landmarks alone).

    EG3D scales the photo until one unit measures 300 pixels, centres it, keeps the middle 700 pixels and
    resizes (LANCZOS); here that is one square box and one resize. Beyond the photo `reflect` mirrors it, as
    FFHQ's alignment does, `edge` repeats its border, `white` is white, and `auto` is `white` for a photo on
    white ground, else `reflect`. InputError where the landmarks make no face inside the photo.
    """
    points = np.asarray(points, np.float64)
    height = image.height
    fit = fit_pos(np.stack([points[:, 0], height - 1 - points[:, 1]], axis=1))
    side = fit.scale / FACE_SCALE
    centre = np.array([fit.centre[0], height - fit.centre[1]])
    corner = centre - side / 2
    if side > 3 * max(image.size):
        raise InputError("shows a face larger than the photo", remedy="use a photo that shows the whole head")
    canvas, origin = _padded(image, corner, side, padding)
    left, top = corner - origin
    box = (max(left, 0.0), max(top, 0.0), min(left + side, canvas.width), min(top + side, canvas.height))
    picture = canvas.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return Crop(picture, (points - corner) * size / side, fit.rotation)


def _padded(
    image: Image.Image, corner: np.ndarray, side: float, padding: Padding
) -> tuple[Image.Image, np.ndarray]:
    """The part of the picture that the box needs, grown where the box leaves it, and the part's origin."""
    left, top = (math.floor(value) for value in corner)
    right, bottom = (math.ceil(value + side) for value in corner)
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise InputError(
            "shows a face that lies outside the photo", remedy="use a photo that shows the whole head"
        )
    pixels = np.asarray(image.crop(inside).convert("RGB"))
    grow = (
        (inside[1] - top, bottom - inside[3]),
        (inside[0] - left, right - inside[2]),
        (0, 0),
    )
    if padding == "auto":
        padding = "white" if on_white(image) else "reflect"
    if padding == "white":
        pixels = np.pad(pixels, grow, constant_values=255)
    elif padding == "edge" or min(pixels.shape[:2]) == 1:
        pixels = np.pad(pixels, grow, mode="edge")
    else:
        pixels = np.pad(pixels, grow, mode="reflect")
    return Image.fromarray(pixels), np.array([left, top], np.float64)


def on_white(image: Image.Image) -> bool:
    """Whether the border's upper two thirds are white; a cut-out head's shoulders may touch what is below."""
    width, height = image.width, max(1, 2 * image.height // 3)
    sides = [(0, 0, width, 1), (0, 0, 1, height), (width - 1, 0, width, height)]
    border = np.concatenate([np.asarray(image.crop(s).convert("RGB")).reshape(-1, 3) for s in sides])
    return float((border >= WHITE).all(axis=1).mean()) > 0.8


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[2, 3] rotation, scale and shift that best take one [K, 2] to the other (Umeyama 1991, eq. 40-42)."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_s, mean_t = source.mean(0), target.mean(0)
    centred = source - mean_s
    u, d, vt = np.linalg.svd((target - mean_t).T @ centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / centred.var(0).sum()
    return np.concatenate([scale * rotation, (mean_t - scale * rotation @ mean_s)[:, None]], axis=1)


def similarity_warp(
    image: Tensor, points: np.ndarray, template: np.ndarray, size: int, samples: int = 1
) -> Tensor:
    """A picture [3, H, W] as float [3, size, size] with its points moved onto the template, zeros outside.

    Bilinear with pixel centres at whole numbers, as OpenCV's warpAffine. `samples` > 1 averages that many
    points each way in a pixel, against the aliasing of strong reductions.
    """
    forward = similarity(points, template)
    matrix = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    steps = (np.arange(size * samples) + 0.5) / samples - 0.5
    u, v = np.meshgrid(steps, steps)
    where = np.stack([u, v, np.ones_like(u)], axis=-1) @ matrix.T
    height, width = image.shape[-2:]
    grid = (2 * where + 1) / np.array([width, height]) - 1
    grid = torch.from_numpy(grid).to(image.device, torch.float32)[None]
    out = F.grid_sample(image[None].float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(out, samples)[0]
