"""How far the model's pictures have moved as a whole, beside what its own ray jitter moves them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn

from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import short
from guide_hub.evaluation.drift import measure_drift, sample_features
from guide_hub.faces.features import PooledFeatures

NAME = "pooled features of the perceptual network"
SEED = 0xD21F7


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Kernel (KID) and Frechet distance of the same latents and cameras; `guide-hub evaluate` has FID."""
    extractor, sides = PooledFeatures(cast(nn.Module, case.networks.perceptual)), []
    for k, (model, noise) in enumerate(((case.source, 0), (case.source, 1), (case.erased, 1))):
        sides.append(
            sample_features(
                model, extractor, budget.drift_samples, SEED + case.seed, case.recipe.camera, noise_seed=noise
            )
        )
        done((k + 1) / 3)
    source, again, erased = sides
    floor, moved = (measure_drift(source, other, NAME, SEED + case.seed) for other in (again, erased))
    return Finding(
        "drift",
        "Drift of the model's pictures as a whole",
        None,
        "there is no line: the distances are to be read beside those of two samplings of the source",
        {
            "samples": budget.drift_samples,
            "kid": round(moved.kid, 7),
            "kid_floor": round(floor.kid, 7),
            "frechet": short(moved.fid),
            "frechet_floor": short(floor.fid),
        },
    )
