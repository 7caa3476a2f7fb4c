"""The model inside the package: it is whole, small, of one piece with its calibration, and makes heads."""

from __future__ import annotations

import json

import pytest
import torch
from real_nets import load_dlib, or_skip

from guide_hub import hub
from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label
from guide_hub.evaluation.calibration import shipped, threshold_at
from guide_hub.evaluation.views import embed_views, render_views, yaw_cameras
from guide_hub.faces.detection import Detector
from guide_hub.faces.registry import load_identity
from guide_hub.recipe import load_recipe
from guide_hub.record import file_sha256
from guide_hub.sheets import to_picture

NAME = "builtin:synthetic-heads"


@pytest.fixture(scope="module")
def source() -> hub.Source:
    return hub.resolve(NAME)


@pytest.fixture(scope="module")
def model(source):
    return EG3D.from_pretrained(str(source.folder)).requires_grad_(False)


@pytest.fixture(scope="module")
def people(model):
    z = torch.randn(24, model.config.z_dim, generator=torch.Generator().manual_seed(5))
    return model.mapping(z, camera_label(0.0).expand(24, -1))


def larger(image):
    return torch.nn.functional.interpolate(image[None], scale_factor=2, mode="bicubic")[0]


def test_bundle_is_small_and_licensed(source):
    files = [f for f in source.folder.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 12_000_000
    assert source.license_fields == {"license": "mit"}
    assert source.license_file is not None
    assert "Institute for Creative Technologies" in source.license_file.read_text()


def test_calibration_belongs_to_these_weights(source, model):
    digest = file_sha256(source.weights_file)
    found = shipped(source.folder, digest, "heads-b", load_recipe("heads").gate.far)
    assert found is not None
    assert shipped(source.folder, "0" * 64, "heads-b", 1e-3) is None
    judge = load_identity("heads-b")
    z = torch.randn(120, model.config.z_dim, generator=torch.Generator().manual_seed(123))
    ws = model.mapping(z, camera_label(0.0).expand(120, -1))
    cameras = yaw_cameras(model, load_recipe("heads").camera, 3)
    again, _ = threshold_at(embed_views(model, ws, cameras, judge), 1e-3)
    assert again == pytest.approx(found.threshold, abs=0.06)  # other people, fewer of them


def test_w_avg_and_truncation(model, people):
    z = torch.randn(2000, model.config.z_dim, generator=torch.Generator().manual_seed(0))
    ws = model.mapping(z, camera_label(0.0).expand(2000, -1))[:, 0]
    spread = (ws - model.w_avg).norm(dim=1).median()
    assert (ws.mean(0) - model.w_avg).norm() < 0.1 * spread
    front = camera_label(0.0, -0.1)
    z = z[:6]
    pictures = {
        psi: render_views(model, model.mapping(z, front.expand(6, -1), truncation_psi=psi), front)[:, 0]
        for psi in (0.0, 0.5, 1.0)
    }
    varied = {psi: float(images.std(0).mean()) for psi, images in pictures.items()}
    assert varied[0.0] < 1e-5 < varied[0.5] < varied[1.0]


def test_faces_are_found_and_the_camera_turns_the_head(model, people):
    yaws = torch.tensor([-0.5, 0.0, 0.5])
    images = render_views(model, people, camera_label(yaws, -0.1, pivot=(0.0, 0.0, 0.1)))
    detector = Detector()
    noses, found = [], 0
    for row in images:
        faces = [detector.detect(to_picture(larger(image))) for image in row]
        found += sum(bool(f) and f[0].probability >= 0.9 for f in faces)
        if all(faces):
            points = [f[0].points for f in faces]
            noses.append([p[2, 0] - (p[0, 0] + p[1, 0]) / 2 for p in points])  # nose against the eyes' middle
    assert found >= 0.95 * images.shape[0] * images.shape[1]
    left, middle, right = torch.tensor(noses).mean(0).tolist()
    assert left > middle > right  # seen from its right (yaw < 0), the nose points to the picture's right


@pytest.mark.slow
def test_a_real_recogniser_tells_them_apart(model, people):
    dlib, detector = or_skip(load_dlib), Detector()
    images = render_views(model, people, camera_label(torch.tensor([-0.3, 0.3]), -0.1, pivot=(0.0, 0.0, 0.1)))
    vectors = torch.stack(
        [
            torch.stack(
                [dlib.embed(p, detector.detect(p)[0].points) for p in (to_picture(larger(i)) for i in row)]
            )
            for row in images
        ]
    )
    distance = torch.cdist(vectors[:, 0], vectors[:, 1])
    same = distance.diagonal()
    other = distance[~torch.eye(len(distance), dtype=torch.bool)]
    assert (same[:, None] < other[None, :]).float().mean() >= 0.97


def test_its_config_names_networks_that_fit(source, model):
    config = json.loads(source.config_file.read_text())
    assert config["domain"]["recipe"] == "heads-fast"
    assert config["domain"]["identity_loss"] != config["domain"]["identity_judge"]
