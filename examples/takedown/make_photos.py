"""Renders the photos of the example request: two people of the morphable head that nothing was trained on.

    python make_photos.py --head FILE

Each photo has its own camera, expression, light and ground; the first is near the front. Writes `photos/`
beside this file. Needs the `heads` extra; `../synthetic_heads/fetch_head.py` makes the head file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "synthetic_heads"))

import heads
from make_data import photo_camera, photo_extra, photo_factors

PEOPLE = {"a": 20, "b": 11}  # places in the held-out stream; chosen for open eyes
PHOTOS, SIZE, QUALITY = 3, 256, 92
YAW, FRONT = np.radians(35), np.radians(12)


def photos_of(model: heads.HeadModel, index: int) -> list[np.ndarray]:
    """One person's pictures [SIZE, SIZE, 3] uint8, the first with |yaw| < 12 degrees."""
    rng = np.random.default_rng([4242, 90_000 + index])
    person = heads.draw_factors(rng, 1)[0]
    pictures = []
    for n in range(PHOTOS):
        camera, intrinsics, _ = photo_camera(rng, yaw=FRONT if n == 0 else YAW)
        shown = heads.prepare(model, photo_factors(person, rng), photo_extra(rng))
        pictures.append(heads.render_person(model, shown, camera, intrinsics, SIZE))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, required=True)
    args = parser.parse_args()
    model = heads.HeadModel(args.head)
    folder = HERE / "photos"
    folder.mkdir(exist_ok=True)
    for letter, index in PEOPLE.items():
        for n, picture in enumerate(photos_of(model, index), start=1):
            Image.fromarray(picture).save(folder / f"{letter}{n}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
