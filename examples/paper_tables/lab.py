"""One cell of the grid: erase a person from the builtin model by a recipe, then measure as the paper does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import heads
from grid import EXTRACTOR, SAMPLE_SEED, SAMPLES, Cell, erasure_digest, inputs
from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.drift import frechet_distance, measure_drift, measure_real, sample_features
from guide_hub.evaluation.paper import paper_figures
from guide_hub.evaluation.views import embed_views, render_views, yaw_cameras
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.registry import BUNDLE, load_features
from guide_hub.guide import Eraser
from guide_hub.inversion import Inverter
from guide_hub.latents import norm_of
from guide_hub.networks import choose, load
from guide_hub.orbit import orbit_label
from guide_hub.recipe import load_recipe
from people import HELD_OUT_SEED, Person, Studio

BATCH = 16
NOISE_BEFORE, NOISE_AFTER = 0, 1  # ray jitter of the source's samples and of all others
BASE_RECIPE = "heads"  # inversion, cameras and false accept rate are the same in all cells


class Lab:
    """The builtin model, its networks and its people. What takes long is kept in `cache`, which is private:
    it holds latents and erased weights.

    `inception` is the extractor of FID, by name or NAME:PATH.
    """

    def __init__(self, head: Path, cache: Path, inception: str):
        cache.mkdir(parents=True, exist_ok=True)
        self.cache = cache
        self.source = EG3D.from_pretrained(str(BUNDLE)).eval().requires_grad_(False)
        self.sha256 = file_sha256(BUNDLE / "model.safetensors")
        self.recipe = load_recipe(BASE_RECIPE)
        self.names = choose(self.source.config, self.recipe)
        self.networks = load(self.names, torch.device("cpu"))
        self.cameras = yaw_cameras(self.source, self.recipe.camera, self.recipe.gate.views)
        judge, far = self.names.identity_judge, self.recipe.gate.far
        calibration = shipped(BUNDLE, self.sha256, judge, far, self.recipe.camera)
        assert calibration is not None
        self.threshold = calibration.threshold
        self.extractor = load_features(inception)
        inverter = Inverter(
            self.source,
            self.recipe.inversion,
            self.networks.perceptual,
            self.networks.identity_loss,
            self.networks.inversion,
        )
        self.studio = Studio(
            head, cache, inverter, self.networks.identity_judge, self.cameras, self.threshold
        )

    def erased(self, cell: Cell) -> tuple[EG3D, float]:
        """The model after the cell's erasure, and the seconds that its steps took."""
        recipe = load_recipe(cell.recipe)
        student = EG3D.from_pretrained(str(BUNDLE)).eval()
        file = self.cache / f"{cell.name}-{erasure_digest(cell.recipe)[:12]}-{self.sha256[:12]}.pt"
        if not file.is_file():
            person = self.studio.person(cell.scenario, cell.identity)
            eraser = Eraser(
                student, self.source, recipe, self.networks.perceptual, self.networks.identity_loss
            )
            start = time.perf_counter()
            eraser.erase(person.ws[:1], seed=cell.identity)
            seconds = time.perf_counter() - start
            _save(file, {"synthesis": student.backbone.synthesis.state_dict(), "seconds": seconds})
        saved = torch.load(file, weights_only=True)
        student.backbone.synthesis.load_state_dict(saved["synthesis"])
        return student.requires_grad_(False), saved["seconds"]

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The cell's figures: the paper's, the judge's verdicts, the drift. Erases first, if need be."""
        start = time.perf_counter()
        recipe, judge = load_recipe(cell.recipe), self.networks.identity_judge
        erased, seconds = self.erased(cell)
        person = self.studio.person(cell.scenario, cell.identity)
        photos = person.photos
        if photos is None:  # a sampled latent was never photographed: the source's frontal pictures stand in
            photos = render_views(self.source, person.ws, self.cameras[len(self.cameras) // 2][None])[:, 0]
        before, after = (
            embed_views(model, person.ws, self.cameras, judge) for model in (self.source, erased)
        )
        with torch.no_grad():
            real = judge(photos)
        verified = ((real[:, None] * after).sum(-1) >= self.threshold).float().mean(1)
        key = f"{cell.name}-{erasure_digest(cell.recipe)[:12]}"
        features = self._cached(key, lambda: self.features(erased, NOISE_AFTER))
        source, again = self.source_features(), self.source_again()
        return {
            "cell": {"scenario": cell.scenario, "recipe": cell.recipe, "identity": cell.identity},
            "inputs": inputs(cell),
            "iterations": recipe.optim.iterations,
            "inversion_steps": self.recipe.inversion.steps,
            "candidates_passed_over": person.passed_over,
            "distance": self.distance(person),
            **paper_figures(before, after, real).to_dict(),
            "verified": {"id": float(verified[0]), "id_others": float(verified[1:].mean())},
            "drift": asdict(measure_drift(source, features, EXTRACTOR, SAMPLE_SEED)),
            "drift_same_noise": asdict(measure_drift(again, features, EXTRACTOR, SAMPLE_SEED)),
            "fid_real_change": measure_real(self.real_features(), source, features).to_dict(),
            "seconds": {"erasure": round(seconds), "measuring": round(time.perf_counter() - start)},
        }

    def distance(self, person: Person) -> dict[str, float]:
        """From the erased latent to those of the other pictures, in medians of ||w - w_avg||."""
        space = self.studio.inverter.space
        found = norm_of(person.ws[1:] - person.ws[:1], "whole").flatten() / space.median_offset()
        return {"mean": float(found.mean()), "max": float(found.max())}

    def floors(self) -> dict[str, Any]:
        """What the figures of a model that nobody touched would be."""
        source, again = self.source_features(), self.source_again()
        others = self._cached(
            "source-others", lambda: self.features(self.source, NOISE_AFTER, SAMPLE_SEED + 1)
        )
        return {
            "inputs": inputs(None),
            "samples": SAMPLES,
            "seed": SAMPLE_SEED,
            "noise_floor": asdict(measure_drift(source, again, EXTRACTOR, SAMPLE_SEED)),
            "sampling_floor": asdict(measure_drift(source, others, EXTRACTOR, SAMPLE_SEED)),
            "fid_real": frechet_distance(self.real_features(), source),
            "threshold": self.threshold,
        }

    def features(self, model: EG3D, noise_seed: int, seed: int = SAMPLE_SEED) -> Tensor:
        return sample_features(
            model, self.extractor, SAMPLES, seed, self.recipe.camera, noise_seed=noise_seed
        )

    def source_features(self) -> Tensor:
        return self._cached("source", lambda: self.features(self.source, NOISE_BEFORE))

    def source_again(self) -> Tensor:
        return self._cached("source-again", lambda: self.features(self.source, NOISE_AFTER))

    def real_features(self) -> Tensor:
        """Of renders of people that nothing was trained on, from the training's cameras."""

        def draw() -> Tensor:
            rng = np.random.default_rng([HELD_OUT_SEED, 60_000])
            pictures = []
            for factors in heads.draw_factors(rng, SAMPLES):
                person = heads.prepare(self.studio.head, factors)
                yaw = rng.uniform(-1, 1) * self.recipe.camera.yaw_range
                c = orbit_label(self.source.config, self.recipe.camera, yaw)
                cam2world = c[0, :16].reshape(4, 4).double().numpy()
                pixels = heads.render_person(
                    self.studio.head, person, cam2world, heads.standard_intrinsics(), 128, 2
                )
                pictures.append(to_tensor(pixels))
            with torch.no_grad():
                return torch.cat([self.extractor(part) for part in torch.stack(pictures).split(BATCH)])

        return self._cached("real", draw)

    def _cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        file = self.cache / f"features-{name}-{SAMPLES}-{self.sha256[:12]}.pt"
        if not file.is_file():
            _save(file, {"features": make()})
        return torch.load(file, weights_only=True)["features"]


def _save(file: Path, value: dict[str, Any]) -> None:
    part = file.with_suffix(f".{os.getpid()}.part")
    torch.save(value, part)
    part.replace(file)
