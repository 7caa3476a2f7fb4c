"""Draws the pictures that the bundle of `builtin:synthetic-heads` is trained on.

    python make_data.py pictures --head FILE --out runs/pictures --people 6700 --views 3
    python make_data.py photos --head FILE --out runs/photos-a --people 3000 --views 8 --seed 100

`pictures` supervise the generator: the person's own expression and light, EG3D's cameras, white ground.
`photos` train the encoders: one person under many expressions, lights, grounds, tints and crops. People come
in order of a seeded stream, so another `--seed` means other people.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

import heads


def picture_camera(rng: np.random.Generator) -> np.ndarray:
    yaw = np.clip(rng.normal(0, 0.40), -0.9, 0.9)
    pitch = np.clip(rng.normal(0.07, 0.14), -0.4, 0.5)
    return heads.lookat(yaw, pitch, rng.uniform(2.62, 2.85), (0, 0, rng.uniform(0, 0.2)), rng.normal(0, 0.06))


def photo_camera(rng: np.random.Generator, yaw: float = 0.7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """cam2world, intrinsics of a slightly wrong crop, and (yaw, pitch, roll)."""
    pose = np.array(
        [
            np.clip(rng.normal(0, yaw / 2), -yaw, yaw),
            np.clip(rng.normal(0.04, 0.12), -0.3, 0.35),
            rng.normal(0, 0.08),
        ]
    )
    k = heads.standard_intrinsics()
    k[:2, :2] *= np.exp(rng.normal(0, 0.03))
    k[:2, 2] += rng.normal(0, 0.012, 2)
    return heads.lookat(pose[0], pose[1], 2.7, heads.FACE_CENTRE, pose[2]), k, pose


def photo_factors(person: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The person with another expression and light of the same strength, so the factors' norm stays."""
    out = person.copy()
    nuisance = slice(heads.EXPRESSION.start, heads.LIGHT.stop)
    direction = rng.standard_normal(nuisance.stop - nuisance.start)
    out[nuisance] = direction / np.linalg.norm(direction) * np.linalg.norm(person[nuisance])
    return out


def photo_extra(rng: np.random.Generator) -> heads.Extra:
    ground = heads.WHITE if rng.random() < 0.4 else tuple(rng.uniform(0.15, 1.0, 3))
    light = None
    if rng.random() < 0.4:
        light = (rng.uniform(-0.9, 0.9), rng.uniform(0.2, 1.1), rng.uniform(0.4, 0.75))
    return heads.Extra(ground, tuple(rng.uniform(0.9, 1.06, 3)), None, light)


def draw(
    head: str, mode: str, seed: int, first: int, people: int, views: int, size: int
) -> dict[str, np.ndarray]:
    model = heads.HeadModel(head)
    out: dict[str, list] = {"images": [], "factors": [], "cam2world": [], "pose": [], "person": []}
    for i in range(first, first + people):
        rng = np.random.default_rng([seed, i])
        factors = heads.draw_factors(rng, 1)[0]
        mesh = heads.prepare(model, factors) if mode == "pictures" else None
        for _ in range(views):
            if mode == "pictures":
                camera, k, pose, shown, own = (
                    picture_camera(rng),
                    heads.standard_intrinsics(),
                    np.zeros(3),
                    mesh,
                    factors,
                )
            else:
                camera, k, pose = photo_camera(rng)
                own = photo_factors(factors, rng)
                shown = heads.prepare(model, own, photo_extra(rng))
            out["images"].append(heads.render_person(model, shown, camera, k, size, supersample=2))
            out["factors"].append(own)
            out["cam2world"].append(camera)
            out["pose"].append(pose)
            out["person"].append(i)
    return {name: np.stack(values) for name, values in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=["pictures", "photos"])
    parser.add_argument("--head", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    n, block = args.people * args.views, 50
    images = open_memmap(args.out / "images.npy", "w+", np.uint8, (n, args.size, args.size, 3))
    rest = {
        "factors": np.zeros((n, heads.FACTORS), np.float32),
        "cam2world": np.zeros((n, 4, 4), np.float32),
        "pose": np.zeros((n, 3), np.float32),
        "person": np.zeros(n, np.int64),
    }
    with ProcessPoolExecutor(args.workers) as pool:
        starts = range(0, args.people, block)
        jobs = [
            pool.submit(
                draw, args.head, args.mode, args.seed, s, min(block, args.people - s), args.views, args.size
            )
            for s in starts
        ]
        for start, job in zip(starts, jobs, strict=True):
            made = job.result()
            part = slice(start * args.views, start * args.views + len(made["images"]))
            images[part] = made["images"]
            for name, values in rest.items():
                values[part] = made[name]
    images.flush()
    for name, values in rest.items():
        np.save(args.out / f"{name}.npy", values)


if __name__ == "__main__":
    main()
