"""Verification thresholds from the generator's own people: the cosine that strangers pass at a given rate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.guide.latents import LatentSpace

PEOPLE = 400
SEED = 7


@dataclass(frozen=True)
class Calibration:
    """`threshold`: the cosine at which `far` of stranger pairs are accepted; `tar`: of same-person pairs."""

    judge: str
    far: float
    threshold: float
    tar: float
    people: int
    views: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def threshold_at(embeddings: Tensor, far: float) -> tuple[float, float]:
    """(threshold, TAR) from unit embeddings [N, V, E]: pairs of different people against one's views.

    Raises ValueError where the pairs are too few to see the rate at all.
    """
    n, views, _ = embeddings.shape
    flat = embeddings.flatten(0, 1)
    cosine = flat @ flat.T
    person = torch.arange(n).repeat_interleave(views)
    upper = torch.triu(torch.ones(len(flat), len(flat), dtype=torch.bool), diagonal=1)
    same = person[:, None] == person[None, :]
    strangers = cosine[upper & ~same]
    if len(strangers) * far < 10:
        raise ValueError(f"{len(strangers)} stranger pairs cannot show a false accept rate of {far:g}")
    k = max(int(len(strangers) * far), 1)
    threshold = float(strangers.topk(k).values[-1])
    genuine = cosine[upper & same]
    return threshold, float((genuine >= threshold).float().mean()) if len(genuine) else float("nan")


@torch.no_grad()
def calibrate(
    model: EG3D,
    judge: IdentityEncoder,
    judge_name: str,
    c: Tensor,
    far: float,
    people: int = PEOPLE,
    seed: int = SEED,
) -> Calibration:
    """Renders `people` random latents from cameras c [V, 25]; finds the judge's threshold on this model."""
    ws = LatentSpace(model).random(people, torch.Generator().manual_seed(seed))
    embeddings = embed_views(model, ws, c, judge).cpu()
    threshold, tar = threshold_at(embeddings, far)
    return Calibration(judge_name, far, threshold, tar, people, len(c))


def shipped(folder: Path, weights_sha256: str, judge: str, far: float) -> Calibration | None:
    """The calibration that a model folder carries for exactly these weights, judge and rate, if any."""
    try:
        entries = json.loads((folder / "calibration.json").read_text())["calibrations"]
    except FileNotFoundError:
        return None
    for entry in entries:
        values = {k: v for k, v in entry.items() if k != "model_sha256"}
        if entry["model_sha256"] == weights_sha256 and entry["judge"] == judge and entry["far"] == far:
            return Calibration(**values)
    return None
