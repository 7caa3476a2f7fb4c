"""What a row of the study is: one model, after somebody's erasure, measured on everybody erased so far.

People are random ones of the model, each with three other pictures of the same identity (another expression
and light); a sampled latent was never photographed, so the source's frontal pictures stand in for photos.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests")]
sys.path[:0] = [str(HERE.parent / "paper_tables"), str(HERE.parent / "synthetic_heads")]

import torch
from torch import Tensor

from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.drift import measure_drift, sample_features
from guide_hub.evaluation.identity import PersonMeasure, Sitter
from guide_hub.evaluation.views import embed_views, render_views, yaw_cameras
from guide_hub.faces.registry import BUNDLE, load_features
from guide_hub.guide import Eraser, StepLosses
from guide_hub.guide.kin import load_kin
from guide_hub.latents import LatentSpace
from guide_hub.modes.neighbours import POOL_SEED, nearest
from guide_hub.networks import choose, load
from guide_hub.pipeline import RETAINED_SEED, RETAINED_VIEWS
from guide_hub.progress import Silent
from guide_hub.recipe import Recipe, load_recipe

NEIGHBOURS = 5  # of each erased person
UNPROTECTED = -17  # seed of a pool of people whom no recipe protects
RANDOM = 400  # people behind the collateral law
DRIFT_SAMPLES, DRIFT_SEED = 500, 0
PEOPLE = 20  # looked at together
MARKS = (1, 5, 10, 20, 50)  # people erased, at which drift, neighbours and the collateral law are measured


class Lab:
    """The builtin model, its networks, and the source's side of all that is measured."""

    def __init__(self, recipe: str, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.source = self.model().requires_grad_(False)
        self.recipe = load_recipe(recipe)
        self.names = choose(self.source.config, self.recipe)
        self.networks = load(self.names, self.device)
        self.judge = self.networks.identity_judge
        self.space = LatentSpace(self.source)
        self.sha256 = file_sha256(BUNDLE / "model.safetensors")
        self.cameras = yaw_cameras(self.source, self.recipe.camera, self.recipe.gate.views)
        self.front = self.cameras[len(self.cameras) // 2][None]
        self.three = yaw_cameras(self.source, self.recipe.camera, RETAINED_VIEWS)
        gate, judge = self.recipe.gate, self.names.identity_judge
        calibration = shipped(BUNDLE, self.sha256, judge, gate.far, self.recipe.camera)
        assert calibration is not None
        self.threshold = calibration.threshold
        self.kin = load_kin(self.source, self.networks.identity_loss, self.three[1:2], [BUNDLE])
        self.subjects: dict[int, Sitter] = {}

    def model(self) -> EG3D:
        """The builtin model, for an erasure to change."""
        return EG3D.from_pretrained(str(BUNDLE), map_location=self.device).eval()

    def subject(self, index: int) -> Sitter:
        """The person, of whom the first of four latents is erased."""
        if index not in self.subjects:
            from people import random_person  # takes the extra `heads`

            ws = random_person(self.space, index).ws
            photos = render_views(self.source, ws, self.front)[:, 0]
            with torch.no_grad():
                faces = self.judge(photos)
            self.subjects[index] = Sitter(
                self.judge, faces, ws, self.cameras, self.threshold, source=self.source
            )
        return self.subjects[index]

    # ------------------------------------------------------------------------------------------------------
    # One row

    def person(self, index: int, erased: EG3D) -> PersonMeasure:
        """As `guide-hub erase` measures: the judge, photos against the renders at their latents."""
        sitter = self.subject(index)
        return sitter.measured(sitter.views(erased))

    @torch.no_grad()
    def retained(self, erased: EG3D) -> dict[str, float]:
        """`measure_retained` of the gate, with the source's side made once."""
        ws, source = self._retained
        perceptual, cosines, distances = self.networks.perceptual, [], []
        for w, (embedding, maps) in zip(ws.split(PEOPLE), source, strict=True):
            pictures = render_views(erased, w, self.three).flatten(0, 1)
            cosines.append((self.judge(pictures) * embedding).sum(-1))
            distances.append(perceptual.distance(perceptual.features(pictures), maps))
        cosine = torch.cat(cosines)
        return {
            "verified": _round((cosine >= self.threshold).double().mean()),
            "cosine": _round(cosine.mean()),
            "lpips": _round(torch.cat(distances).mean(), 5),
        }

    @cached_property
    def _retained(self) -> tuple[Tensor, list[tuple[Tensor, list[Tensor]]]]:
        perceptual = self.networks.perceptual
        ws = self.space.random(self.recipe.gate.retained_people, torch.Generator().manual_seed(RETAINED_SEED))
        pictures = (render_views(self.source, w, self.three).flatten(0, 1) for w in ws.split(PEOPLE))
        with torch.no_grad():
            return ws, [(self.judge(p), perceptual.features(p)) for p in pictures]

    # ------------------------------------------------------------------------------------------------------
    # At the marks alone

    def neighbours(
        self, people: list[int], erased: EG3D, eraser: Eraser, pool_seed: int = POOL_SEED
    ) -> dict[str, float]:
        """The `NEIGHBOURS` retained people of a pool who are most like each erased one, to the loss's
        recogniser. Of the pool that recipes protect, they were trained on."""
        erasures = [eraser.target(self.subject(i).ws[:1]) for i in people]
        ws = nearest(eraser, erasures, [e.w_u for e in erasures], NEIGHBOURS, pool_seed)
        before, after = (embed_views(model, ws, self.three, self.judge) for model in (self.source, erased))
        cosine = (before * after).sum(-1)
        return {
            "people": len(ws),
            "verified": _round((cosine >= self.threshold).double().mean()),
            "cosine": _round(cosine.mean()),
        }

    def collateral(self, people: list[int], erased: EG3D) -> dict[str, float]:
        """Of random people, how many the judge takes for somebody erased (source's pictures, from the front),
        and how many are themselves no more, among those and among the rest."""
        ws, before = self._random
        faces = torch.stack([self.subject(i).faces[0] for i in people])
        after = embed_views(erased, ws, self.front, self.judge)[:, 0]
        alike = (before @ faces.T).max(1).values >= self.threshold
        lost = (before * after).sum(-1) < self.threshold
        return {
            "people": len(ws),
            "expected": _round(1 - (1 - self.recipe.gate.far) ** len(people), 5),
            "alike": int(alike.sum()),
            "lost": int(lost.sum()),
            "lost_alike": int((lost & alike).sum()),
        }

    @cached_property
    def _random(self) -> tuple[Tensor, Tensor]:
        ws = self.space.random(RANDOM, torch.Generator().manual_seed(RETAINED_SEED + 1))
        return ws, embed_views(self.source, ws, self.front, self.judge)[:, 0]

    def drift(self, erased: EG3D) -> dict[str, float | None]:
        found = measure_drift(self._features[0], self._sample(erased, 1), "inception", DRIFT_SEED)
        return {"n": DRIFT_SAMPLES, **_drift(found)}

    def floor(self) -> dict[str, float | None]:
        """Of a model that nobody touched: another jitter of the rays."""
        return {"n": DRIFT_SAMPLES, **_drift(measure_drift(*self._features, "inception", DRIFT_SEED))}

    @cached_property
    def _features(self) -> tuple[Tensor, Tensor]:
        return self._sample(self.source, 0), self._sample(self.source, 1)

    def _sample(self, model: EG3D, noise_seed: int) -> Tensor:
        return sample_features(
            model, self._extractor, DRIFT_SAMPLES, DRIFT_SEED, self.recipe.camera, noise_seed=noise_seed
        )

    @cached_property
    def _extractor(self) -> Any:
        from real_nets import inception_weights

        return load_features(f"inception:{inception_weights()}").to(self.device)


def _drift(found: Any) -> dict[str, float | None]:
    keys = ("fid", "fid_low", "fid_high", "kid", "kid_low", "kid_high")
    return {key: None if (value := getattr(found, key)) is None else round(value, 6) for key in keys}


def _round(value: Tensor | float, digits: int = 4) -> float:
    return round(float(value), digits)


def peak_gib() -> float:
    """Of this process's memory."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def make_eraser(lab: Lab, recipe: Recipe) -> Eraser:
    """For targets and neighbours alone; it trains nothing."""
    return Eraser(lab.model(), lab.source, recipe, lab.networks.perceptual, lab.networks.identity_loss)


class Clock(Silent):
    """The sequence's progress, as CPU and wall seconds of each erasure with its preparation."""

    def __init__(self) -> None:
        self.steps, self.spent, self.spent_wall, self.whole = 0, 0.0, 0.0, True
        self.begin()

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def start(self, identity: str, steps: int, done: int) -> None:
        self.steps, self.whole = done, done == 0

    def step(self, step: int, losses: StepLosses) -> None:
        self.steps = step

    def finish(self) -> None:
        self.spent = time.process_time() - self.since
        self.spent_wall = time.perf_counter() - self.since_wall

    def begin(self) -> None:
        """The next erasure begins now."""
        self.since, self.since_wall = time.process_time(), time.perf_counter()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(text)
    part.replace(file)
