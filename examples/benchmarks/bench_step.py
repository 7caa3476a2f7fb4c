"""One step: all of a step's losses, backward, Adam. Draws are made by the same code in every row.

pytest examples/benchmarks/bench_step.py --model medium
"""

from __future__ import annotations

from itertools import count
from typing import Any

import torch

from cases import Case, Setup
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces.registry import BUNDLE
from guide_hub.guide import Eraser
from guide_hub.guide.kin import load_kin
from released import Released

GROUP = "step"
PERSON = 3  # seed of the latent that is erased


def eraser_of(case: Case, setup: Setup) -> Eraser:
    """The row's engine on a student of its own."""
    nets = setup.networks
    models = (setup.student(), setup.teacher, setup.recipe, nets.perceptual, nets.identity_loss)
    if case.row.engine.startswith("released"):
        return Released(
            *models, fixed_noise=case.row.engine == "released-fixed",
            backward="pair" if case.row.engine == "released-pairs" else "sum",
        )  # fmt: skip
    eraser = Eraser(*models)
    if setup.recipe.adjacency.towards == "kin":  # it ships with the model
        front = yaw_cameras(setup.teacher, setup.recipe.camera, 1)
        eraser.kin = load_kin(setup.teacher, nets.identity_loss, front, [BUNDLE])
    return eraser


def person_of(eraser: Eraser) -> torch.Tensor:
    """The latent to erase, a random one."""
    return eraser.space.random(1, torch.Generator().manual_seed(PERSON))


def test_step(case: Case, measured: Any, benchmark: Any) -> None:
    setup = case.build()
    eraser = eraser_of(case, setup)
    erasure = eraser.target(person_of(eraser))
    steps = count()
    pool = setup.recipe.speed.pool  # of these the first round makes the teacher's pictures
    losses = measured(
        lambda: eraser.step(erasure, eraser.draw_at(erasure, 0, 0, next(steps))),
        warmup=max(case.config.warmup, pool),
    )
    assert losses.total > 0
    if pool:
        benchmark.extra_info["kept_draws"] = pool
