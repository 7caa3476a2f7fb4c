"""Optimisation of latents and cameras against photos: camera alone, then W, then W+ (EG3D's projector).

Each of the photos apart (`refine`), or all of one person together (`refine_person`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import YAW
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.inversion.pose import pose_label

POSE_LR = 5e-3  # radians that a first step turns each angle by
L2_WEIGHT = 1.0  # of the mean squared error over the face, pictures in [-1, 1]; the perceptual distance has 1
IDENTITY_WEIGHT = 1.0  # of 1 - cosine, the mean of the photo's view and another
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fill (0, 1) evenly: the other views' yaws
DELTA_WEIGHT = 1.0  # of (distance of W+'s rows from their mean / scale) ** 2
OFFSET_WEIGHT = 1.0  # of (distance of a photo's latent from its person's / scale) ** 2
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps
NOISE_UNTIL = 0.75  # share of the steps in W after which its noise is gone
CHUNK, CHUNK_SIZE = 8, 128  # photos in one graph, at that picture size; fewer in proportion to the pixels


@dataclass(frozen=True)
class Schedule:
    """Steps of each stage and how far they go. `lr` is the length of a first step of a latent (whole-tensor
    norm), `scale` the median ||w - w_avg||, `noise` the standard deviation of W's noise in that of W."""

    steps: int
    lr: float
    scale: float = 1.0
    camera_steps: int = 0
    wplus_steps: int = 0
    noise: float = 0.0
    seed: int = 0


class Chart(Protocol):
    """Coordinates of W, of the same shape, that Adam moves in place of w, and how far they may go."""

    def inward(self, w: Tensor) -> Tensor: ...

    def outward(self, v: Tensor) -> Tensor: ...

    def bound(self, v: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Task:
    """What the losses need of photos [P, 3, S, S] beside their latents."""

    model: EG3D
    perceptual: PerceptualDistance
    identity: IdentityEncoder
    target: Tensor
    wanted: Tensor
    mask: Tensor
    schedule: Schedule
    generator: torch.Generator
    chart: Chart | None = None


def refine(
    model: EG3D,
    photos: Tensor,
    ws: Tensor,
    pose: Tensor,
    perceptual: PerceptualDistance,
    identity: IdentityEncoder,
    schedule: Schedule,
    chart: Chart | None = None,
) -> tuple[Tensor, Tensor]:
    """Adam on w and pose of photos [P, 3, H, W] that share nothing but the noise: ws [P, num_ws, w_dim], pose
    [P, 3].

    A start whose rows are alike stays in W, one row for all layers, until the steps of W+; one whose rows
    differ is in W+ all along. Rays and the backbone's noise are deterministic, the model's parameters take no
    gradient. A few photos go at a time. With a `chart`, the start and every step stay within its bound.
    """
    found, turned, chunk = torch.empty_like(ws), torch.empty_like(pose), chunk_of(model.config.img_resolution)
    in_w = [_in_w(w) for w in ws]
    for kind in (True, False):
        those = [i for i, alike in enumerate(in_w) if alike == kind]
        for first in range(0, len(those), chunk):
            part = those[first : first + chunk]
            task = _task(model, photos[part], perceptual, identity, schedule, chart)
            found[part], _, turned[part] = _fit(task, ws[part], None, pose[part])
    return found, turned


def _in_w(ws: Tensor) -> bool:
    """Whether all rows of ws [..., num_ws, w_dim] are alike."""
    return torch.allclose(ws, ws[..., :1, :])


def refine_person(
    model: EG3D,
    photos: Tensor,
    ws: Tensor,
    pose: Tensor,
    perceptual: PerceptualDistance,
    identity: IdentityEncoder,
    schedule: Schedule,
    shared: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One latent for all photos of a person, and a small offset and a camera for each: the photos' latents,
    their poses, and the shared latent [1, num_ws, w_dim]. It starts at `shared`, the photos' at ws; without
    it all start at the mean of ws. See `refine`."""
    task = _task(model, photos, perceptual, identity, schedule)
    start = ws.mean(0, keepdim=True) if shared is None else shared
    offset = torch.zeros_like(ws) if shared is None else ws - shared
    found, moved, turned = _fit(task, start, offset, pose)
    assert moved is not None
    return found + moved, turned, found


def chunk_of(size: int) -> int:
    """How many photos of `size` pixels a side go through one graph: 8 at 128, 1 at 512."""
    return max(1, round(CHUNK * (CHUNK_SIZE / size) ** 2))


def _task(
    model: EG3D,
    photos: Tensor,
    perceptual: PerceptualDistance,
    identity: IdentityEncoder,
    schedule: Schedule,
    chart: Chart | None = None,
) -> _Task:
    size = model.config.img_resolution
    target = torch.nn.functional.interpolate(photos, (size, size), mode="bilinear", antialias=True)
    with torch.no_grad():
        wanted = torch.cat([identity(part) for part in target.split(chunk_of(size))])
    generator = torch.Generator().manual_seed(schedule.seed)
    return _Task(
        model, perceptual, identity, target, wanted, centre_mask(size).to(target), schedule, generator, chart
    )


def _fit(
    task: _Task, ws: Tensor, offset: Tensor | None, pose: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The three stages. ws [P or 1, num_ws, w_dim], offset [P, num_ws, w_dim] or None, pose [P, 3]."""
    schedule, rows = task.schedule, task.model.num_ws
    if _in_w(ws):
        ws, offset = ws[:, :1], offset[:, :1] if offset is not None else None
    with _frozen(task.model):
        pose = _stage(task, ws, offset, pose, schedule.camera_steps, camera_only=True)[2]
        ws, offset, pose = _stage(task, ws, offset, pose, schedule.steps)
        ws = ws.expand(-1, rows, -1)
        ws, offset, pose = _stage(task, ws, offset, pose, schedule.wplus_steps)
    return ws.contiguous(), offset.expand(-1, rows, -1) if offset is not None else None, pose


def _stage(
    task: _Task,
    ws: Tensor,
    offset: Tensor | None,
    pose: Tensor,
    steps: int,
    *,
    camera_only: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    if steps == 0:
        return ws, offset, pose
    schedule, chart = task.schedule, None if camera_only else task.chart
    if chart is not None:
        ws = chart.bound(chart.inward(ws))
    coordinate = math.sqrt(ws.shape[2] * task.model.num_ws)
    w, angles = ws.clone().requires_grad_(not camera_only), pose.clone().requires_grad_()
    moved = offset.clone().requires_grad_(not camera_only) if offset is not None else None
    groups = [([angles], POSE_LR)]
    if not camera_only:
        groups.append(([w] if moved is None else [w, moved], schedule.lr / coordinate))
    optimizer = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in groups], betas=(0.9, 0.99))
    chunk = chunk_of(task.target.shape[-1])
    for step in range(steps):
        for group, (_, peak) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = peak * ramp((step + 0.5) / steps)
        optimizer.zero_grad(set_to_none=True)
        blur = 0.0
        if not camera_only and ws.shape[1] == 1:
            blur = schedule.noise * schedule.scale * max(0, 1 - step / steps / NOISE_UNTIL) ** 2 / coordinate
        yaw = YAW * (2 * (step * GOLDEN % 1) - 1)
        for part in torch.arange(len(pose)).split(chunk):
            own = w[part] if len(w) == len(pose) else w
            if chart is not None:
                own = chart.outward(own)
            if moved is not None:
                own = own + moved[part]
            _loss(task, own, angles[part], part, blur, None if camera_only else yaw).backward()
        if moved is not None and not camera_only:
            size = moved.square().sum() * (task.model.num_ws / moved.shape[1])
            (OFFSET_WEIGHT * size / schedule.scale**2).backward()
        optimizer.step()
        if chart is not None:
            with torch.no_grad():
                w.copy_(chart.bound(w))
    if chart is not None:
        w = chart.outward(w)
    return w.detach(), moved.detach() if moved is not None else None, angles.detach()


def _loss(task: _Task, w: Tensor, angles: Tensor, part: Tensor, blur: float, yaw: float | None) -> Tensor:
    """The sum over photos `part` [N] of their losses at w [N, 1 or num_ws, w_dim] and pose [N, 3].

    With a `yaw` the person must be alike from there too: a latent can match one view alone.
    """
    model, schedule, rows = task.model, task.schedule, task.model.num_ws
    target, wanted, n = task.target[part], task.wanted[part], len(part)
    if blur:
        w = w + blur * torch.randn(n, 1, w.shape[2], generator=task.generator).to(w)
    ws = w.expand(n, rows, -1)
    # half the resolution, which EG3D's training passes through, takes half the time
    rays = max(model.config.neural_rendering_resolution // 2, 1)
    planes = model.planes(ws, noise_mode="const")

    def seen(pose: Tensor) -> Tensor:
        c = pose_label(pose)
        out = model.render(planes, ws, c, deterministic=True, neural_rendering_resolution=rays)
        return out["image"]

    image = seen(angles)
    l2 = ((image - target).square() * task.mask).flatten(1).mean(1)
    alike = 1 - (task.identity(image) * wanted).sum(1)
    if yaw is not None:
        other = seen(torch.tensor([[yaw, 0.0, 0.0]], device=w.device).expand(n, -1))
        alike = (alike + 1 - (task.identity(other) * wanted).sum(1)) / 2
    loss = task.perceptual(image * task.mask, target * task.mask) + L2_WEIGHT * l2 + IDENTITY_WEIGHT * alike
    if w.shape[1] > 1:
        spread = (w - w.mean(1, keepdim=True)).square().sum((1, 2))
        loss = loss + DELTA_WEIGHT * spread / schedule.scale**2
    return loss.sum()


def ramp(t: float) -> float:
    """The learning rate's share at t in (0, 1): linear over the first steps, a cosine over the last."""
    return min(1.0, t / RAMP_UP) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / RAMP_DOWN)))


@contextmanager
def _frozen(model: EG3D) -> Iterator[None]:
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def centre_mask(size: int) -> Tensor:
    """1 over the face, 0 towards the corners, [1, 1, size, size]: a photo's ground is none of the person."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r = torch.sqrt((x / 0.75) ** 2 + ((y - 0.05) / 0.95) ** 2)
    return (1 - ((r - 0.9) / 0.2).clamp(0, 1))[None, None]
