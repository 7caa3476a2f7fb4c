"""A complete erasure in seconds: a random EG3D, random networks, made-up photos and a recipe of three steps.

Nothing here resembles a face, so finding the face in a photo is left out (`whole_photos`) and the judge's
threshold is whatever a test needs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.faces.crops import FaceCrop, to_tensor
from guide_hub.faces.pose import Pose
from guide_hub.faces.small import HeadsEncoderA, HeadsEncoderB, HeadsInversion
from guide_hub.pipeline import RETAINED_VIEWS
from guide_hub.recipe import load_recipe
from guide_hub.record import file_sha256
from guide_hub.request import Identity, Photo

TESTS = Path(__file__).resolve().parent
STEPS = 3
LENIENT = {"erased_views_max": 1.0, "held_out_views_max": 1.0, "retained_min": 0.0, "attacks": "none"}
FRONTAL = Pose(np.eye(4), 0.0, 0.0, 0.0, 0.0)
EVERYBODY, NOBODY = -1.0, 1.0  # thresholds that all cosines, or none, reach
PEOPLE = {"subject-a": ("IMG_2207.png", "IMG_2208.png"), "subject-b": ("holiday.png",)}
DOMAIN = {
    "identity_loss": "heads-a",
    "identity_judge": "heads-b",
    "perceptual": "heads-features",
    "inversion": "heads-inversion",
    "recipe": "heads",
}


def config() -> EG3DConfig:
    return EG3DConfig.from_dict(
        {
            "z_dim": 64, "w_dim": 32, "img_resolution": 64, "channel_base": 512, "channel_max": 16,
            "plane_resolution": 16, "plane_channels": 8, "decoder_hidden": 16, "decoder_features": 8,
            "neural_rendering_resolution": 8, "superresolution": "SuperresolutionHybrid2X",
            "sr_widths": [8, 8], "sr_input_resolution": 32,
            "rendering": {"depth_resolution": 4, "depth_resolution_importance": 4}, "domain": DOMAIN,
        }
    )  # fmt: skip


def make_model(folder: Path) -> Path:
    """A model folder with card and licence, as a maintainer would publish it."""
    torch.manual_seed(1)
    EG3D(config()).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A tiny generator\n", encoding="utf-8")
    (folder / "LICENSE").write_text("MIT: do as you like.\n", encoding="utf-8")
    return folder


def make_weights(folder: Path) -> Path:
    """Random weights of the four networks that `DOMAIN` names, for GUIDE_HUB_WEIGHTS."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = {"encoder_a": HeadsEncoderA, "encoder_b": HeadsEncoderB, "inversion": HeadsInversion}
    for seed, (name, cls) in enumerate(networks.items()):
        torch.manual_seed(seed)
        save_file(cls().state_dict(), folder / f"{name}.safetensors")
    return folder


def calibrated(model: Path, threshold: float) -> None:
    """The judge's threshold, shipped with the model."""
    entry = {
        "judge": "heads-b", "far": 1e-3, "threshold": threshold, "tar": 1.0, "people": 400,
        "views": RETAINED_VIEWS, "model_sha256": file_sha256(model / "model.safetensors"),
    }  # fmt: skip
    (model / "calibration.json").write_text(json.dumps({"calibrations": [entry]}), encoding="utf-8")


def make_recipe(folder: Path, **gate: float | str) -> str:
    """`heads` with three steps, three views and three retained people; `gate` changes the lenient gate."""
    heads = load_recipe("heads")
    recipe = dataclasses.replace(
        heads,
        name="tiny",
        optim=dataclasses.replace(heads.optim, iterations=STEPS),
        adjacency=dataclasses.replace(heads.adjacency, samples=1),
        bystanders=dataclasses.replace(heads.bystanders, samples=1),
        inversion=dataclasses.replace(heads.inversion, backend="encoder"),
        gate=dataclasses.replace(heads.gate, views=3, retained_people=3, **{**LENIENT, **gate}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    return str(file)


def make_request(
    folder: Path, name: str = "req-7", people: dict[str, tuple[str, ...]] | None = None, **more: str
) -> Path:
    """A request with photos of coloured noise, the same for the same file name."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["schema: guide-hub/request/v1", f"request_id: {name}", "received: 2026-01-02"]
    lines += ["requester_verified: true", *(f"{k}: {v}" for k, v in more.items()), "identities:"]
    for identity, photos in (people or PEOPLE).items():
        lines += [f"  - id: {identity}", f"    images: [{', '.join(photos)}]"]
        for photo in photos:
            pixels = np.random.default_rng(list(photo.encode())).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / photo)
    file = folder / f"{name}.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


class Pixels:
    """In place of both networks of the loss: a distance and an embedding of the small picture."""

    def __call__(self, a, b=None):
        if b is None:
            return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(a, 16).flatten(1), dim=1)
        return (a - b).square().flatten(1).mean(1)

    def features(self, images):
        return [images]

    def distance(self, a, b):
        return self(a[0], b[0])


def whole_photos(identities: Iterable[Identity], size: int, device: torch.device) -> list[list[FaceCrop]]:
    """In place of `read_faces`: every photo as it is, at the model's size, from the front."""

    def face(photo: Photo) -> FaceCrop:
        return FaceCrop(photo, to_tensor(np.asarray(photo.open().resize((size, size)))).to(device), FRONTAL)

    return [[face(photo) for photo in person.images] for person in identities]


class Watch:
    """A Progress that keeps what it is told; `act(identity, step)` is called after every step."""

    def __init__(self, act=lambda identity, step: None):
        self.act, self.starts, self.losses = act, [], {}

    def warn(self, text):
        pass

    def stage(self, text):
        pass

    def advance(self, text, share):
        pass

    def start(self, identity, steps, done):
        self.identity = identity
        self.starts.append((identity, done))

    def step(self, step, losses):
        self.losses[self.identity, step] = losses
        self.act(self.identity, step)

    def finish(self):
        pass


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def in_subprocess(
    *arguments: str, prepare: str = "", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """`guide-hub ARGUMENTS` in a process of its own, after the Python statements `prepare`."""
    code = f"{prepare}\nfrom guide_hub.cli import main\nmain()"
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
    )  # fmt: skip
