"""`guide-hub invert`: photos to latents, and how well a model shows the people, before anything is erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guide_hub import hub
from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.errors import GuideHubError, RefusedError
from guide_hub.inversion import Person
from guide_hub.networks import choose, default_recipe, load
from guide_hub.people import Finder, Subject, check_grouping, read_subjects, refuse_unshown
from guide_hub.pipeline import find_threshold, inversion_report
from guide_hub.progress import Silent
from guide_hub.recipe import load_recipe
from guide_hub.report import Report
from guide_hub.request import load_photos, load_request
from guide_hub.sequence import Progress, pick_device
from guide_hub.sheets import write_inversion_sheet, write_latents


@dataclass
class InvertReport(Report):
    """`photos`: each photo's key, whether it was fitted, the judge's cosine and the perceptual distance."""

    photos: list[dict[str, Any]] = field(default_factory=list)


def invert(
    repo: str,
    request: str | Path | None = None,
    *,
    photos: Sequence[str | Path] = (),
    revision: str | None = None,
    recipe: str | None = None,
    report: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> InvertReport:
    """Finds every identity of a request, or the one person of `photos`, in a model as `erase` would.

    `report`: a private folder. For each identity a sheet (photo, crop, its render, and three yaws), and the
    latents [1, num_ws, w_dim] by id in latents.safetensors.

    Raises InputError or HubError; RefusedError where the model does not show somebody. Both carry the figures
    in `report` once there are any.
    """
    progress = progress or Silent()
    target = pick_device(device)
    wanted = load_request(request, repo) if request is not None else None
    identities = wanted.identities if wanted is not None else (load_photos(photos),)
    for warning in wanted.warnings if wanted is not None else ():
        progress.warn(str(warning))
    source = hub.resolve(repo, revision or (wanted.target_revision if wanted is not None else None))
    progress.stage("loading the model")
    model = EG3D.from_pretrained(str(source.folder)).to(target).eval().requires_grad_(False)
    options = load_recipe(recipe or default_recipe(model.config))
    names = choose(model.config, options)
    networks = load(names, target)
    progress.stage("reading the photos")
    subjects = read_subjects(identities, model.config.img_resolution, target)
    sha256, judge = file_sha256(source.weights_file), networks.identity_judge
    threshold = find_threshold(source, sha256, model, judge, names.identity_judge, options, progress)
    check_grouping(subjects, judge, threshold)
    find = Finder(model, options, networks, threshold)
    people = []
    for subject in subjects:
        progress.stage(f"inverting {subject.identity.id}")
        people.append(find(subject))
        if report is not None:
            write_inversion_sheet(report, subject, people[-1], model, options.camera)
    pairs = list(zip(subjects, people, strict=True))
    if report is not None:
        write_latents(report, {s.identity.id: p.latent for s, p in pairs})
    request_id = wanted.request_id if wanted is not None else None
    found = InvertReport(
        "inverted", request_id, {"repo": source.uri, "revision": source.revision, "sha256": sha256},
        [inversion_report(request_id, s.identity.id, p) for s, p in pairs],
        photos=[row for pair in pairs for row in _rows(*pair)],
    )  # fmt: skip
    try:
        refuse_unshown(subjects, people)
    except GuideHubError as error:
        found.status = "no_match" if isinstance(error, RefusedError) else "error"
        error.report = found
        raise
    return found


def _rows(subject: Subject, person: Person) -> list[dict[str, Any]]:
    quality = person.quality
    return [
        {"photo": face.key, "fitted": k < person.fitted, "cosine": cosine, "perceptual": distance}
        for k, (face, cosine, distance) in enumerate(
            zip(subject.faces, quality.cosine, quality.perceptual, strict=True)
        )
    ]
