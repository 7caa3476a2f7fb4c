"""`guide-hub evaluate`: GUIDE's tables for one erased model - ID, drift with its floors, everybody else."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from guide_hub import hub
from guide_hub import record as records
from guide_hub.base import NAME_IT, find_base, read_recipe
from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.eg3d.pretrained import read_config
from guide_hub.errors import InputError
from guide_hub.evaluation.drift import BATCH, Drift, measure_drift, measure_real, sample_features
from guide_hub.evaluation.identity import measure_retained
from guide_hub.evaluation.interval import Figure, mean_figure, share_figure
from guide_hub.evaluation.paper import VIEWS, PaperFigures, average, measure_paper
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces.features import FeatureExtractor
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.faces.registry import load_features, load_identity, load_perceptual, names
from guide_hub.latents import LatentSpace
from guide_hub.networks import KINDS, Networks, choose, default_recipe, load, named_by_model
from guide_hub.people import Finder, check_grouping, read_subjects
from guide_hub.pipeline import RETAINED_SEED, RETAINED_VIEWS, find_threshold
from guide_hub.progress import Silent
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.request import Request, load_request
from guide_hub.sequence import Progress, pick_device

FID = "inception"  # with its features, the Frechet distance is FID
FID_SAMPLES, SAMPLES = 5000, 1000  # GUIDE's; with other features, which no paper gives figures of
PROBE = 8  # pictures that tell how long the rest will take
LINE_EVERY = 50 * BATCH  # pictures between lines of progress


@dataclass(frozen=True)
class Judge:
    """The recogniser behind every cosine, and the cosine that strangers reach at the rate `far`."""

    name: str
    far: float
    threshold: float


@dataclass(frozen=True)
class Identity:
    """One identity of the request: an opaque id, how many photos, mean cosines."""

    identity_id: str
    photos: int
    figures: PaperFigures


@dataclass(frozen=True)
class Retained:
    """Random people: the share of their views that the judge still verifies, their mean cosine and perceptual
    distance, base against erased render."""

    verified: Figure
    cosine: Figure
    perceptual: Figure
    network: str
    seed: int


@dataclass(frozen=True)
class DriftFigures:
    """Base against erased model on the same latents: `pre` with other noise, as GUIDE, `same_noise` with the
    same. Base against itself: `noise_floor` with other noise, `sampling_floor` at other latents. `real`:
    dFID_real."""

    pre: Drift
    same_noise: Drift
    noise_floor: Drift
    sampling_floor: Drift
    real: Figure | None
    real_samples: int | None
    noise: str

    def to_dict(self) -> dict[str, Any]:
        pre, seed = self.pre, self.pre.seed
        return {
            "extractor": pre.extractor, "features": pre.features, "is_fid": pre.extractor == FID,
            "samples": pre.n, "noise": self.noise, "rays": "jittered",
            "seeds": {"latents": seed, "other_latents": seed + 1, "noise": seed, "other_noise": seed + 1},
            "fid_pre": _figure(pre, "fid"), "kid": _figure(pre, "kid"),
            "same_noise": _both(self.same_noise),
            "floors": {"noise": _both(self.noise_floor), "sampling": _both(self.sampling_floor)},
            "dfid_real": self.real and self.real.to_dict(), "real_samples": self.real_samples,
        }  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on what and with what. Opaque ids and averages only.

    `model` and `base` are {"repo", "revision", "sha256"}; `identities` and `mean` are empty without a
    request.
    """

    model: dict[str, str | None]
    base: dict[str, str | None]
    recipe: str
    device: str
    judge: Judge
    identities: tuple[Identity, ...]
    mean: PaperFigures | None
    retained: Retained
    drift: DriftFigures

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        people = [
            {"identity_id": i.identity_id, "photos": i.photos, **i.figures.to_dict()} for i in self.identities
        ]
        retained = {k: getattr(self.retained, k).to_dict() for k in ("verified", "cosine", "perceptual")}
        return {
            "status": "evaluated", "model": self.model, "base": self.base, "recipe": self.recipe,
            "device": self.device, "judge": asdict(self.judge), "views": VIEWS, "identities": people,
            "mean": self.mean and self.mean.to_dict(),
            "retained": {**retained, "network": self.retained.network, "views": RETAINED_VIEWS,
                         "seed": self.retained.seed},
            "drift": self.drift.to_dict(),
        }  # fmt: skip


def evaluate(
    repo: str,
    *,
    revision: str | None = None,
    base: str | None = None,
    request: str | Path | None = None,
    recipe: str | None = None,
    features: str | None = None,
    real: str | Path | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measures an erased model against the one that it was made from.

    Args:
        repo: the erased model: Hub id, folder or `builtin:NAME`.
        base: what it was made from; by default the one that its record names.
        request: the people; their photos are inverted into the base as `erase` does. Without it, no ID.
        recipe: name or file; by default the erased model's recipe.yaml, else the one that fits the base.
        features: extractor of the drift, NAME or NAME:PATH; by default the base's `domain.features`, else
            heads-pooled for models with heads networks, else inception.
        real: file of the extractor's features [N, F] of real pictures (.npy, .npz or .safetensors).
        samples: pictures a side; by default 5000 with inception, 1000 otherwise.

    Raises InputError or HubError.
    """
    progress = progress or Silent()
    target = pick_device(device)
    wanted = load_request(request) if request is not None else None
    given_real = read_features(Path(real)) if real is not None else None
    model = hub.resolve(repo, revision)
    sha256 = records.file_sha256(model.weights_file)
    origin, base_sha256 = find_base(model, sha256, base, progress)
    config = read_config(origin.config_file)
    options = _find_recipe(model, config, recipe)
    chosen = choose(config, options)
    extractor_name = features or default_features(config)

    progress.stage("loading the models")
    source, erased = (
        EG3D.from_pretrained(str(s.folder)).to(target).eval().requires_grad_(False) for s in (origin, model)
    )
    if source.config.to_dict() | {"domain": {}} != erased.config.to_dict() | {"domain": {}}:
        raise InputError("the two models are not of one kind: their config.json differ", remedy=NAME_IT)
    networks = load(chosen, target) if wanted is not None else None  # those of the inversion too
    judge = networks.identity_judge if networks else load_identity(chosen.identity_judge, target)
    perceptual = networks.perceptual if networks else load_perceptual(chosen.perceptual, target)
    extractor = load_features(extractor_name, target)
    width = extractor(torch.zeros(1, 3, config.img_resolution, config.img_resolution, device=target)).shape[1]
    if given_real is not None and given_real.shape[1] != width:
        raise InputError(
            f"the real features have {given_real.shape[1]} columns, {_bare(extractor_name)} gives {width}",
            remedy="compute them with the same extractor, or name theirs with --features",
        )

    threshold = find_threshold(origin, base_sha256, source, judge, chosen.identity_judge, options, progress)
    people: tuple[Identity, ...] = ()
    if wanted is not None and networks is not None:
        people = _measure_people(wanted, source, erased, networks, options, threshold, progress)
    progress.stage("measuring everybody else")
    retained = _measure_retained(source, erased, judge, perceptual, options, threshold, seed)
    drift = _measure_drift(
        source, erased, extractor, _bare(extractor_name), options, given_real,
        samples or (FID_SAMPLES if _bare(extractor_name) == FID else SAMPLES), seed, progress,
    )  # fmt: skip
    return Evaluation(
        model=_about(model, sha256), base=_about(origin, base_sha256),
        recipe=options.name, device=target.type,
        judge=Judge(_bare(chosen.identity_judge), options.gate.far, threshold),
        identities=people, mean=average([i.figures for i in people]) if people else None,
        retained=Retained(*retained, _bare(chosen.perceptual), RETAINED_SEED + seed), drift=drift,
    )  # fmt: skip


def default_features(config: EG3DConfig) -> str:
    """The extractor that fits a model: see `evaluate`."""
    own = named_by_model(config, "features", names("features"))
    heads = any(str(config.domain.get(key, "")).startswith("heads-") for key in KINDS)
    return own or ("heads-pooled" if heads else FID)


def read_features(path: Path) -> Tensor:
    """Features [N, F] from a .npy or .npz file without pickles, or safetensors; one array. InputError."""
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays = {"": np.load(path, allow_pickle=False)}
    except Exception as error:
        raise InputError(
            f"the file of real features cannot be read: {type(error).__name__}",
            remedy="give features [N, F] as .npy, .npz or .safetensors",
        ) from None
    (array, *more) = arrays.values() or [np.zeros(0)]
    fits = not more and array.ndim == 2 and len(array) > 1 and array.dtype.kind == "f"
    if not fits or not np.isfinite(array).all():
        raise InputError(
            "the file of real features does not hold one array [N, F] of finite floats",
            remedy="give the features themselves, not their mean and covariance",
        )
    return torch.from_numpy(array.astype(np.float32))


def _find_recipe(model: hub.Source, config: EG3DConfig, given: str | None) -> Recipe:
    if given is not None or not (model.folder / "recipe.yaml").is_file():
        return load_recipe(given or default_recipe(config))
    return read_recipe(model)


def _about(source: hub.Source, sha256: str) -> dict[str, str | None]:
    return {"repo": source.uri, "revision": source.revision, "sha256": sha256}


def _bare(network: str) -> str:
    return network.partition(":")[0]


# ----------------------------------------------------------------------------
# Measuring


def _measure_people(
    wanted: Request,
    source: EG3D,
    erased: EG3D,
    networks: Networks,
    recipe: Recipe,
    threshold: float,
    progress: Progress,
) -> tuple[Identity, ...]:
    device = source.w_avg.device
    for warning in wanted.warnings:
        progress.warn(str(warning))
    progress.stage("reading the photos")
    subjects = read_subjects(wanted.identities, source.config.img_resolution, device)
    check_grouping(subjects, networks.identity_judge, threshold)
    find = Finder(source, recipe, networks, threshold)
    cameras = yaw_cameras(source, recipe.camera, VIEWS)
    people = []
    for subject in subjects:
        name, photos = subject.identity.id, subject.photos
        progress.stage(f"inverting and measuring {name}")
        person = find(subject)
        tested = torch.cat([photos[:1], photos[person.fitted :]])
        ws = torch.cat([person.latent, person.ws[person.fitted :]])
        figures = measure_paper(source, erased, networks.identity_judge, ws, tested, cameras)
        if not person.shown:
            progress.warn(
                f"{name}: the base does not show this person (cosine {person.cosine:.2f}, "
                f"threshold {threshold:.2f}), so the figures say little"
            )
        people.append(Identity(name, len(photos), figures))
    return tuple(people)


def _measure_retained(
    source: EG3D,
    erased: EG3D,
    judge: IdentityEncoder,
    perceptual: PerceptualDistance,
    recipe: Recipe,
    threshold: float,
    seed: int,
) -> tuple[Figure, Figure, Figure]:
    """The same people as in the record of a run with this seed, one by one for the intervals."""
    generator = torch.Generator().manual_seed(RETAINED_SEED + seed)
    people = LatentSpace(source).random(recipe.gate.retained_people, generator)
    c = yaw_cameras(source, recipe.camera, RETAINED_VIEWS)
    each = [measure_retained(source, erased, judge, perceptual, w, c, threshold) for w in people.split(1)]
    return (
        share_figure([p.verified for p in each], "people"),
        mean_figure([p.cosine for p in each], "people"),
        mean_figure([p.perceptual for p in each], "people"),
    )


def _measure_drift(
    source: EG3D,
    erased: EG3D,
    extractor: FeatureExtractor,
    name: str,
    recipe: Recipe,
    real: Tensor | None,
    samples: int,
    seed: int,
    progress: Progress,
) -> DriftFigures:
    """Noise as in the recipe, rays always jittered: GUIDE's FID samples, and a floor where noise is const."""

    def sample(model: EG3D, latents: int, noise: int, what: str) -> Tensor:
        progress.stage(f"{samples:,} pictures of {what}")
        return sample_features(
            model, extractor, samples, latents, recipe.camera, recipe.noise, noise,
            done=lambda n: progress.stage(f"  {n:,} of {samples:,}") if n % LINE_EVERY == 0 else None,
        )  # fmt: skip

    start = time.monotonic()
    sample_features(source, extractor, PROBE, seed, recipe.camera, recipe.noise)
    seconds = (time.monotonic() - start) / PROBE * 4 * samples
    progress.stage(f"4 x {samples:,} pictures for the drift, about {_duration(seconds)}")
    before = sample(source, seed, seed, "the base")
    after = sample(erased, seed, seed + 1, "the erased model")
    again = sample(source, seed, seed + 1, "the base with other noise")
    others = sample(source, seed + 1, seed + 1, "the base at other latents")
    progress.stage("comparing")
    return DriftFigures(
        pre=measure_drift(before, after, name, seed),
        same_noise=measure_drift(again, after, name, seed),
        noise_floor=measure_drift(before, again, name, seed),
        sampling_floor=measure_drift(before, others, name, seed),
        real=measure_real(real, before, after) if real is not None else None,
        real_samples=len(real) if real is not None else None,
        noise=recipe.noise,
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _figure(drift: Drift, which: str) -> dict[str, float | None]:
    found = asdict(drift)
    return {"value": found[which], "low": found[f"{which}_low"], "high": found[f"{which}_high"]}


def _both(drift: Drift) -> dict[str, dict[str, float | None]]:
    return {which: _figure(drift, which) for which in ("fid", "kid")}
