"""The people of the three scenarios on `builtin:synthetic-heads`, as latents: Random, InD and OOD.

Every person has four latents: the one to erase and, from three other pictures, those that test whether the
identity is gone (the paper's ID_others). Picture: another expression, light and camera of the same person.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "synthetic_heads"))

import heads
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.detection import Detector
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.inversion import Inverter
from guide_hub.latents import LatentSpace
from make_data import photo_camera, photo_extra, photo_factors
from train_generator import factors_of, z_of

PICTURES = 4
TRAINING_SEED, TRAINING_PEOPLE = 1, 6700  # the stream that make_data.py's `pictures` drew
HELD_OUT_SEED = 4242
PLACES = 1000  # places in a stream that belong to one identity of the grid
PHOTO_SIZE = 256
FRONT, YAW = np.radians(12), np.radians(35)  # of the first picture and of the others


@dataclass(frozen=True)
class Person:
    """`ws` [4, num_ws, w_dim], the first of which is erased; `photos` [4, 3, H, W] or None in Random.

    `likeness`: the judge's cosine of each photo against the source's 11 renders at its latent, mean, [4];
    `passed_over`: how many candidates were not the photo's person in the judge's eyes.
    """

    ws: Tensor
    photos: Tensor | None
    likeness: Tensor | None
    passed_over: int


def random_person(space: LatentSpace, index: int) -> Person:
    """A sampled latent. Its other pictures have another expression and light, which are factors of z."""
    rng = np.random.default_rng([HELD_OUT_SEED, 70_000 + index])
    z = torch.randn(1, space.model.config.z_dim, generator=torch.Generator().manual_seed(9000 + index))
    factors = factors_of(z)[0].numpy()
    others = [photo_factors(factors, rng) for _ in range(PICTURES - 1)]
    rest = z_of(torch.from_numpy(np.stack(others)).float())
    return Person(space.map(torch.cat([z, rest])), None, None, 0)


def pictures_of(head: heads.HeadModel, scenario: str, index: int) -> list[np.ndarray]:
    """Four pictures uint8 [256, 256, 3]: `ind` of a training identity on white ground in the training's kind
    of light; `ood` of a held-out identity in other light, tint and ground."""
    if scenario == "ind":
        factors = heads.draw_factors(np.random.default_rng([TRAINING_SEED, index % TRAINING_PEOPLE]), 1)[0]
        rng = np.random.default_rng([HELD_OUT_SEED, 80_000 + index])
    else:
        rng = np.random.default_rng([HELD_OUT_SEED, 100_000 + index])
        factors = heads.draw_factors(rng, 1)[0]
    pictures = []
    for n in range(PICTURES):
        camera, intrinsics, _ = photo_camera(rng, yaw=FRONT if n == 0 else YAW)
        shown = photo_factors(factors, rng) if n or scenario == "ood" else factors
        extra = photo_extra(rng) if scenario == "ood" else heads.Extra()
        pictures.append(
            heads.render_person(head, heads.prepare(head, shown, extra), camera, intrinsics, PHOTO_SIZE, 2)
        )
    return pictures


class Studio:
    """Makes the grid's people; what takes long is kept in `cache`."""

    def __init__(
        self,
        head: Path | None,
        cache: Path,
        inverter: Inverter,
        judge: IdentityEncoder,
        cameras: Tensor,
        threshold: float,
    ):
        self.head, self.cache = head, cache
        self.inverter, self.judge, self.cameras, self.threshold = inverter, judge, cameras, threshold

    def person(self, scenario: str, index: int) -> Person:
        """The identity `index` of a scenario: the first of its candidates that the model can show at all.

        Without a head file, only those that are in the cache (RuntimeError).
        """
        if scenario == "random":
            return random_person(self.inverter.space, index)
        file = self.cache / f"person-{scenario}-{index}.pt"
        if not file.is_file():
            person = self._find(scenario, index)
            part = file.with_suffix(".part")
            torch.save(person.__dict__, part)
            part.replace(file)
        return Person(**torch.load(file, weights_only=True))

    def _find(self, scenario: str, index: int) -> Person:
        if self.head is None:
            raise RuntimeError("the head file is missing: ../synthetic_heads/fetch_head.py gets it")
        head = heads.HeadModel(self.head)
        for passed in range(PLACES):
            pictures = pictures_of(head, scenario, index * PLACES + passed)
            crops = [self._crop(picture) for picture in pictures]
            if any(crop is None for crop in crops):
                continue
            photos = torch.stack(crops)
            ws = self.inverter(photos).ws
            shown = embed_views(self.inverter.model, ws, self.cameras, self.judge)
            with torch.no_grad():
                cosine = (shown * self.judge(photos)[:, None]).sum(-1).mean(1)
            if float(cosine[0]) >= self.threshold:  # erase would refuse the others: "no match"
                return Person(ws, photos, cosine, passed)
        raise RuntimeError("no candidate was recognised")

    @cached_property
    def _detector(self) -> Detector:
        return Detector()

    def _crop(self, pixels: np.ndarray) -> Tensor | None:
        picture = Image.fromarray(pixels)
        faces = self._detector.detect(picture)
        size = self.inverter.model.config.img_resolution
        return to_tensor(np.asarray(eg3d_crop(picture, faces[0].points, size).image)) if faces else None
