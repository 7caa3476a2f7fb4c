"""Pictures of human heads of no living person, from a scan-based morphable head.

A person is 64 factors, each ~ N(0, 1): shape, appearance, and the two things that change from picture to picture,
expression and light. Everything is drawn in EG3D's world (y up, z towards the viewer) with EG3D's cameras. The head
file is the light ICT Face Model (MIT); `fetch_head.py` makes it from the public download.

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

# EG3D's five standard points (eyes, nose tip, mouth corners). At radius 2.7 this scale makes a frontal render agree
# with EG3D's in-the-wild crop: f / (2.7 - 0.161) * 0.2552 = 300 / 700.
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


@dataclass
class Extra:
    """What a photograph has beyond a person's factors. Angles in radians, colours in [0, 1]."""

    background: tuple[float, float, float] = WHITE
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    expression: np.ndarray | None = None  # [16] blend-shape weights instead of the factors'
    light: tuple[float, float, float] | None = None  # azimuth, elevation, ambient share


@dataclass
class Person:
    """One person's mesh in world units and its colours, ready to be seen from any camera."""

    vertices: np.ndarray  # [V, 3] float32
    normals: np.ndarray  # [V, 3]
    albedo: np.ndarray  # [V, 3]
    look: np.ndarray  # [18] hair and light settings that are evaluated per pixel
    points: np.ndarray  # [5, 3] eyes, nose tip, mouth corners
    extra: Extra = field(default_factory=Extra)


class HeadModel:
    """The morphable head, placed in EG3D's world, with everything that only depends on its mean shape."""

    def __init__(self, path: str | Path):
        data = load_file(str(path))
        self.mean = data["vertices"].astype(np.float32)
        self.identity = data["identity"].astype(np.float32)
        self.expressions = data["expression"].astype(np.float32)
        self.region = data["region"]
        self.landmarks = data["landmarks68"].astype(np.int64)
        quads = data["quads"].astype(np.int32)
        second = quads[quads[:, 2] != quads[:, 3]]
        self.triangles = np.concatenate([quads[:, [0, 1, 2]], second[:, [0, 2, 3]]]).astype(np.int32)
        self.eyes = [np.isin(self.region, (4, 5)), np.isin(self.region, (2, 3))]  # x < 0 first
        self.scale, self.offset = self._place()
        self._prepare_masks()

    def five_points(self, vertices: np.ndarray) -> np.ndarray:
        """Eye centres, nose tip and mouth corners, x < 0 first: [5, 3]."""
        eyes = [vertices[mask].mean(0) + [0, 0, 1.2] for mask in self.eyes]
        return np.stack([*eyes, *vertices[self.landmarks[[30, 48, 54]]]])

    def _place(self) -> tuple[float, np.ndarray]:
        have, want = self.five_points(self.mean), FACE_SCALE * STANDARD_POINTS + FACE_CENTRE
        a, b = have - have.mean(0), want - want.mean(0)
        scale = (a * b).sum() / (a * a).sum()
        return float(scale), want.mean(0) - scale * have.mean(0)

    def world(self, vertices: np.ndarray) -> np.ndarray:
        return (vertices * self.scale + self.offset).astype(np.float32)

    def _prepare_masks(self) -> None:
        mean, marks = self.mean, self.mean[self.landmarks]
        xy = mean[:, :2]
        front = (mean[:, 2] > 5.0) & (self.region == 0)
        normals = vertex_normals(mean, self.triangles)
        # brows: along (0 inner .. 1 outer) and across each brow's polyline
        self.brow_t = np.zeros(len(mean), np.float32)
        self.brow_d = np.full(len(mean), 9.0, np.float32)
        self.brow_y = np.zeros(len(mean), np.float32)
        for line in (marks[[21, 20, 19, 18, 17], :2], marks[[22, 23, 24, 25, 26], :2]):
            t, d, dy = _along_polyline(xy, line)
            closer = (d < self.brow_d) & front
            self.brow_t[closer], self.brow_d[closer], self.brow_y[closer] = t[closer], d[closer], dy[closer]
        outer = marks[[*range(48, 60)], :2]
        self.lips = np.where(front & (mean[:, 2] > 8.5), _inside(xy, outer, 0.18), 0).astype(np.float32)
        self.eyelid = np.zeros(len(mean), np.float32)
        self.socket = np.zeros(len(mean), np.float32)
        for ring in (marks[36:42, :2], marks[42:48, :2]):
            d = _distance_to_ring(xy, ring)
            self.eyelid = np.maximum(self.eyelid, np.where(front, np.clip(1.25 - d / 0.30, 0, 1), 0))
            centre = ring.mean(0)
            r = np.hypot((xy[:, 0] - centre[0]) / 2.6, (xy[:, 1] - centre[1]) / 1.7)
            self.socket = np.maximum(self.socket, np.where(front, np.clip(1.35 - r, 0, 1), 0))
        x, y, z = mean.T
        below = _step(-1.6 - 0.02 * x * x, -2.9 - 0.02 * x * x, y) * _step(1.2, -0.8, y - 0.62 * (np.abs(x) - 5.6))
        jaw = _step(-9.6, -8.2, y) * _step(1.5, 3.2, z)
        self.beard = (np.where(self.region <= 1, below * jaw, 0) * (1 - self.lips)).astype(np.float32)
        stripe = _step(-1.15, -1.6, y) * _step(-3.4, -2.9, y) * _step(3.1, 2.4, np.abs(x))
        self.moustache = (np.where(front, stripe, 0) * (1 - self.lips)).astype(np.float32)
        self.cheek = np.where(front, np.exp(-((np.abs(x) - 4.4) ** 2 + (y + 0.3) ** 2) / 5.0), 0).astype(np.float32)
        self.nose = np.where(front, np.exp(-(x**2 + (y - 0.2) ** 2) / 2.0), 0).astype(np.float32)
        self.cavity = _cavity(mean, normals, self.triangles, self.region)
        ear = (np.abs(x) > 7.35) & (z > -3.2) & (z < 2.6) & (y > -3.6) & (y < 4.6)
        self.ear = ear.astype(np.float32)
        self.noise = (
            np.sin(1.3 * x + 0.7 * y) * np.sin(1.1 * z - 0.9 * y + 1.0) + 0.5 * np.sin(2.3 * x - 1.9 * z)
        ).astype(np.float32)


def prepare(model: HeadModel, factors: np.ndarray, extra: Extra | None = None) -> Person:
    """The person of `factors` [64] as a mesh; several views share it."""
    extra = extra or Extra()
    f = np.clip(np.asarray(factors, np.float64), -CLIP, CLIP)
    shape, a, e, light = f[SHAPE], f[APPEARANCE], f[EXPRESSION], f[LIGHT]
    weights = (shape * SHAPE_STRENGTH).astype(np.float32)
    vertices = model.mean + np.tensordot(weights, model.identity[: len(weights)], 1)
    blend = expression_weights(e) if extra.expression is None else extra.expression
    vertices = vertices + np.tensordot(blend.astype(np.float32), model.expressions, 1)
    normals = vertex_normals(vertices.astype(np.float32), model.triangles)

    line = hair_line(a)
    hair = hair_mask(model.mean, model.ear, line)
    hair[model.region > 1] = 0
    volume = np.clip(0.75 + 0.55 * a[6], 0.0, 2.0)
    lift = hair * volume * (1 + 0.18 * model.noise) * _step(3.0, 9.0, model.mean[:, 1] + 0.25 * np.abs(model.mean[:, 2]))
    vertices = vertices + normals * lift[:, None]
    normals = vertex_normals(vertices.astype(np.float32), model.triangles)

    sigmoid = 1 / (1 + np.exp(-(1.1 * a[0] - 0.5)))
    light_skin, mid_skin, dark_skin = (np.array(c) for c in ([0.95, 0.79, 0.70], [0.78, 0.58, 0.44], [0.36, 0.23, 0.17]))
    skin = np.interp(sigmoid, [0, 0.5, 1], [0, 1, 2])
    skin = light_skin + (mid_skin - light_skin) * min(skin, 1) + (dark_skin - mid_skin) * max(skin - 1, 0)
    albedo = np.tile(skin, (len(vertices), 1))
    blush = np.clip(0.10 + 0.09 * a[1], 0, 0.35)[..., None] * (model.cheek + 0.8 * model.nose)[:, None]
    albedo = albedo * (1 - blush) + blush * skin * np.array([1.05, 0.55, 0.5])
    shade = np.clip(0.28 + 0.16 * (a[1] - a[11]) / 1.4, 0.02, 0.6)
    albedo *= 1 - shade * model.socket[:, None] * np.array([0.85, 1.0, 0.95])
    hair_rgb = hair_colour(a[2], a[3])
    lip = skin * np.array([0.80, 0.58, 0.57]) * (1 + 0.10 * a[12]) + np.array([0.05, -0.02, 0.0]) * a[12]
    albedo += model.lips[:, None] * (lip - albedo)
    half = np.clip(0.42 + 0.13 * a[8], 0.16, 0.8)
    centre = 0.10 + 0.24 * a[9] + 0.40 * a[10] * (model.brow_t - 0.45)
    taper = np.clip(1.15 - 0.75 * model.brow_t, 0.25, 1)
    away = np.where(model.brow_d < 2.0, np.abs(model.brow_y - centre) / (half * taper), 9)
    ends = _step(-0.02, 0.05, model.brow_t) * _step(1.01, 0.93, model.brow_t)
    brow = np.clip(1.6 - 1.3 * away, 0, 1) * ends * np.clip(0.78 + 0.2 * a[11], 0.35, 1)
    albedo += brow[:, None] * (hair_rgb * 0.62 - albedo)
    beard = np.clip(0.42 * (a[14] - 0.25), 0, 0.85) * model.beard
    moustache = np.clip(0.42 * (0.6 * a[14] + 0.8 * a[15] - 0.45), 0, 0.85) * model.moustache
    albedo += np.maximum(beard, moustache)[:, None] * (hair_rgb * 0.8 - albedo)
    albedo *= 1 - 0.72 * np.clip(model.eyelid, 0, 1)[:, None] * np.array([0.9, 1, 1])
    albedo *= (1 - model.cavity)[:, None]
    for mask in model.eyes:
        albedo[mask] = eye_colours(model.mean[mask], model.mean[mask].mean(0), a[13])
    angles = extra.light or (0.75 * np.tanh(0.6 * light[0]), 0.65 + 0.3 * np.tanh(0.6 * light[1]), 0.5 + 0.12 * np.tanh(light[2]))
    azimuth, elevation, ambient = angles
    direction = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    cover = np.clip(1.0 + 0.55 * (a[6] + 0.9), 0.25, 1)
    look = np.array([*direction, ambient, *hair_rgb, cover, *line], np.float32)
    return Person(
        model.world(vertices), normals.astype(np.float32), albedo.astype(np.float32), look,
        model.world(model.five_points(vertices)), extra,
    )  # fmt: skip


def expression_weights(e: np.ndarray) -> np.ndarray:
    """Five expression factors to the 16 blend shapes, moderate: the identity stays readable."""
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


def hair_colour(lightness: float, warmth: float) -> np.ndarray:
    dark, brown, fair, grey = (
        np.array(c) for c in ([0.07, 0.055, 0.05], [0.30, 0.19, 0.11], [0.80, 0.66, 0.42], [0.72, 0.71, 0.70])
    )
    t = np.clip(0.5 + 0.33 * lightness, 0, 1) * 2
    colour = dark + (brown - dark) * min(t, 1) + (fair - brown) * max(t - 1, 0)
    red = np.clip(0.35 * (warmth - 0.3), 0, 0.6) * (t > 0.4)
    colour = colour + red * (np.array([0.62, 0.25, 0.10]) * (0.4 + 0.4 * t) - colour)
    ash = np.clip(0.45 * (-warmth - 0.6), 0, 0.8)
    return colour + ash * (grey - colour)


def eye_colours(points: np.ndarray, centre: np.ndarray, iris: float) -> np.ndarray:
    """Sclera, limbus, iris and pupil by the angle from straight ahead."""
    d = points - centre
    angle = np.arctan2(np.hypot(d[:, 0], d[:, 1]), d[:, 2])
    t = np.clip(0.5 + 0.35 * iris, 0, 1) * 2
    brown, green, blue = (np.array(c) for c in ([0.20, 0.11, 0.06], [0.33, 0.36, 0.20], [0.36, 0.52, 0.68]))
    colour = brown + (green - brown) * min(t, 1) + (blue - green) * max(t - 1, 0)
    out = np.tile(np.array([0.90, 0.88, 0.86]), (len(points), 1))
    inside = _step(0.50, 0.44, angle)[:, None]
    out += inside * (colour * 0.6 - out)
    out += _step(0.42, 0.36, angle)[:, None] * (colour - out)
    return out + _step(0.21, 0.17, angle)[:, None] * (0.02 - out)


LINE_AZIMUTHS = (0.0, 0.30, 0.62, 0.92, 1.12, 1.30, 1.48, 1.85, 2.2, 3.2)


def hair_line(a: np.ndarray) -> np.ndarray:
    """Height of the hair line at LINE_AZIMUTHS (0 front, pi back), in the mean head's units: [10]."""
    front, temple, sideburn = 9.7 + 0.85 * a[4], 0.9 * a[5], 1.6 - 1.5 * a[7]
    sides = [front, front - 0.1, front - 0.5 + temple, 7.6 + 0.6 * temple, sideburn, sideburn - 0.6]
    return np.array([*sides, 4.6, 1.5, -3.0, -5.5], np.float32)


@njit(cache=True, nogil=True)
def _hair_at(x: float, y: float, z: float, line: np.ndarray) -> float:
    azimuth = np.arctan2(abs(x), z + 1.0)
    wave = 0.12 * np.sin(5.0 * x + 1.0) + 0.08 * np.sin(11.0 * x)
    height = np.interp(azimuth, np.array(LINE_AZIMUTHS), line)
    t = min(max((y + wave - height) / 0.5 + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True, nogil=True)
def hair_mask(mean: np.ndarray, ear: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Share of hair at each vertex of the mean head: [V]."""
    out = np.empty(len(mean), np.float32)
    for i in range(len(mean)):
        out[i] = _hair_at(mean[i, 0], mean[i, 1], mean[i, 2], line) * (1 - ear[i])
    return out


@njit(cache=True, nogil=True)
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]."""
    out = np.zeros_like(vertices)
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        ax, ay, az = vertices[j] - vertices[i]
        bx, by, bz = vertices[k] - vertices[i]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(len(out)):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        if length > 0:
            out[v] /= length
    return out


@njit(cache=True, nogil=True)
def _rasterise(screen, triangles, size):  # noqa: ANN001, ANN202
    """Nearest triangle of each pixel and its barycentrics. screen [V, 3] is x, y in pixels and depth."""
    depth = np.full((size, size), np.inf, np.float32)
    index = np.full((size, size), -1, np.int32)
    bary = np.zeros((size, size, 2), np.float32)
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        x0, y0, x1, y1, x2, y2 = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1], screen[k, 0], screen[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        right = min(int(np.floor(max(x0, x1, x2) - 0.5)), size - 1)
        top = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
        bottom = min(int(np.floor(max(y0, y1, y2) - 0.5)), size - 1)
        for row in range(top, bottom + 1):
            py = row + 0.5
            for col in range(left, right + 1):
                px = col + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
                if b1 < 0 or b2 < 0 or b1 + b2 > 1:
                    continue
                z = screen[i, 2] * (1 - b1 - b2) + screen[j, 2] * b1 + screen[k, 2] * b2
                if z < depth[row, col]:
                    depth[row, col] = z
                    index[row, col] = t
                    bary[row, col, 0], bary[row, col, 1] = b1, b2
    return index, bary


@njit(cache=True, nogil=True)
def _shade(index, bary, triangles, vertices, normals, albedo, mean, region, ear, look, eye, background, tint, out):  # noqa: ANN001, ANN202
    """Colour of every pixel: hair per pixel, half-Lambert light, a soft highlight."""
    size = index.shape[0]
    lx, ly, lz, ambient = look[0], look[1], look[2], look[3]
    line = look[8:]
    for row in range(size):
        for col in range(size):
            t = index[row, col]
            if t < 0:
                out[row, col] = background
                continue
            i, j, k = triangles[t]
            b1, b2 = bary[row, col, 0], bary[row, col, 1]
            b0 = 1 - b1 - b2
            n = normals[i] * b0 + normals[j] * b1 + normals[k] * b2
            n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9
            p = vertices[i] * b0 + vertices[j] * b1 + vertices[k] * b2
            colour = albedo[i] * b0 + albedo[j] * b1 + albedo[k] * b2
            vx, vy, vz = eye[0] - p[0], eye[1] - p[1], eye[2] - p[2]
            length = np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx / length, vy / length, vz / length
            facing = n[0] * vx + n[1] * vy + n[2] * vz
            if facing < -0.05:  # the inside of the mesh: an open mouth
                out[row, col, 0], out[row, col, 1], out[row, col, 2] = 0.16, 0.06, 0.06
                continue
            shine, power = 0.10, 18.0
            if region[i] >= 2:
                shine, power = 0.55, 60.0
            else:
                m = mean[i] * b0 + mean[j] * b1 + mean[k] * b2
                e = ear[i] * b0 + ear[j] * b1 + ear[k] * b2
                hair = _hair_at(m[0], m[1], m[2], line) * (1 - e) * look[7]
                if hair > 0:
                    angle = np.arctan2(m[0], m[1] - 2.0)
                    strand = 0.90 + 0.10 * np.sin(26 * angle + 1.5 * np.sin(0.6 * m[2]))
                    for ch in range(3):
                        colour[ch] += hair * (look[4 + ch] * strand - colour[ch])
                    shine = 0.10 + hair * 0.05
            lit = n[0] * lx + n[1] * ly + n[2] * lz
            wrapped = max((lit + 0.35) / 1.35, 0.0)
            light = ambient * (0.82 + 0.18 * n[1]) + (1 - ambient) * 1.45 * wrapped * wrapped + 0.08 * max(facing, 0.0)
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            length = np.sqrt(hx * hx + hy * hy + hz * hz)
            gloss = shine * max((n[0] * hx + n[1] * hy + n[2] * hz) / length, 0.0) ** power
            for ch in range(3):
                out[row, col, ch] = min(max((colour[ch] * light + gloss) * tint[ch], 0.0), 1.0)


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
    big = size * supersample
    screen = project(person.vertices, cam2world, intrinsics).astype(np.float32)
    screen[:, :2] *= big
    index, bary = _rasterise(screen, model.triangles, big)
    out = np.empty((big, big, 3), np.float32)
    extra = person.extra
    _shade(
        index, bary, model.triangles, person.vertices, person.normals, person.albedo, model.mean, model.region,
        model.ear, person.look, cam2world[:3, 3].astype(np.float32), np.array(extra.background, np.float32),
        np.array(extra.tint, np.float32), out,
    )  # fmt: skip
    small = out.reshape(size, supersample, size, supersample, 3).mean((1, 3))
    return np.clip(small * 255 + 0.5, 0, 255).astype(np.uint8)


def lookat(yaw: float, pitch: float, radius: float = 2.7, pivot: tuple[float, float, float] | np.ndarray = (0, 0, 0), roll: float = 0.0) -> np.ndarray:
    """cam2world [4, 4] on the sphere of `radius` about the origin. Radians; positive pitch looks from above."""
    origin = radius * np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    forward = np.asarray(pivot, float) - origin
    forward /= np.linalg.norm(forward)
    right = -np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    out = np.eye(4)
    out[:3, 0], out[:3, 1], out[:3, 2], out[:3, 3] = right, down, forward, origin
    return out


def standard_intrinsics() -> np.ndarray:
    """EG3D's normalised intrinsics at a field of view of 18.837 degrees."""
    focal = 1 / (np.tan(18.837 * 3.14159 / 360) * 1.414)
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def draw_factors(rng: np.random.Generator, n: int) -> np.ndarray:
    """Factors [n, 64] on the sphere that the generator's normalised z lives on (mean square 1)."""
    f = rng.standard_normal((n, FACTORS))
    return f / np.sqrt((f**2).mean(1, keepdims=True))


def _along_polyline(xy: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position along (0..1), distance, and signed height above a polyline, of points [N, 2]."""
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    best = np.full(len(xy), np.inf)
    t, dy = np.zeros(len(xy)), np.zeros(len(xy))
    for i, length in enumerate(lengths):
        direction = (line[i + 1] - line[i]) / length
        s = (xy - line[i]) @ direction
        lo = -1.0 if i == 0 else 0.0
        hi = length + (1.0 if i == len(lengths) - 1 else 0.0)
        clipped = np.clip(s, lo, hi)
        foot = line[i] + clipped[:, None] * direction
        d = np.linalg.norm(xy - foot, axis=1)
        closer = d < best
        best[closer] = d[closer]
        t[closer] = ((starts[i] + clipped) / starts[-1])[closer]
        dy[closer] = (xy[:, 1] - foot[:, 1])[closer]
    return t, best, dy


def _distance_to_ring(xy: np.ndarray, ring: np.ndarray) -> np.ndarray:
    closed = np.concatenate([ring, ring[:1]])
    out = np.full(len(xy), np.inf)
    for a, b in zip(closed[:-1], closed[1:], strict=True):
        s = np.clip(((xy - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        out = np.minimum(out, np.linalg.norm(xy - (a + s[:, None] * (b - a)), axis=1))
    return out


def _inside(xy: np.ndarray, polygon: np.ndarray, soft: float) -> np.ndarray:
    """1 inside a polygon, 0 outside, with an edge of width `soft`."""
    odd = np.zeros(len(xy), bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (a[1] > xy[:, 1]) != (b[1] > xy[:, 1])
        at = (b[0] - a[0]) * (xy[:, 1] - a[1]) / (b[1] - a[1] + 1e-12) + a[0]
        odd ^= crosses & (xy[:, 0] < at)
    d = _distance_to_ring(xy, polygon) * np.where(odd, 1, -1)
    return np.clip(0.5 + d / soft, 0, 1)


def _step(a: float | np.ndarray, b: float | np.ndarray, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at a to 1 at b (a may be larger)."""
    t = np.clip((x - a) / (np.asarray(b) - a), 0, 1)
    return t * t * (3 - 2 * t)


def _cavity(mean: np.ndarray, normals: np.ndarray, triangles: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How hollow the mean head is at each vertex, 0..0.55: nostrils, lip line, eye corners."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = np.bincount(edges[:, 0], minlength=len(mean))[:, None].clip(1)

    def average(values: np.ndarray) -> np.ndarray:
        out = np.stack(
            [np.bincount(edges[:, 0], values[edges[:, 1], c], len(mean)) for c in range(values.shape[1])], axis=1
        )
        return out / count

    smooth = mean.astype(np.float64)
    for _ in range(6):
        smooth = average(smooth)
    hollow = ((smooth - mean) * normals).sum(1)
    hollow = np.where(region == 0, np.clip(hollow / 0.35, 0, 0.55), 0)[:, None]
    return average(hollow)[:, 0].astype(np.float32)


def sheet(model: HeadModel, people: int, yaws: list[float], size: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    rows = []
    for factors in draw_factors(rng, people):
        person = prepare(model, factors)
        views = [render_person(model, person, lookat(y, 0.05, pivot=(0, 0, 0.1)), standard_intrinsics(), size) for y in yaws]
        rows.append(np.concatenate(views, axis=1))
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
