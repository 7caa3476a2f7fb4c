"""Checks the renderer by real networks: does a detector find faces, does a recogniser tell the people apart?

    python check_renders.py --head FILE [--people 100] [--sheet sheet.png]

MTCNN looks at each person at a random yaw and at -30 and 30 degrees, once drawn at 128 px and upscaled
to 256 (what the generator's pictures get) and once drawn at 256. dlib's recogniser (`tests/real_nets.py`
fetches it by package name) compares the 256 px pictures: the same person in another view ("view"), and
in another view, expression and light ("photo"), against other people. Also the time a picture takes.
Aims: detection >= 0.95 at p >= 0.9, AUC >= 0.99.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image

import heads
from guide_hub.faces.detection import Detector
from make_data import photo_factors

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
SURE = 0.9
TURN = math.radians(30)


def view(
    model: heads.HeadModel, factors: np.ndarray, yaw: float, size: int, extra: heads.Extra | None = None
) -> np.ndarray:
    camera = heads.lookat(yaw, 0.05, pivot=(0, 0, 0.1))
    person = heads.prepare(model, factors, extra)
    return heads.render_person(model, person, camera, heads.standard_intrinsics(), size)


def timing(model: heads.HeadModel, people: int = 20) -> dict[str, float]:
    """Milliseconds of CPU time for a mesh and for a picture of 128 px, one core, after compilation."""
    factors = heads.draw_factors(np.random.default_rng(9), people)
    camera, k = heads.lookat(0.2, 0.05), heads.standard_intrinsics()
    heads.render_person(model, heads.prepare(model, factors[0]), camera, k)
    start = time.process_time()
    persons = [heads.prepare(model, f) for f in factors]
    middle = time.process_time()
    for person in persons:
        heads.render_person(model, person, camera, k, 128, 3)
    end = time.process_time()
    for person in persons:
        heads.render_person(model, person, camera, k, 128, 2)
    last = time.process_time()
    return {
        "prepare_ms": 1e3 * (middle - start) / people,
        "render_ms_3x": 1e3 * (end - middle) / people,
        "render_ms_2x": 1e3 * (last - end) / people,
    }


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """How often a pair of one person is nearer than a pair of two."""
    ordered = np.sort(other)
    below, up_to = np.searchsorted(ordered, same, "left"), np.searchsorted(ordered, same, "right")
    return float(1 - (below + up_to).mean() / 2 / len(other))


def check(model: heads.HeadModel, people: int, seed: int) -> dict[str, float]:
    from real_nets import load_dlib

    dlib, detector = load_dlib(), Detector()
    rng = np.random.default_rng(seed)
    factors = heads.draw_factors(rng, people)
    found: dict[str, list[bool]] = {"random_128": [], "random_256": [], "turned_128": [], "turned_256": []}
    embedded: dict[str, list[np.ndarray]] = {"view": [], "photo": []}
    who: dict[str, list[int]] = {"view": [], "photo": []}
    errors = []

    def look(pixels: np.ndarray, name: str) -> object | None:
        picture = Image.fromarray(pixels)
        if picture.width < 256:
            picture = picture.resize((256, 256), Image.Resampling.BICUBIC)
        faces = [face for face in detector.detect(picture) if face.probability >= SURE]
        found[name].append(bool(faces))
        return (picture, faces[0].points) if faces else None

    for i, own in enumerate(factors):
        turns = [("random", rng.uniform(-TURN, TURN)), ("turned", -TURN), ("turned", TURN)]
        for name, yaw in turns:
            look(view(model, own, yaw, 128), f"{name}_128")
            for kind, shown in (("view", own), ("photo", photo_factors(own, rng))):
                pixels = view(model, shown, yaw, 256)
                seen = look(pixels, f"{name}_256")
                if seen is None:
                    continue
                embedded[kind].append(dlib.embed(*seen).numpy())
                who[kind].append(i)
                if name == "random" and kind == "view":
                    truth = true_points(model, shown, yaw) * 256
                    errors.append(float(np.linalg.norm(seen[1] - truth, axis=1).mean()))
    out = {f"mtcnn_{name}": float(np.mean(hits)) for name, hits in found.items()}
    for kind, vectors in embedded.items():
        stacked, ids = np.stack(vectors), np.array(who[kind])
        distance = np.linalg.norm(stacked[:, None] - stacked[None], axis=2)
        upper = np.triu(np.ones_like(distance, bool), 1)
        mine = ids[:, None] == ids
        same, other = distance[upper & mine], distance[upper & ~mine]
        out |= {
            f"{kind}_auc": auc(same, other),
            f"{kind}_same": float(same.mean()),
            f"{kind}_other": float(other.mean()),
            f"{kind}_other_p1": float(np.quantile(other, 0.01)),
        }
    return out | {"landmark_error_px_256": float(np.mean(errors))}


def true_points(model: heads.HeadModel, factors: np.ndarray, yaw: float) -> np.ndarray:
    """The model's own five points in the picture, in picture widths: [5, 2]."""
    person = heads.prepare(model, factors)
    camera = heads.lookat(yaw, 0.05, pivot=(0, 0, 0.1))
    return heads.project(person.points, camera, heads.standard_intrinsics())[:, :2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of 8 people and 7 yaws")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = heads.HeadModel(args.head)
    if args.sheet:
        yaws = [float(y) for y in np.linspace(-0.7, 0.7, 7)]
        heads.sheet(model, 8, yaws, 128, args.seed).save(args.sheet)
    figures = timing(model) | check(model, args.people, args.seed)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
