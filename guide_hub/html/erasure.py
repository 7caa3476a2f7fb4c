"""The report of an erasure: what is measured and rendered of it, sorted into the two editions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guide_hub.attacks.base import Finding
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import YAW, render_views
from guide_hub.html import events, losses, pictures, plots, verdict
from guide_hub.html.command import erase_command, public_erase_command
from guide_hub.html.page import (
    AttackResult,
    Chart,
    FoundBy,
    Gallery,
    Kept,
    Likeness,
    Matrix,
    Picture,
    Portrait,
    PrivatePage,
    PublicPage,
    Summary,
    attack_result,
    attack_results,
    urgency,
)
from guide_hub.html.render import write
from guide_hub.orbit import orbit_label
from guide_hub.recipe import Camera, Gate
from guide_hub.report import Report
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.plan import Plan

VIEWS = 13  # of a turntable; every third one is in the strips
TURN = 2 * YAW  # radians to either side, twice as far as the judge's cameras
SHOWN = 8  # random people, and pictures of an attack's row


@dataclass(frozen=True, eq=False)
class Seen:
    """One erased person's private pictures and latents.

    `photos` [P, 3, H, W] in [-1, 1], the `fitted` ones first; `ws` [1 + H, num_ws, w_dim]: the erased latent,
    then those of held-out photos; `w_t`: where it was sent, None where that is not known.
    """

    photos: Tensor = field(repr=False)
    fitted: int
    ws: Tensor = field(repr=False)
    w_t: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Extras:
    """What a run may have beside its figures: attacks by the person's name, the losses, re-emergence."""

    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    losses: losses.Rows = field(default_factory=dict)
    matrix: Matrix | None = None
    short: Sequence[str] = ()


def write_erasure(
    plan: Plan,
    report: Report,
    people: Sequence[Seen],
    teacher: EG3D,
    student: EG3D,
    retained: Tensor,
    extras: Extras,
) -> None:
    """report.html and report-public.html in `--report DIR`. `people` as in `report.erasures`.

    `retained` [N, num_ws, w_dim]: random people, of whom the first `SHOWN` are shown.
    """
    assert plan.options.report is not None
    write_pages(
        plan.options.report,
        public_page(
            report, plan.recipe.gate, attack_results(extras.findings),
            others_of(teacher, student, retained, plan.recipe.camera),
            change_of(teacher, student), extras.matrix, extras.short, public_erase_command(plan), facts(plan),
        ),
        [report.name(e) for e in report.erasures], people, teacher, student, plan.recipe.camera, extras,
        erase_command(plan), [("written to", str(plan.output)), ("state folder", str(plan.state))],
    )  # fmt: skip
    if plan.options.tensorboard:
        events.write(plan.options.report, extras.losses, report)


def write_pages(
    folder: Path,
    public: PublicPage,
    names: Sequence[str],
    people: Sequence[Seen],
    teacher: EG3D,
    student: EG3D,
    camera: Camera,
    extras: Extras,
    command: str,
    more: Sequence[tuple[str, str]] = (),
) -> None:
    """The public page, and around its figures the private one with the people's faces."""
    figures = {p.name: p for p in public.people}
    portraits = [
        portrait(figures[name], seen, teacher, student, camera, k, extras)
        for k, (name, seen) in enumerate(zip(names, people, strict=True))
    ]
    shared = {f.name: getattr(public, f.name) for f in fields(Summary)}
    shared |= {"command": command, "facts": [*public.facts, *more]}
    others = [rows for name, rows in extras.losses.items() if name not in names]
    stages = [chart for k, rows in enumerate(others) for chart in loss_charts(rows, f"stage-{k}")]
    shared["charts"] = [*public.charts, *stages]
    write(folder, PrivatePage(**shared, portraits=portraits), public)


# ----------------------------------------------------------------------------------------------------------
# The public edition: from figures that may be published, and random people


def public_page(
    report: Report,
    gate: Gate,
    attacks: list[AttackResult],
    others: list[Picture],
    change: dict[str, float],
    matrix: Matrix | None,
    short: Sequence[str],
    command: str,
    known: list[tuple[str, str]],
) -> PublicPage:
    """No argument holds a person."""
    people = [
        Likeness(
            report.name(e), gate.gone(e.verified_after, e.verified_others_after), e.id.before, e.now,
            e.id.threshold, e.verified_after, e.id_others.before if e.id_others else None,
            e.id_others.after if e.id_others else None, e.verified_others_after,
        )
        for e in report.erasures
    ]  # fmt: skip
    people += [
        Likeness(
            f"{e.request_id}.{e.identity_id}", e.result != "FAILED", None, e.now, e.threshold, e.verified_now,
            None, e.others_now, e.verified_others_now, earlier=True,
        )
        for e in report.earlier
    ]  # fmt: skip
    kept = None
    if (r := report.retained) is not None:
        kept = Kept(r.n, r.verified, r.lpips_mean, gate.retained_min)
    charts = [plots.likeness(people, "likeness")] if people else []
    charts += [plots.layers(change, "layers")] if change else []
    if matrix is not None and len(matrix.rows) > 1:
        charts.append(plots.curve(plots.reemergence(matrix), "reemergence"))
        charts += [plots.curve(plots.kept(matrix), "kept")] if matrix.kept else []
    return PublicPage(
        title=f"Erasure report: {_requests(report)}",
        verdict=verdict.of_erasure(people, kept, attacks, list(short)),
        people=people, kept=kept, attacks=attacks, matrix=matrix, charts=charts, others=others, facts=known,
        command=command,
    )  # fmt: skip


def others_of(teacher: EG3D, student: EG3D, retained: Tensor, camera: Camera) -> list[Picture]:
    """Random people from the front: two strips."""
    shown = retained[:SHOWN]
    c = _cameras(teacher, camera, torch.zeros(1))
    n = f"{len(shown)} random people"
    rows = []
    for word, model in (("before", teacher), ("after", student)):
        views = render_views(model, shown, c)[:, 0]
        rows.append(pictures.strip(views, word, f"{n} from the front, {word} the erasure"))
    return rows


def change_of(teacher: EG3D, student: EG3D) -> dict[str, float]:
    """Of every trained layer |change| / |weights|, as anybody can compute it from the two models."""
    before = {n: p.detach().cpu().double() for n, p in teacher.backbone.synthesis.named_parameters()}
    sums: dict[str, list[float]] = {}
    for name, p in student.backbone.synthesis.named_parameters():
        layer = ".".join(name.split(".")[:2])
        total = sums.setdefault(layer, [0.0, 0.0])
        total[0] += float((p.detach().cpu().double() - before[name]).square().sum())
        total[1] += float(before[name].square().sum())
    return {layer: (a / b) ** 0.5 if b else 0.0 for layer, (a, b) in sums.items()}


def facts(plan: Plan) -> list[tuple[str, str]]:
    """Where the model came from and how it was made: all of it is in the record too."""
    recipe, base = plan.recipe, plan.base
    found = [("base model", str(base["repo"]))]
    found += [("its revision", str(base["revision"]))] if base["revision"] else []
    found += [
        ("its weights, SHA-256", str(base["sha256"])),
        ("recipe", recipe.name),
        ("recipe, SHA-256", recipe.digest()),
        ("seed", str(plan.options.seed)),
        ("threshold", f"strangers reach it at a rate of {recipe.gate.far:g}"),
        ("views a person", str(recipe.gate.views)),
    ]
    return [*found, *versions()]


def versions() -> list[tuple[str, str]]:
    return [("guide-hub", __version__), ("torch", str(torch.__version__).split("+")[0])]


def _requests(report: Report) -> str:
    ids = report.request_ids or [report.request_id or "-"]
    return f"request {ids[0]}" if len(ids) == 1 else f"requests {', '.join(ids)}"


# ----------------------------------------------------------------------------------------------------------
# The private edition


def portrait(
    likeness: Likeness, seen: Seen, teacher: EG3D, student: EG3D, camera: Camera, k: int, extras: Extras
) -> Portrait:
    """One person's section; `k` is its number on the page."""
    name = likeness.name
    c = _cameras(teacher, camera, torch.linspace(-TURN, TURN, VIEWS))
    views = {
        "before": render_views(teacher, seen.ws[:1], c)[0],
        "after": render_views(student, seen.ws[:1], c)[0],
    }
    if seen.w_t is not None:
        views["target"] = render_views(teacher, seen.w_t, c)[0]
    front = VIEWS // 2
    tiles = [pictures.tile(seen.photos[0], "photo", f"A photo of {name}")]
    tiles += [pictures.tile(v[front], word, f"{name} from the front: {word}") for word, v in views.items()]
    strips = [
        pictures.strip(v[::3], word, f"{name} from the left to the right: {word}", 160)
        for word, v in views.items()
    ]
    galleries = [Gallery(f"Turned, {round(math.degrees(TURN))} degrees to either side", strips)]
    if len(seen.ws) > 1:
        rows = []
        for word, model in (("before", teacher), ("after", student)):
            held = render_views(model, seen.ws[1:], c[front : front + 1])[:, 0]
            rows.append(
                pictures.strip(held, word, f"Held-out photos of {name} as the model shows them, {word}")
            )
        galleries.append(Gallery("At the latents of held-out photos", rows, wrap=len(seen.ws) < 4))
    photos = [
        pictures.tile(photo, "fitted" if n < seen.fitted else "held out", f"Photo {n + 1} of {name}", 160)
        for n, photo in enumerate(seen.photos)
    ]
    charts = loss_charts(extras.losses.get(name, []), f"losses-{k}")
    tiles += best_attack(name, extras.findings.get(name, ()))
    attacks = [found_by(name, f, f"attack-{k}-{n}") for n, f in enumerate(extras.findings.get(name, ()))]
    words = ", ".join(views)
    turning = pictures.turntable([*views.values()], words, f"{name} turning to and fro: {words}", 176)
    attacks = sorted(attacks, key=lambda found: urgency(found.result))
    return Portrait(likeness, tiles, galleries, turning, photos, charts, attacks)


def loss_charts(rows: list[list[float]], key: str) -> list[Chart]:
    """One, where there is something to draw; it says so where it does not begin at the first step."""
    curve, late = losses.curve(rows), losses.begins_late(rows)
    if curve is None:
        return []
    note = "" if late is None else f"The steps before {late} were not noted."
    return [replace(plots.curve(curve, key), note=note)]


def best_attack(name: str, findings: Sequence[Finding]) -> list[Picture]:
    """A tile of the closest that a search came in the erased model, where one was made."""
    return [
        pictures.tile(images[0], "best attack", f"The closest to {name} that a search found afterwards")
        for f in findings if f.attack == "reinversion"
        for caption, images in f.pictures.items() if "erased" in caption and len(images)
    ]  # fmt: skip


def found_by(name: str, finding: Finding, key: str) -> FoundBy:
    """An attack with its plots and pictures."""
    rows = [
        pictures.strip(images[:SHOWN], caption, f"{finding.title}, {name}: {caption}")
        for caption, images in finding.pictures.items()
        if len(images)
    ]
    charts = [plots.curve(c, f"{key}-{n}") for n, c in enumerate(finding.curves)]
    return FoundBy(attack_result(name, finding), charts, rows)


def _cameras(model: EG3D, camera: Camera, yaws: Tensor) -> Tensor:
    return orbit_label(model.config, camera, yaws).to(model.w_avg.device)
