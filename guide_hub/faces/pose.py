"""The camera of a photo from five landmarks, without a morphable model: a look-at MAP fit (numpy only).

The mean face's five points stand at fixed places in EG3D's world; the camera that sees them where the
detector found them is found by Levenberg-Marquardt under priors of EG3D's framing. Landmarks differ from
the mean face by several pixels, so about 4 degrees is what five points allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guide_hub.faces.alignment import STANDARD_POINTS

FOCAL = 4.2647  # EG3D's FFHQ labels, in image sizes
WORLD_POINTS = 0.27 * STANDARD_POINTS + np.array([0.0, 0.006, 0.161])
RADIUS = 2.7  # EG3D puts every camera on this sphere

# Of (yaw, pitch, roll, distance, lateral x, lateral y), in radians and world units.
PRIOR_MEAN = np.array([0.0, math.radians(3), 0.0, 2.6, 0.0, 0.0])
PRIOR_SD = np.array([math.radians(25), math.radians(6), math.radians(6), 0.08, 0.06, 0.06])
RESIDUAL_SD = 4 / 512  # of the image size
STARTS = (0.0, math.radians(40), math.radians(-40))


@dataclass(frozen=True)
class Pose:
    """A camera. `cam2world` [4, 4] is OpenCV's (x right, y down, z forward), its centre at radius 2.7.

    Angles in radians: positive `yaw` stands to the right of the face (world +x), positive `pitch` above it,
    positive `roll` turns the camera clockwise. `residual` is the root mean square landmark error in pixels.
    """

    cam2world: np.ndarray
    yaw: float
    pitch: float
    roll: float
    residual: float


def look_at_origin(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3]: the right, down and forward axes, as columns, of a camera that faces the origin."""
    forward = -np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    right = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
    down = np.cross(forward, right)
    cos, sin = math.cos(roll), math.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=1)


def fit_camera(points: np.ndarray, size: float) -> Pose:
    """The camera of an EG3D-framed picture of `size` by `size` pixels from MTCNN's points [5, 2] in it."""
    observed = np.asarray(points, np.float64) / size
    fits = [_fit(observed, start) for start in STARTS]
    parameters, _ = min(fits, key=lambda fit: fit[1])
    yaw, pitch, roll, distance, x, y = parameters
    rotation = look_at_origin(yaw, pitch, roll)
    position = rotation @ np.array([x, y, -distance])
    cam2world = np.eye(4)
    cam2world[:3, :3] = rotation
    cam2world[:3, 3] = RADIUS * position / np.linalg.norm(position)
    error = (_project(parameters) - observed) * size
    residual = float(np.sqrt(np.square(error).sum(1).mean()))
    return Pose(cam2world, float(yaw), float(pitch), float(roll), residual)


def frontal_points(size: float) -> np.ndarray:
    """The mean face's points [5, 2] from the front, at EG3D's radius, in a picture of `size` pixels."""
    return _project(np.array([0, 0, 0, RADIUS, 0, 0], np.float64)) * size


def _project(parameters: np.ndarray) -> np.ndarray:
    """Where the camera sees WORLD_POINTS: [5, 2] in image sizes."""
    yaw, pitch, roll, distance, x, y = parameters
    seen = WORLD_POINTS @ look_at_origin(yaw, pitch, roll) + np.array([-x, -y, distance])
    return FOCAL * seen[:, :2] / seen[:, 2:] + 0.5


def _errors(parameters: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Landmark and prior errors in standard deviations: [16]."""
    landmarks = (_project(parameters) - observed).ravel() / RESIDUAL_SD
    return np.concatenate([landmarks, (parameters - PRIOR_MEAN) / PRIOR_SD])


def _fit(observed: np.ndarray, yaw: float, steps: int = 60) -> tuple[np.ndarray, float]:
    """Levenberg-Marquardt from a start yaw: parameters [6] and twice their negative log posterior."""
    parameters = PRIOR_MEAN + np.array([yaw, 0, 0, 0, 0, 0])
    errors, damping = _errors(parameters, observed), 1e-2
    for _ in range(steps):
        moves = 1e-6 * np.eye(6)
        slopes = [_errors(parameters + d, observed) - _errors(parameters - d, observed) for d in moves]
        jacobian = np.stack(slopes, axis=1) / 2e-6
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(normal.diagonal()), -jacobian.T @ errors)
        moved = _errors(parameters + step, observed)
        if moved @ moved < errors @ errors:
            parameters, errors, damping = parameters + step, moved, damping / 5
            if np.abs(step).max() < 1e-9:
                break
        else:
            damping *= 5
            if damping > 1e9:
                break
    return parameters, float(errors @ errors)
