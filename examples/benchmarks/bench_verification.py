"""Full verification of an erasure: the person and their neighbours from all views on both models, then
everybody else. The engine's measures beside the same measures view by view.

    pytest examples/benchmarks/bench_verification.py --model medium
"""

from __future__ import annotations

from typing import Any

import torch

from bench_erasure import PEOPLE_SEED, around, threshold_of
from bench_step import eraser_of, person_of
from cases import Case
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.identity import (
    PersonMeasure,
    RetainedMeasure,
    measure_person,
    measure_retained,
)
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.pipeline import RETAINED_VIEWS
from released import measure_view_by_view

GROUP = "verification"
CHANGE = 0.1  # of every trained tensor's norm: some erased model, the same for all rows


def disturbed(model: EG3D) -> EG3D:
    """Other weights in the same model."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.backbone.synthesis.parameters():
            p.add_(torch.randn(p.shape, generator=rng) * p.norm() / max(p.numel(), 1) ** 0.5 * CHANGE)
    return model.eval().requires_grad_(False)


def test_verification(case: Case, measured: Any, benchmark: Any) -> None:
    setup = case.build()
    eraser = eraser_of(case, setup)
    source, erased, judge = setup.teacher, disturbed(eraser.student), setup.networks.identity_judge
    perceptual, threshold, camera = setup.networks.perceptual, threshold_of(setup), setup.recipe.camera
    ws = torch.cat([person_of(eraser), around(eraser, person_of(eraser))])
    photos = render_views(source, ws, yaw_cameras(source, camera, 1))[:, 0]
    people = eraser.space.random(setup.config.people, torch.Generator().manual_seed(PEOPLE_SEED))
    c, three = (yaw_cameras(source, camera, n) for n in (setup.config.views, RETAINED_VIEWS))

    def verify() -> tuple[PersonMeasure, RetainedMeasure]:
        if case.row.engine == "by-view":
            return measure_view_by_view(
                source, erased, judge, perceptual, (photos, ws, c), (people, three), threshold
            )
        person = measure_person(source, erased, judge, photos, ws, c, threshold)
        return person, measure_retained(source, erased, judge, perceptual, people, three, threshold)

    person, kept = measured(verify, rounds=1, warmup=0)
    benchmark.extra_info["pictures"] = 2 * (len(ws) * len(c) + len(people) * len(three))
    benchmark.extra_info["figures"] = {
        "id": person.after.cosine, "guide_id": person.guide,
        "retained": kept.verified, "retained_cosine": kept.cosine,
    }  # fmt: skip
