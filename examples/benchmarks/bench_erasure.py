"""A whole erasure, and how good it is: the same person out of the same model, until the row's end.

The person is a latent of the model (GUIDE's Random scenario); three neighbours that no step draws stand for
their other photos. Measuring is not timed.

    pytest examples/benchmarks/bench_erasure.py --model builtin
"""

from __future__ import annotations

from typing import Any

import torch

from bench_step import eraser_of, person_of
from cases import Case, Setup
from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.identity import measure_person, measure_retained
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.faces.registry import BUNDLE
from guide_hub.guide import Eraser
from guide_hub.guide.latents import neighbour_offset
from guide_hub.modes.neighbours import nearest
from guide_hub.pipeline import RETAINED_VIEWS

GROUP = "erasure"
NEIGHBOURS, NEIGHBOUR_SEED, PEOPLE_SEED = 3, 1001, 1002


def threshold_of(setup: Setup) -> float:
    """The judge's line on this model; of a seeded one, any."""
    judge, far = setup.networks.names.identity_judge, setup.recipe.gate.far
    weights = file_sha256(BUNDLE / "model.safetensors") if setup.config.name == "builtin" else ""
    found = shipped(BUNDLE, weights, judge, far, setup.recipe.camera) if weights else None
    return found.threshold if found is not None else 0.5


def around(eraser: Eraser, w_u: torch.Tensor) -> torch.Tensor:
    """Neighbours of w_u that no step draws: [NEIGHBOURS, num_ws, w_dim]."""
    toward = eraser.space.random(NEIGHBOURS, torch.Generator().manual_seed(NEIGHBOUR_SEED))
    alpha = torch.linspace(0.5, 1, NEIGHBOURS) * eraser.alpha_max
    return w_u + neighbour_offset(w_u, toward, alpha, eraser.recipe.target.norm)


def figures(setup: Setup, eraser: Eraser, w_u: torch.Tensor, erased: EG3D) -> dict[str, float]:
    """The judge's: cosines against the person's picture before, at the latent and around; everybody else."""
    nets, recipe = setup.networks, setup.recipe
    model, threshold, views = setup.teacher, threshold_of(setup), setup.config.views
    front, c = yaw_cameras(model, recipe.camera, 1), yaw_cameras(model, recipe.camera, views)
    ws = torch.cat([w_u, around(eraser, w_u)])
    photos = render_views(model, ws, front)[:, 0]
    person = measure_person(model, erased, nets.identity_judge, photos, ws, c, threshold)
    people = eraser.space.random(setup.config.people, torch.Generator().manual_seed(PEOPLE_SEED))
    three = yaw_cameras(model, recipe.camera, RETAINED_VIEWS)
    kept = measure_retained(model, erased, nets.identity_judge, nets.perceptual, people, three, threshold)
    assert person.others_after is not None
    return {
        "id": person.after.cosine, "id_verified": person.after.verified,
        "around": person.others_after.cosine, "around_verified": person.others_after.verified,
        "retained": kept.verified, "retained_perceptual": kept.perceptual,
    }  # fmt: skip


def test_erasure(case: Case, measured: Any, benchmark: Any) -> None:
    setup = case.build()

    def erase(eraser: Eraser) -> tuple[Eraser, int]:
        w_u = person_of(eraser)
        erasure, step = eraser.target(w_u), 0
        if count := setup.recipe.sequence.protect:
            eraser.protected = nearest(eraser, [erasure], [w_u], count)
        while not eraser.finished(erasure, step):
            eraser.step(erasure, eraser.draw_at(erasure, 0, 0, step))
            step += 1
        eraser.settle()
        return eraser, step

    eraser, steps = measured(erase, start=lambda: eraser_of(case, setup), rounds=1, warmup=0)
    benchmark.extra_info["steps"] = steps
    student = eraser.student.requires_grad_(False)
    benchmark.extra_info["figures"] = figures(setup, eraser, person_of(eraser), student)
