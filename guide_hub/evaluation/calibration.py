"""Verification thresholds from the generator's own people: the cosine that strangers pass at a given rate."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.registry import weights_file
from guide_hub.latents import LatentSpace
from guide_hub.recipe import Camera

PEOPLE = 400
SEED = 7
FARS = (1e-3, 1e-4)  # what is measured at once, since the pictures are the work
BOOTSTRAPS, CONFIDENCE = 200, 0.95
FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """The cosine from which on a judge takes two pictures of one model for one person.

    `threshold` in [-1, 1]. `far` and `tar` are shares in [0, 1]: at the threshold, of stranger pairs and of
    same-person pairs that are accepted; measured on `people` random latents at `views` cameras each. `low`
    and `high`: the threshold's 95 % interval, by `interval_at`, where it was asked for. Known for a
    calibration that travels with a model: the SHA-256 of the judge's weight file, and the orbit
    (`orbit`).
    """

    judge: str
    far: float
    threshold: float
    tar: float
    people: int
    views: int
    judge_sha256: str | None = None
    camera: dict[str, Any] | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `calibration.json` keeps it; what is not known is left out."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def orbit(camera: Camera) -> dict[str, Any]:
    """What a calibration depends on of the recipe's camera: {"pitch", "pivot", "radius", "fov"}."""
    return {key: getattr(camera, key) for key in ("pitch", "pivot", "radius", "fov")}


def sees(people: int, views: int, far: float) -> bool:
    """Whether the pairs of strangers are enough to show a false accept rate: ten of them are at it."""
    return people * (people - 1) // 2 * views**2 * far >= 10


def threshold_at(embeddings: Tensor, far: float) -> tuple[float, float]:
    """(threshold, TAR) from unit embeddings [N, V, E]: pairs of different people against one's views.

    InputError where the pairs are too few to see the rate at all.
    """
    n, views, _ = embeddings.shape
    flat = embeddings.flatten(0, 1)
    cosine = flat @ flat.T
    person = torch.arange(n).repeat_interleave(views)
    upper = torch.triu(torch.ones(len(flat), len(flat), dtype=torch.bool), diagonal=1)
    same = person[:, None] == person[None, :]
    strangers = cosine[upper & ~same]
    if not sees(n, views, far):
        raise InputError(
            f"{len(strangers)} pairs of strangers cannot show a false accept rate of {far:g}",
            remedy="raise gate.far in the recipe",
        )
    k = max(int(len(strangers) * far), 1)
    threshold = float(strangers.topk(k).values[-1])
    genuine = cosine[upper & same]
    return threshold, float((genuine >= threshold).float().mean()) if len(genuine) else float("nan")


def interval_at(embeddings: Tensor, far: float, seed: int = SEED) -> tuple[float, float]:
    """The 95 % interval of the threshold at `far`, from unit embeddings [N, V, E]: a bootstrap over people.

    Pairs that share a person are alike, and an interval over pairs (Clopper-Pearson's, say) would take them
    for independent and be too narrow; so whole people are drawn again, and a pair counts as often as both of
    its people were drawn.
    """
    n, views, _ = embeddings.shape
    flat = embeddings.flatten(0, 1)
    person = torch.arange(n).repeat_interleave(views)
    a, b = torch.triu_indices(len(flat), len(flat), offset=1)
    apart = person[a] != person[b]
    cosine = (flat @ flat.T)[a[apart], b[apart]]
    top = cosine.topk(min(len(cosine), int(len(cosine) * far * 10) + 50))  # what no draw will go beyond
    first, second = person[a[apart]][top.indices], person[b[apart]][top.indices]
    draw, found = torch.Generator().manual_seed(seed), []
    for _ in range(BOOTSTRAPS):
        times = torch.bincount(torch.randint(n, (n,), generator=draw), minlength=n).double()
        pairs = float((times.sum() ** 2 - times.square().sum()) / 2) * views**2
        over = (times[first] * times[second]).cumsum(0)
        k = int(torch.searchsorted(over, torch.tensor(pairs * far, dtype=over.dtype)))
        found.append(top.values[min(k, len(over) - 1)])
    tails = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = torch.stack(found).quantile(tails.to(found[0])).tolist()
    return low, high


def calibrate_at(
    model: EG3D,
    judge: IdentityEncoder,
    judge_name: str,
    c: Tensor,
    fars: Sequence[float],
    people: int = PEOPLE,
    seed: int = SEED,
) -> list[Calibration]:
    """Thresholds with intervals at several rates, of the same pictures. See `calibrate`."""
    embeddings, found = _strangers(model, judge, c, people, seed), list[Calibration]()
    for far in fars:
        threshold, tar = threshold_at(embeddings, far)
        low, high = interval_at(embeddings, far)
        found.append(Calibration(judge_name, far, threshold, tar, people, len(c), low=low, high=high))
    return found


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
    embeddings = _strangers(model, judge, c, people, seed)
    threshold, tar = threshold_at(embeddings, far)
    return Calibration(judge_name, far, threshold, tar, people, len(c))


def _strangers(model: EG3D, judge: IdentityEncoder, c: Tensor, people: int, seed: int) -> Tensor:
    """Unit embeddings [people, V, E] of random people, on the CPU."""
    ws = LatentSpace(model).random(people, torch.Generator().manual_seed(seed))
    return embed_views(model, ws, c, judge).cpu()


def shipped(
    folder: Path, weights_sha256: str, judge: str, far: float, camera: Camera | None = None
) -> Calibration | None:
    """The calibration that a model folder carries for exactly these weights, judge and rate, if any.

    One that names the judge's weight file or its orbit must have been made with the file that the judge is
    loaded from here, and with the orbit of `camera`. A file that cannot be read counts as none.
    """
    try:
        entries = json.loads((folder / FILE).read_text(encoding="utf-8"))["calibrations"]
        found = [Calibration(**{k: v for k, v in e.items() if k != "model_sha256"})
                 for e in entries if e["model_sha256"] == weights_sha256]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    for entry in found:
        if (entry.judge, entry.far) != (judge, far):
            continue
        same_judge = entry.judge_sha256 in (None, file_sha256(weights_file(judge)))
        if same_judge and (entry.camera is None or camera is None or entry.camera == orbit(camera)):
            return entry
    return None


def keep(folder: Path, weights_sha256: str, found: Sequence[Calibration], camera: Camera) -> None:
    """Adds what was measured on a model to `folder`, for `shipped`. Not being able to write is no harm."""
    try:
        entries = json.loads((folder / FILE).read_text(encoding="utf-8"))["calibrations"]
    except (OSError, ValueError, KeyError, TypeError):
        entries = []
    for made in found:
        judge_sha256 = file_sha256(weights_file(made.judge))
        known = replace(made, judge_sha256=judge_sha256, camera=orbit(camera))
        entries.append({"model_sha256": weights_sha256, **known.to_dict()})
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder / f"{FILE}.{os.getpid()}"
        temporary.write_text(json.dumps({"calibrations": entries}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, folder / FILE)
    except OSError:
        pass
