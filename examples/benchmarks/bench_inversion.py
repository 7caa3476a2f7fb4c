"""Photos to latents, each photo for itself: the engine's inverter beside optimisation from the mean face.

Of the builtin model the photos are the first person's of ../takedown, whom it was not trained on. The others
invert renders of their own in a few steps, so that only the time says something there.

    pytest examples/benchmarks/bench_inversion.py --model builtin
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench_erasure import threshold_of
from cases import Case, Setup
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.inversion import Inversion, Inverter, measure_quality
from guide_hub.latents import LatentSpace
from guide_hub.people import read_subjects
from guide_hub.request import load_request

GROUP = "inversion"
REQUEST = Path(__file__).resolve().parents[1] / "takedown" / "takedown.yaml"
PHOTOS, SEED = 2, 5


def photos_of(setup: Setup) -> tuple[Tensor, Tensor | None]:
    """Crops [P, 3, S, S], and poses [P, 3] where landmarks tell them."""
    model = setup.teacher
    if setup.config.request:
        people = load_request(REQUEST).identities[:1]
        (subject,) = read_subjects(people, model.config.img_resolution, torch.device("cpu"))
        return subject.photos, subject.poses
    ws = LatentSpace(model).random(PHOTOS, torch.Generator().manual_seed(SEED))
    return render_views(model, ws, yaw_cameras(model, setup.recipe.camera, 1))[:, 0], None


def test_inversion(case: Case, measured: Any, benchmark: Any) -> None:
    setup = case.build()
    nets, options = setup.networks, setup.recipe.inversion
    photos, poses = photos_of(setup)
    inverter = Inverter(setup.teacher, options, nets.perceptual, nets.identity_loss, nets.inversion)
    found: Inversion = measured(lambda: inverter(photos, poses), rounds=1, warmup=0)
    cameras = yaw_cameras(setup.teacher, setup.recipe.camera, setup.config.views)
    quality = measure_quality(
        setup.teacher, nets.identity_judge, nets.perceptual, photos, found.ws, found.c, cameras,
        threshold_of(setup),
    )  # fmt: skip
    optimised = options.camera_steps + options.steps + options.wplus_steps
    benchmark.extra_info["steps"] = 0 if options.backend == "encoder" else optimised
    benchmark.extra_info["photos"] = len(photos)
    benchmark.extra_info["figures"] = {
        "cosine": sum(quality.cosine) / len(photos), "shown": sum(quality.shown) / len(photos),
        "perceptual": sum(quality.perceptual) / len(photos),
    }  # fmt: skip
