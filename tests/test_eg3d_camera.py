"""Cameras and rays against the reference's numbers."""

import math
from pathlib import Path

import pytest
import torch
from eg3d_golden import OP, close, vectors

from guide_hub.eg3d.camera import (
    camera_label,
    fov_to_intrinsics,
    lookat_cam2world,
    make_label,
    rays,
    sample_cam2world,
    split_label,
)

CAMERAS = [  # yaw, pitch, pivot, radius
    (0, 0, (0, 0, 0.2), 2.7),
    (0.3, -0.2, (0, 0, 0.2), 2.7),
    (-0.7, 0.15, (0, 0, 0), 2.7),
    (math.pi / 12, -0.2, (0, 0, 0), 2.7),
    (1.2, -1.0, (0.1, -0.05, 0.2), 1.7),
]


@pytest.fixture(scope="module")
def ops(shared: Path) -> dict[str, torch.Tensor]:
    return vectors(shared, "ops")


@pytest.mark.parametrize("i", range(len(CAMERAS)))
def test_lookat_cameras(ops, i):
    yaw, pitch, pivot, radius = CAMERAS[i]
    h, v = math.pi / 2 + yaw, math.pi / 2 + pitch
    close(lookat_cam2world(h, v, pivot, radius)[0], ops[f"cam/{i}/lookat"], OP)
    close(sample_cam2world(1, h_mean=h, v_mean=v, radius=radius)[0], ops[f"cam/{i}/gauss"], OP)
    label = camera_label(yaw, pitch, radius, pivot)
    close(label[0, :16].view(4, 4), ops[f"cam/{i}/lookat"], OP)


def test_many_cameras_at_once(ops):
    yaw, pitch = (torch.tensor([camera[k] for camera in CAMERAS]) for k in (0, 1))
    pivot, radius = torch.tensor([c[2] for c in CAMERAS]), torch.tensor([c[3] for c in CAMERAS])
    cam2world, intrinsics = split_label(camera_label(yaw, pitch, radius, pivot))
    close(cam2world, torch.stack([ops[f"cam/{i}/lookat"] for i in range(len(CAMERAS))]), OP)
    assert intrinsics.shape == (5, 3, 3)


def test_intrinsics(ops):
    for fov in (18.837, 12):
        close(fov_to_intrinsics(fov), ops[f"cam/intrinsics_{fov}"], 0)


def test_random_cameras():
    draw = {"h_std": 0.5, "v_std": 0.3}
    one, same = (sample_cam2world(4, generator=torch.Generator().manual_seed(5), **draw) for _ in range(2))
    assert torch.equal(one, same)
    close(one[:, :3, 3].norm(dim=1), torch.full((4,), 2.7), 1e-5)
    wide = sample_cam2world(
        500, h_std=0.5, distribution="uniform", generator=torch.Generator().manual_seed(5)
    )
    azimuth = torch.atan2(wide[:, 2, 3], -wide[:, 0, 3]) - math.pi / 2
    assert 0.48 < azimuth.abs().max() <= 0.5001


def test_labels_survive_the_round_trip():
    c = torch.randn(3, 25)
    assert torch.equal(make_label(*split_label(c)), c)


def test_rays(ops):
    origins, directions = rays(ops["rays/c2w"], ops["rays/K"], 16)
    close(origins, ops["rays/origins"], 0)
    close(directions, ops["rays/dirs"], 1e-6)


def test_cameras_are_differentiable():
    yaw = torch.tensor([0.2], requires_grad=True)
    _, directions = rays(*split_label(camera_label(yaw)), 4)
    assert torch.autograd.grad(directions.square()[..., 0].sum(), yaw)[0].abs().item() > 1e-3
