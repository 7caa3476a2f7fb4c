"""Pictures of human heads of no living person, from a scan-based morphable head.

A person is 64 factors, each ~ N(0, 1): shape, appearance, and the two things that change from picture to
picture, expression and light. Everything is drawn in EG3D's world (y up, z towards the viewer) with EG3D's
cameras. The head file is the light ICT Face Model (MIT); `fetch_head.py` makes it from the public download.

    python heads.py sheet --head FILE --out sheet.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numba import njit
from PIL import Image
from safetensors.numpy import load_file

FACTORS = 64
SHAPE, APPEARANCE, EXPRESSION, LIGHT = slice(0, 40), slice(40, 56), slice(56, 61), slice(61, 64)
CLIP = 2.2
SHAPE_STRENGTH = 1.0
WHITE = (1.0, 1.0, 1.0)

# EG3D's five standard points (eyes, nose tip, mouth corners). At radius 2.7 this scale makes a frontal render
# agree with EG3D's in-the-wild crop: f / (2.7 - 0.161) * 0.2552 = 300 / 700.
STANDARD_POINTS = np.array(
    [
        [-0.3115, 0.2904, 0.1338],
        [0.3098, 0.2897, 0.1318],
        [0.0033, -0.0462, 0.5524],
        [-0.2522, -0.3813, 0.2241],
        [0.2485, -0.3813, 0.2224],
    ]
)
FACE_CENTRE = np.array([0.0, 0.006, 0.161])
FACE_SCALE = 0.2552

# Columns of what is interpolated over a triangle. Lines that must stay sharp (hair, brows, lips) are kept as
# signed distances and become colours only in the pixel.
NX, RED, OPEN, LIT, HAIR, BROW, BROW_END, LIP, BEARD, MX, COLUMNS = 0, 3, 6, 7, 8, 9, 10, 11, 12, 13, 16


@dataclass
class Extra:
    """What a photograph has beyond a person's factors. Angles in radians, colours in [0, 1]."""

    background: tuple[float, float, float] = WHITE
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    expression: np.ndarray | None = None  # [16] blend-shape weights instead of the factors'
    light: tuple[float, float, float] | None = None  # azimuth, elevation, ambient share
    identity: np.ndarray | None = None  # up to [20] further components, which the factors leave at 0


@dataclass
class Person:
    """One person's mesh in world units, ready to be seen from any camera."""

    vertices: np.ndarray  # [V, 3] float32
    attributes: (
        np.ndarray
    )  # [V, COLUMNS] float32: normal, skin, shadows, signed distances, place on the mean head
    look: np.ndarray  # [21] light and colours of the shading: see `prepare`
    points: np.ndarray  # [5, 3] eyes, nose tip, mouth corners
    landmarks: np.ndarray  # [68, 3] iBUG's
    extra: Extra = field(default_factory=Extra)


class HeadModel:
    """The morphable head, placed in EG3D's world, with everything that only depends on its mean shape."""

    def __init__(self, path: str | Path) -> None:
        data = load_file(str(path))
        self.mean = data["vertices"].astype(np.float32)
        self.identity = data["identity"].astype(np.float32).reshape(len(data["identity"]), -1)
        self.expressions = data["expression"].astype(np.float32).reshape(len(data["expression"]), -1)
        self.region = data["region"]
        self.landmarks = data["landmarks68"].astype(np.int64)
        quads = data["quads"].astype(np.int32)
        second = quads[quads[:, 2] != quads[:, 3]]
        self.triangles = np.concatenate([quads[:, [0, 1, 2]], second[:, [0, 2, 3]]]).astype(np.int32)
        self.eyes = [np.isin(self.region, (4, 5)), np.isin(self.region, (2, 3))]  # x < 0 first
        self.is_eye = self.region >= 2
        self.eye_centres = np.stack([self.mean[mask].mean(0) for mask in self.eyes])
        self.scale, self.offset = self._place()
        self.normals = vertex_normals(self.mean, self.triangles)
        self._prepare_masks()
        self.open = self._openness()

    def five_points(self, vertices: np.ndarray) -> np.ndarray:
        """Eye centres, nose tip and mouth corners, x < 0 first: [5, 3]."""
        eyes = [vertices[mask].mean(0) + np.array([0, 0, 1.2]) for mask in self.eyes]
        return np.stack([*eyes, *vertices[self.landmarks[[30, 48, 54]]]])

    def _place(self) -> tuple[float, np.ndarray]:
        have, want = self.five_points(self.mean), FACE_SCALE * STANDARD_POINTS + FACE_CENTRE
        a, b = have - have.mean(0), want - want.mean(0)
        scale = (a * b).sum() / (a * a).sum()
        return float(scale), want.mean(0) - scale * have.mean(0)

    def world(self, vertices: np.ndarray) -> np.ndarray:
        return (vertices * self.scale + self.offset).astype(np.float32)

    def _prepare_masks(self) -> None:
        mean, marks = self.mean, self.mean[self.landmarks][:, :2]
        xy, (x, y, z) = mean[:, :2], mean.T
        front = (z > 5.0) & (self.region == 0)
        # brows: place along (0 inner .. 1 outer), distance to and height over each brow's line
        self.brow_t, self.brow_y = np.zeros((2, len(mean)), np.float32)
        self.brow_d = np.full(len(mean), 9.0, np.float32)
        for ends in ([21, 20, 19, 18, 17], [22, 23, 24, 25, 26]):
            t, d, dy = _along(xy, _smooth(marks[ends]))
            closer = (d < self.brow_d) & front
            self.brow_t[closer], self.brow_d[closer], self.brow_y[closer] = t[closer], d[closer], dy[closer]
        outer = _smooth(marks[48:60], closed=True)
        self.lips = (
            np.where(front & (z > 8.5), _signed_distance(xy, outer), -1.0).clip(-1, 1).astype(np.float32)
        )
        # eyes: lashes (dark upper line, faint lower one), and the hollow around
        self.lashes, self.socket, self.lid = np.zeros((3, len(mean)), np.float32)
        for first in (36, 42):
            ring = marks[first : first + 6]
            upper, lower = _smooth(ring[[0, 1, 2, 3]]), _smooth(ring[[3, 4, 5, 0]])
            near = [_along(xy, line)[1] for line in (upper, lower)]
            dark = np.maximum(
                np.clip(1.35 - near[0] / 0.27, 0, 1), 0.55 * np.clip(1.2 - near[1] / 0.22, 0, 1)
            )
            self.lashes = np.maximum(self.lashes, np.where(front, dark, 0)).astype(np.float32)
            cx, cy = ring.mean(0)
            r = np.hypot((x - cx) / 2.7, (y - cy + 0.1) / 1.6)
            self.socket = np.maximum(self.socket, np.where(front, _step(1.25, 0.35, r), 0)).astype(np.float32)
            above = np.hypot((x - cx) / 2.1, (y - cy - 0.75) / 0.7)
            self.lid = np.maximum(self.lid, np.where(front, _step(1.2, 0.4, above), 0)).astype(np.float32)
        self._prepare_beard(front)
        self.cheek = np.where(front, np.exp(-((np.abs(x) - 4.3) ** 2 + (y + 0.3) ** 2) / 5.0), 0).astype(
            np.float32
        )
        self.nose = np.where(front, np.exp(-(x**2 + (y - 0.1) ** 2) / 1.6), 0).astype(np.float32)
        self.ear = ((np.abs(x) > 7.3) & (z > -3.2) & (z < 2.6) & (y > -3.6) & (y < 4.6)).astype(np.float32)
        self.locks = (
            np.sin(1.3 * x + 0.7 * y) * np.sin(1.1 * z - 0.9 * y + 1) + 0.5 * np.sin(2.3 * x - 1.9 * z)
        ).astype(np.float32)
        self.azimuth = np.arctan2(np.abs(x), z + 1.0)
        self.spots = (np.sin(7.1 * x + 2 * y) * np.sin(6.3 * y - 1.7 * x) > 0.62).astype(np.float32)

    def _prepare_beard(self, front: np.ndarray) -> None:
        """How much of a full beard and of a moustache grows at each vertex."""
        x, y, z = self.mean.T
        side = np.abs(x)
        top = np.interp(
            side, [0, 1.8, 2.7, 3.4, 4.6, 5.8, 6.6, 7.3], [-4.75, -4.5, -2.9, -2.8, -3.1, -2.2, -0.4, 1.2]
        )
        under = _step(-10.5, -8.0, y) * _step(1.0, 3.0, z)
        chin = _step(0.55, -0.55, y - top) * under
        self.beard = np.where(self.region <= 1, chin, 0).astype(np.float32)
        edge = -1.25 - 0.10 * side
        stripe = (
            _step(edge + 0.15, edge - 0.25, y)
            * _step(3.5, 2.1, side - 0.25 * (y + 2.2))
            * _step(-3.9, -2.9, y)
        )
        self.moustache = np.where(front, stripe, 0).astype(np.float32)

    def _openness(self) -> np.ndarray:
        """Share of the sky that each vertex of the mean head sees, weighted by the cosine: [V] in 0..1."""
        n, golden = 40, np.pi * (3 - np.sqrt(5))
        i = np.arange(n)
        up = 1 - (i + 0.5) / n * 1.75  # not from straight below
        ring = np.sqrt(1 - up**2)
        sky = np.stack([ring * np.cos(golden * i), up, ring * np.sin(golden * i)], axis=1)
        seen, total = np.zeros((2, len(self.mean)))
        for direction in sky:
            cosine = np.clip(self.normals @ direction, 0, None)
            seen += cosine * visible(
                self.mean, self.normals, self.triangles, direction.astype(np.float32), 256
            )
            total += cosine
        return np.where(total > 0.5, seen / np.maximum(total, 0.5), 0.3).astype(np.float32)


def prepare(model: HeadModel, factors: np.ndarray, extra: Extra | None = None) -> Person:
    """The person of `factors` [64] as a mesh; several views share it."""
    extra = extra or Extra()
    f = np.clip(np.asarray(factors, np.float64), -CLIP, CLIP)
    shape, a, e, light = f[SHAPE], f[APPEARANCE], f[EXPRESSION], f[LIGHT]
    weights = shape * SHAPE_STRENGTH
    if extra.identity is not None:
        weights = np.concatenate([weights, extra.identity])
    blend = expression_weights(e) if extra.expression is None else np.asarray(extra.expression)
    moved = weights.astype(np.float32) @ model.identity[: len(weights)]
    moved += blend.astype(np.float32) @ model.expressions
    vertices = model.mean + moved.reshape(-1, 3)

    height = hair_height(model, a)
    vertices = vertices + hair_lift(model, vertices, height, a)
    normals = vertex_normals(vertices.astype(np.float32), model.triangles)
    albedo, lip, hair, brow, beard_rgb = colours(model, a)
    azimuth, elevation, ambient = extra.light or light_angles(light)
    direction = _direction(azimuth, elevation)
    # three lights close together, so that a shadow's edge is soft
    lit = np.zeros(len(vertices))
    for turn, lift in ((0.0, 0.10), (-0.09, -0.05), (0.09, -0.05)):
        near = _direction(azimuth + turn, elevation + lift)
        lit += visible(vertices.astype(np.float32), normals, model.triangles, near, 200) / 3

    taper = (0.70 + 0.40 * _step(0.0, 0.25, model.brow_t)) * (1 - 0.80 * _step(0.35, 1.05, model.brow_t))
    half = np.clip(0.44 + 0.15 * a[8], 0.16, 0.85) * taper
    centre = 0.10 + 0.24 * a[9] + 0.40 * a[10] * (model.brow_t - 0.45)
    near = model.brow_d < 2.0
    attributes = np.empty((len(vertices), COLUMNS), np.float32)
    attributes[:, NX : NX + 3] = normals
    attributes[:, RED : RED + 3] = albedo
    attributes[:, OPEN] = model.open
    attributes[:, LIT] = lit
    attributes[:, HAIR] = height
    attributes[:, BROW] = np.where(near, (model.brow_y - centre) / half, 3)
    attributes[:, BROW_END] = near * _step(-0.06, 0.12, model.brow_t) * _step(1.04, 0.88, model.brow_t)
    attributes[:, LIP] = model.lips
    beard, moustache = (
        np.clip(0.40 * (a[14] - 0.2), 0, 0.88),
        np.clip(0.42 * (0.5 * a[14] + 0.8 * a[15] - 0.4), 0, 0.88),
    )
    attributes[:, BEARD] = np.maximum(beard * model.beard, moustache * model.moustache)
    attributes[:, MX : MX + 3] = model.mean
    cover = np.clip(1.0 + 0.5 * (a[6] + 1.0), 0.35, 1)
    strength = np.clip(0.80 + 0.2 * a[11], 0.4, 1)
    look = np.array(
        [
            *direction,
            ambient,
            *hair,
            cover,
            *lip,
            *brow,
            strength,
            *iris_colour(a[13] - 0.35 * a[0]),
            *beard_rgb,
        ]
    )
    return Person(
        model.world(vertices), attributes, look.astype(np.float32), model.world(model.five_points(vertices)),
        model.world(vertices[model.landmarks]), extra,
    )  # fmt: skip


def light_angles(light: np.ndarray) -> tuple[float, float, float]:
    """Azimuth, elevation and ambient share of the light factors [3]: moderate, identity stays readable."""
    return (
        0.75 * np.tanh(0.6 * light[0]),
        0.65 + 0.3 * np.tanh(0.6 * light[1]),
        0.52 + 0.12 * np.tanh(light[2]),
    )


def expression_weights(e: np.ndarray) -> np.ndarray:
    """Five expression factors to the 16 blend shapes, moderate as well."""
    w = np.zeros(16)
    w[0] = 0.10 * max(e[1], 0)
    w[1:3] = 0.40 * max(e[0], 0)
    w[3:5] = 0.45 * max(-e[0], 0)
    w[5] = 0.40 * max(e[3], 0)
    w[6:8] = 0.50 * max(e[2], 0)
    w[8:10] = 0.60 * max(-e[2], 0)
    w[10:12] = 0.14 * max(e[4], 0)
    w[12:14] = 0.50 * max(e[4], 0)
    return w


SKINS = [
    [0.90, 0.735, 0.655],
    [0.85, 0.665, 0.555],
    [0.73, 0.535, 0.41],
    [0.53, 0.365, 0.27],
    [0.34, 0.23, 0.175],
]


def colours(model: HeadModel, a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Skin of each vertex [V, 3], and the colours [3] of lips, hair, brows, beard."""
    tone = 4 / (1 + np.exp(0.35 - 1.15 * a[0]))
    skin = np.array([np.interp(tone, range(5), [s[c] for s in SKINS]) for c in range(3)])
    skin = skin * (1 + np.array([0.015, -0.022, -0.028]) * max(a[1], -1.0))
    albedo = np.tile(skin, (len(model.mean), 1))
    blush = np.clip(0.20 + 0.10 * a[1], 0.03, 0.42) * np.maximum(model.cheek, 0.9 * model.nose)
    albedo += blush[:, None] * (skin * np.array([1.0, 0.66, 0.62]) - albedo)
    shade = np.clip(0.24 + 0.13 * (a[11] - 0.6 * a[1]), 0.05, 0.5)
    albedo *= 1 - shade * np.maximum(model.socket, 0.9 * model.lid)[:, None] * np.array([0.75, 0.95, 0.9])
    freckles = (
        np.clip(0.22 * (a[12] - 0.5 * a[0] - 0.9), 0, 0.3) * model.spots * np.maximum(model.cheek, model.nose)
    )
    albedo *= 1 - freckles[:, None] * np.array([0.5, 0.8, 1.0])
    albedo *= 1 - 0.80 * model.lashes[:, None] * np.array([0.92, 1, 1])
    lip = skin * np.array([0.87, 0.66, 0.66])
    lip += np.clip(0.30 + 0.22 * a[12], 0, 0.75) * (skin.mean() * np.array([1.05, 0.48, 0.52]) - lip)
    hair = hair_colour(0.85 * a[2] - 0.45 * a[0], a[3])
    brow = 0.62 * hair + 0.06 * skin
    brow *= min(1.0, 0.52 * skin.sum() / brow.sum())  # fair brows must still show
    beard = 0.42 * hair + 0.5 * skin * np.array([0.62, 0.50, 0.44])  # fair hair over skin is no olive
    return albedo, lip, hair, brow, beard


def hair_colour(lightness: float, warmth: float) -> np.ndarray:
    dark, brown, fair, grey = (
        np.array(c)
        for c in ([0.075, 0.06, 0.055], [0.30, 0.19, 0.115], [0.82, 0.67, 0.43], [0.70, 0.69, 0.68])
    )
    t = np.clip(0.5 + 0.33 * lightness, 0, 1) * 2
    colour = dark + (brown - dark) * min(t, 1) + (fair - brown) * max(t - 1, 0)
    red = np.clip(0.35 * (warmth - 0.3), 0, 0.6) * (t > 0.4)
    colour = colour + red * (np.array([0.60, 0.25, 0.10]) * (0.4 + 0.4 * t) - colour)
    ash = np.clip(0.45 * (-warmth - 0.6), 0, 0.8)
    return colour + ash * (grey - colour)


def iris_colour(iris: float) -> np.ndarray:
    t = np.clip(0.5 + 0.38 * iris, 0, 1) * 2
    brown, green, blue = (np.array(c) for c in ([0.21, 0.115, 0.06], [0.36, 0.38, 0.20], [0.36, 0.55, 0.74]))
    return brown + (green - brown) * min(t, 1) + (blue - green) * max(t - 1, 0)


LINE_AZIMUTHS = (0.0, 0.30, 0.62, 0.92, 1.12, 1.30, 1.48, 1.85, 2.2, 3.2)


def hair_length(a: np.ndarray) -> float:
    """0 short .. 1 down to the shoulders; about every third person has some."""
    return float(_step(0.2, 1.0, a[7]))


def hair_height(model: HeadModel, a: np.ndarray) -> np.ndarray:
    """Height of each vertex of the mean head over the hair line: [V], negative on bare skin."""
    front = 9.6 + 0.85 * a[4] + 1.5 * max(a[4] - 0.9, 0)
    temple, sideburn, long = 0.9 * a[5], 1.5 - 1.5 * a[7], hair_length(a)
    sides = [
        front,
        front - 0.1,
        front - 0.5 + temple,
        7.5 + 0.6 * temple + 0.3 * max(a[4], 0),
        sideburn + 1.2,
        sideburn - 0.4,
    ]
    line = [*sides, 4.6, 1.5 - 12.0 * long, -3.0 - 12.0 * long, -5.5 - 9.0 * long]
    x, y, _ = model.mean.T
    parting = 0.35 * a[9] * np.tanh(x / 2.5) * _step(1.0, 0.5, model.azimuth)
    height = y - np.interp(model.azimuth, LINE_AZIMUTHS, line) - parting
    height = height * (1 - model.ear) - 2 * model.ear
    height[model.is_eye] = -2
    return np.clip(height, -2, 8)


def hair_lift(model: HeadModel, vertices: np.ndarray, height: np.ndarray, a: np.ndarray) -> np.ndarray:
    """How far hair lies over the scalp: [V, 3]. Locks on top; long hair hangs down behind the ears."""
    _, y, z = model.mean.T
    volume = np.clip(0.85 + 0.6 * a[6], 0.0, 2.2)
    inside = _step(-0.2, 2.2, height)
    top = _step(2.0, 10.0, y + 0.25 * np.abs(z))
    lift = inside * volume * (0.35 + 0.65 * top) * (1 + 0.16 * model.locks)
    out = model.normals * lift[:, None]
    axis = vertices - np.array([0, 0, -1.0], np.float32)
    radius = np.hypot(axis[:, 0], axis[:, 2]) + 1e-6
    curtain = 8.2 + 0.35 * volume + 0.08 * np.maximum(2 - y, 0) + 0.1 * model.locks
    hang = hair_length(a) * _step(0.0, 2.5, height) * _step(3.0, -1.0, y) * _step(1.65, 2.15, model.azimuth)
    push = hang * np.maximum(curtain - radius, 0) / radius
    out[:, 0] += axis[:, 0] * push
    out[:, 2] += axis[:, 2] * push * 0.6
    return out


def visible(
    vertices: np.ndarray, normals: np.ndarray, triangles: np.ndarray, light: np.ndarray, size: int
) -> np.ndarray:
    """Which vertices a far light in `light`'s direction [3] reaches, softly: [V] in 0..1. Head units."""
    side = np.cross([0.0, 1.0, 0.0] if abs(light[1]) < 0.95 else [1.0, 0.0, 0.0], light)
    side /= np.linalg.norm(side)
    basis = np.stack([side, np.cross(light, side), -light], axis=1).astype(np.float32)
    flat = vertices @ basis
    low, high = flat.min(0), flat.max(0)
    pixel = float((high - low)[:2].max()) / (size - 2)
    screen = np.ascontiguousarray((flat - low) / np.float32(pixel) + np.float32([1, 1, 0]))
    screen[:, 2] = 1 / (screen[:, 2] + 8)  # nearer is larger
    depth, _ = rasterise(screen, triangles, size)
    return _depth_test(screen, depth, normals, light, np.float32(0.25 / pixel))


@njit(cache=True, nogil=True)
def _depth_test(screen, depth, normals, light, bias):  # noqa: ANN001, ANN202
    """Compares each vertex to the four pixels around it."""
    out = np.zeros(len(screen), np.float32)
    size = depth.shape[0]
    for v in range(len(screen)):
        facing = normals[v, 0] * light[0] + normals[v, 1] * light[1] + normals[v, 2] * light[2]
        slack = bias * (1 + 2 * (1 - max(facing, 0.0)))
        mine = 1 / screen[v, 2] - slack
        fx, fy = screen[v, 0] - 0.5, screen[v, 1] - 0.5
        col, row = int(fx), int(fy)
        wx, wy = fx - col, fy - row
        for dr in range(2):
            for dc in range(2):
                r, c = min(row + dr, size - 1), min(col + dc, size - 1)
                w = (wx if dc else 1 - wx) * (wy if dr else 1 - wy)
                if depth[r, c] * mine <= 1:  # the occluder 1 / depth lies behind
                    out[v] += w
    return out


@njit(cache=True, nogil=True)
def vertex_normals(vertices, triangles):  # noqa: ANN001, ANN201
    """Area-weighted unit normals [V, 3]."""
    out = np.zeros_like(vertices)
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        ax, ay, az = (
            vertices[j, 0] - vertices[i, 0],
            vertices[j, 1] - vertices[i, 1],
            vertices[j, 2] - vertices[i, 2],
        )
        bx, by, bz = (
            vertices[k, 0] - vertices[i, 0],
            vertices[k, 1] - vertices[i, 1],
            vertices[k, 2] - vertices[i, 2],
        )
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(len(out)):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        if length > 0:
            for c in range(3):
                out[v, c] /= length
    return out


@njit(cache=True, nogil=True)
def rasterise(screen, triangles, size):  # noqa: ANN001, ANN201
    """The nearest triangle of each pixel. screen [V, 3] is x, y in pixels and 1 / depth; returns 1 / depth
    (0: none) and the triangle (-1: none), both [size, size]."""
    depth = np.zeros((size, size), np.float32)
    index = np.full((size, size), np.int32(-1))
    one = np.float32(1)
    for t in range(len(triangles)):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = screen[i, 0], screen[i, 1], screen[i, 2]
        x1, y1 = screen[j, 0] - x0, screen[j, 1] - y0
        x2, y2 = screen[k, 0] - x0, screen[k, 1] - y0
        area = x1 * y2 - x2 * y1
        if area == 0:
            continue
        left = max(int(np.ceil(x0 + min(x1, x2, np.float32(0)) - 0.5)), 0)
        right = min(int(np.floor(x0 + max(x1, x2, np.float32(0)) - 0.5)), size - 1)
        top = max(int(np.ceil(y0 + min(y1, y2, np.float32(0)) - 0.5)), 0)
        bottom = min(int(np.floor(y0 + max(y1, y2, np.float32(0)) - 0.5)), size - 1)
        if left > right or top > bottom:
            continue
        inverse = one / area
        z1, z2 = screen[j, 2] - z0, screen[k, 2] - z0
        a1, a2 = y2 * inverse, -y1 * inverse  # steps of the barycentrics along a row
        px = np.float32(left) + np.float32(0.5) - x0
        for row in range(top, bottom + 1):
            py = np.float32(row) + np.float32(0.5) - y0
            b1 = (px * y2 - x2 * py) * inverse
            b2 = (x1 * py - px * y1) * inverse
            for col in range(left, right + 1):
                if b1 >= 0 and b2 >= 0 and b1 + b2 <= one:
                    z = z0 + b1 * z1 + b2 * z2
                    if z > depth[row, col]:
                        depth[row, col] = z
                        index[row, col] = t
                b1 += a1
                b2 += a2
    return depth, index


@njit(inline="always")
def _smoothstep(a, b, x):  # noqa: ANN001, ANN202
    t = min(max((x - a) / (b - a), np.float32(0)), np.float32(1))
    return t * t * (3 - 2 * t)


@njit(cache=True, nogil=True, fastmath=True)
def _shade(index, screen, triangles, at, is_eye, eyes, look, basis, ray, background, tint, step, out):  # noqa: ANN001, ANN202
    """Colours of all pixels, averaged over step x step samples, to out [size, size, 3]."""
    size = index.shape[0]
    lx, ly, lz, ambient, cover = look[0], look[1], look[2], look[3], look[7]
    share = np.float32(1) / (step * step)
    for row in range(size):
        for col in range(size):
            t = index[row, col]
            r, c = row // step, col // step
            if t < 0:
                for ch in range(3):
                    out[r, c, ch] += background[ch] * share
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            x0, y0 = screen[i, 0], screen[i, 1]
            x1, y1, x2, y2 = screen[j, 0] - x0, screen[j, 1] - y0, screen[k, 0] - x0, screen[k, 1] - y0
            px, py = np.float32(col) + np.float32(0.5) - x0, np.float32(row) + np.float32(0.5) - y0
            inverse = np.float32(1) / (x1 * y2 - x2 * y1)
            b1, b2 = (px * y2 - x2 * py) * inverse, (x1 * py - px * y1) * inverse
            b0 = 1 - b1 - b2
            nx = at[i, 0] * b0 + at[j, 0] * b1 + at[k, 0] * b2
            ny = at[i, 1] * b0 + at[j, 1] * b1 + at[k, 1] * b2
            nz = at[i, 2] * b0 + at[j, 2] * b1 + at[k, 2] * b2
            length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
            nx, ny, nz = nx * length, ny * length, nz * length
            # from the point to the camera
            u, v = (col + np.float32(0.5)) * ray[0] + ray[1], (row + np.float32(0.5)) * ray[2] + ray[3]
            vx = -(basis[0, 0] * u + basis[0, 1] * v + basis[0, 2])
            vy = -(basis[1, 0] * u + basis[1, 1] * v + basis[1, 2])
            vz = -(basis[2, 0] * u + basis[2, 1] * v + basis[2, 2])
            length = 1 / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * length, vy * length, vz * length
            if nx * vx + ny * vy + nz * vz < np.float32(-0.05):  # the inside of the mesh: an open mouth
                out[r, c, 0] += np.float32(0.17) * share
                out[r, c, 1] += np.float32(0.06) * share
                out[r, c, 2] += np.float32(0.06) * share
                continue
            sky = at[i, 6] * b0 + at[j, 6] * b1 + at[k, 6] * b2
            lit = at[i, 7] * b0 + at[j, 7] * b1 + at[k, 7] * b2
            mx = at[i, 13] * b0 + at[j, 13] * b1 + at[k, 13] * b2
            my = at[i, 14] * b0 + at[j, 14] * b1 + at[k, 14] * b2
            mz = at[i, 15] * b0 + at[j, 15] * b1 + at[k, 15] * b2
            wrap = np.float32(0.30)
            if is_eye[i]:
                e = 0 if mx < 0 else 1
                dx, dy, dz = mx - eyes[e, 0], my - eyes[e, 1], mz - eyes[e, 2]
                angle = np.sqrt(dx * dx + dy * dy) / max(dz, np.float32(0.1))
                iris = _smoothstep(np.float32(0.52), np.float32(0.46), angle)
                inner = _smoothstep(np.float32(0.47), np.float32(0.36), angle)
                pupil = _smoothstep(np.float32(0.21), np.float32(0.17), angle)
                glow = np.float32(1.25) - np.float32(0.9) * angle
                c0, c1, c2 = np.float32(0.90), np.float32(0.875), np.float32(0.86)
                for_iris = np.float32(0.45) + np.float32(0.55) * inner
                c0 += iris * (look[15] * for_iris * glow - c0)
                c1 += iris * (look[16] * for_iris * glow - c1)
                c2 += iris * (look[17] * for_iris * glow - c2)
                dark = 1 - pupil * np.float32(0.95)
                c0, c1, c2 = c0 * dark, c1 * dark, c2 * dark
                shine, power = np.float32(0.75), np.float32(90.0)
            else:
                c0 = at[i, 3] * b0 + at[j, 3] * b1 + at[k, 3] * b2
                c1 = at[i, 4] * b0 + at[j, 4] * b1 + at[k, 4] * b2
                c2 = at[i, 5] * b0 + at[j, 5] * b1 + at[k, 5] * b2
                shine, power = np.float32(0.09), np.float32(16.0)
                lip = at[i, 11] * b0 + at[j, 11] * b1 + at[k, 11] * b2
                lip = _smoothstep(np.float32(-0.10), np.float32(0.14), lip)
                c0 += lip * (look[8] - c0)
                c1 += lip * (look[9] - c1)
                c2 += lip * (look[10] - c2)
                shine += lip * np.float32(0.05)
                beard = at[i, 12] * b0 + at[j, 12] * b1 + at[k, 12] * b2
                if beard > 0:
                    beard *= 1 - lip
                    c0 += beard * (look[18] - c0)
                    c1 += beard * (look[19] - c1)
                    c2 += beard * (look[20] - c2)
                    shine *= 1 - beard
                end = at[i, 10] * b0 + at[j, 10] * b1 + at[k, 10] * b2
                if end > 0:
                    across = abs(at[i, 9] * b0 + at[j, 9] * b1 + at[k, 9] * b2)
                    brow = _smoothstep(np.float32(1.30), np.float32(0.60), across) * end * look[14]
                    c0 += brow * (look[11] - c0)
                    c1 += brow * (look[12] - c1)
                    c2 += brow * (look[13] - c2)
                    shine *= 1 - brow
                height = at[i, 8] * b0 + at[j, 8] * b1 + at[k, 8] * b2
                if height > np.float32(-1.0):
                    wave = np.sin(np.float32(2.7) * mx + np.float32(1.9) * my + mz) + np.sin(
                        np.float32(4.9) * mx - np.float32(2.3) * mz
                    )
                    hair = (
                        _smoothstep(np.float32(-0.50), np.float32(0.40), height + np.float32(0.13) * wave)
                        * cover
                    )
                    around = np.arctan2(mx, my - np.float32(2.0))
                    strand = np.sin(
                        24 * around + np.float32(1.4) * np.sin(np.float32(0.6) * mz + np.float32(0.4) * my)
                    )
                    tone = np.float32(0.93) + np.float32(0.12) * strand
                    c0 += hair * (look[4] * tone - c0)
                    c1 += hair * (look[5] * tone - c1)
                    c2 += hair * (look[6] * tone - c2)
                    shine += hair * (np.float32(0.05) + np.float32(0.05) * strand)
                    power -= hair * np.float32(4.0)
                    sky += hair * (np.float32(0.9) - sky) * np.float32(0.7)
                    wrap += hair * np.float32(0.15)
            facing = nx * lx + ny * ly + nz * lz
            fill = (
                ambient
                * (np.float32(0.25) + np.float32(0.85) * sky)
                * (np.float32(0.96) + np.float32(0.12) * ny)
            )
            shadow = np.float32(0.22) + np.float32(0.78) * lit
            key = (1 - ambient) * np.float32(1.50)
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            length = 1 / np.sqrt(hx * hx + hy * hy + hz * hz)
            half = max((nx * hx + ny * hy + nz * hz) * length, np.float32(0.0))
            gloss = shine * half**power * shadow if half > 0 else np.float32(0)
            # light bleeds past the shadow's edge in skin, most of it red
            for ch in range(3):
                soft = wrap + (np.float32(0.08) if ch == 0 else np.float32(0.0))
                lambert = max((facing + soft) / (1 + soft), np.float32(0))
                colour = c0 if ch == 0 else (c1 if ch == 1 else c2)
                value = (
                    colour * (fill + key * lambert * (np.float32(0.35) + np.float32(0.65) * lambert) * shadow)
                    + gloss
                ) * tint[ch]
                out[r, c, ch] += min(max(value, np.float32(0)), np.float32(1)) * share


def project(points: np.ndarray, cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """World points [N, 3] -> x, y in picture widths and depth: [N, 3]."""
    local = (points - cam2world[:3, 3]) @ cam2world[:3, :3]
    return np.stack(
        [
            local[:, 0] / local[:, 2] * intrinsics[0, 0] + intrinsics[0, 2],
            local[:, 1] / local[:, 2] * intrinsics[1, 1] + intrinsics[1, 2],
            local[:, 2],
        ],
        axis=1,
    )


def render_person(
    model: HeadModel,
    person: Person,
    cam2world: np.ndarray,
    intrinsics: np.ndarray,
    size: int = 128,
    supersample: int = 3,
) -> np.ndarray:
    """uint8 [size, size, 3] from an OpenCV camera [4, 4] with normalised intrinsics [3, 3]."""
    return _draw(model, person, cam2world, intrinsics, size, supersample)[0]


def mask_of(
    model: HeadModel,
    person: Person,
    cam2world: np.ndarray,
    intrinsics: np.ndarray,
    size: int = 128,
    supersample: int = 3,
) -> np.ndarray:
    """Share of each pixel that the head covers: float32 [size, size]."""
    index = _draw(model, person, cam2world, intrinsics, size, supersample)[1]
    return (index >= 0).reshape(size, supersample, size, supersample).mean((1, 3), dtype=np.float32)


def render_depth(
    model: HeadModel, person: Person, cam2world: np.ndarray, intrinsics: np.ndarray, size: int = 64
) -> np.ndarray:
    """Distance from the camera to the surface along each pixel centre's ray, 0: none. [size, size]."""
    inverse, _ = rasterise(_screen(person, cam2world, intrinsics, size), model.triangles, size)
    steps = (np.arange(size) + 0.5) / size
    x, y = (steps - intrinsics[0, 2]) / intrinsics[0, 0], (steps - intrinsics[1, 2]) / intrinsics[1, 1]
    length = np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
    return np.where(inverse > 0, length / np.maximum(inverse, 1e-6), 0).astype(np.float32)


def _screen(person: Person, cam2world: np.ndarray, intrinsics: np.ndarray, size: int) -> np.ndarray:
    """Vertices as x, y in pixels and 1 / depth, which is linear over a triangle in the picture."""
    screen = project(person.vertices, cam2world, intrinsics)
    screen[:, :2] *= size
    screen[:, 2] = 1 / screen[:, 2]
    return screen.astype(np.float32)


def _draw(
    model: HeadModel,
    person: Person,
    cam2world: np.ndarray,
    intrinsics: np.ndarray,
    size: int,
    supersample: int,
) -> tuple[np.ndarray, np.ndarray]:
    big = size * supersample
    screen = _screen(person, cam2world, intrinsics, big)
    _, index = rasterise(screen, model.triangles, big)
    out = np.zeros((size, size, 3), np.float32)
    (fx, _, cx), (_, fy, cy) = intrinsics[0], intrinsics[1, :3]
    ray = np.array([1 / (fx * big), -cx / fx, 1 / (fy * big), -cy / fy], np.float32)
    _shade(
        index, screen, model.triangles, person.attributes, model.is_eye, model.eye_centres, person.look,
        cam2world[:3, :3].astype(np.float32), ray, np.array(person.extra.background, np.float32),
        np.array(person.extra.tint, np.float32), supersample, out,
    )  # fmt: skip
    return np.clip(out * 255 + 0.5, 0, 255).astype(np.uint8), index


def render(
    model: HeadModel,
    factors: np.ndarray,
    cam2world: np.ndarray,
    intrinsics: np.ndarray | None = None,
    size: int = 128,
    extra: Extra | None = None,
    supersample: int = 3,
) -> np.ndarray:
    """One picture of the person of `factors` [64]; several views of one person go by `prepare`."""
    k = standard_intrinsics() if intrinsics is None else intrinsics
    return render_person(model, prepare(model, factors, extra), cam2world, k, size, supersample)


def lookat(
    yaw: float,
    pitch: float,
    radius: float = 2.7,
    pivot: tuple[float, float, float] | np.ndarray = (0, 0, 0),
    roll: float = 0.0,
) -> np.ndarray:
    """cam2world [4, 4] on the sphere of `radius` about the origin. Radians; positive pitch is from above."""
    origin = radius * _direction(yaw, pitch)
    forward = np.asarray(pivot, float) - origin
    forward /= np.linalg.norm(forward)
    right = -np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    out = np.eye(4)
    out[:3, 0], out[:3, 1], out[:3, 2], out[:3, 3] = right, down, forward, origin
    return out


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    return np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )


def standard_intrinsics() -> np.ndarray:
    """EG3D's normalised intrinsics at a field of view of 18.837 degrees."""
    focal = 1 / (np.tan(18.837 * 3.14159 / 360) * 1.414)
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def draw_factors(rng: np.random.Generator, n: int) -> np.ndarray:
    """Factors [n, 64] on the sphere that the generator's normalised z lives on (mean square 1)."""
    f = rng.standard_normal((n, FACTORS))
    return f / np.sqrt((f**2).mean(1, keepdims=True))


def _smooth(points: np.ndarray, closed: bool = False) -> np.ndarray:
    """A Catmull-Rom curve through points [N, 2], eight steps a piece; without the end if closed."""
    p = (
        np.concatenate([points[-1:], points, points[:2]])
        if closed
        else np.concatenate([points[:1], points, points[-1:]])
    )
    t = np.arange(8)[:, None] / 8
    pieces = [
        b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate(pieces if closed else [*pieces, points[-1:]])


def _along(xy: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place along (0..1, a little beyond at the ends), distance to and height over a polyline, of [N, 2]."""
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    best = np.full(len(xy), np.inf)
    t, dy = np.zeros((2, len(xy)))
    for i, length in enumerate(lengths):
        direction = (line[i + 1] - line[i]) / length
        low = -0.15 * starts[-1] if i == 0 else 0.0
        high = length + (0.15 * starts[-1] if i == len(lengths) - 1 else 0.0)
        s = np.clip((xy - line[i]) @ direction, low, high)
        foot = line[i] + s[:, None] * direction
        d = np.linalg.norm(xy - foot, axis=1)
        closer = d < best
        best[closer], t[closer], dy[closer] = (
            d[closer],
            ((starts[i] + s) / starts[-1])[closer],
            (xy - foot)[closer, 1],
        )
    return t, best, dy


def _signed_distance(xy: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Distance of points [N, 2] to a closed polygon, positive inside."""
    odd, best = np.zeros(len(xy), bool), np.full(len(xy), np.inf)
    for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        crosses = (a[1] > xy[:, 1]) != (b[1] > xy[:, 1])
        odd ^= crosses & (xy[:, 0] < (b[0] - a[0]) * (xy[:, 1] - a[1]) / (b[1] - a[1] + 1e-12) + a[0])
        s = np.clip(((xy - a) @ (b - a)) / ((b - a) @ (b - a) + 1e-12), 0, 1)
        best = np.minimum(best, np.linalg.norm(xy - (a + s[:, None] * (b - a)), axis=1))
    return np.where(odd, best, -best)


def _step(a: float | np.ndarray, b: float | np.ndarray, x: float | np.ndarray) -> np.ndarray:
    """Smooth step from 0 at a to 1 at b (a may be larger)."""
    t = np.clip((x - a) / (np.asarray(b) - a), 0, 1)
    return t * t * (3 - 2 * t)


def sheet(model: HeadModel, people: int, yaws: list[float], size: int, seed: int) -> Image.Image:
    """One row a person, one column a yaw."""
    rng = np.random.default_rng(seed)
    rows = []
    for factors in draw_factors(rng, people):
        person = prepare(model, factors)
        cameras = [lookat(yaw, 0.05, pivot=(0, 0, 0.1)) for yaw in yaws]
        rows.append(
            np.concatenate(
                [render_person(model, person, c, standard_intrinsics(), size) for c in cameras], axis=1
            )
        )
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["sheet"])
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    yaws = [float(y) for y in np.linspace(-0.7, 0.7, 7)]
    sheet(HeadModel(args.head), args.people, yaws, args.size, args.seed).save(args.out)


if __name__ == "__main__":
    main()
