"""The report of a verification: its checks, and with the photos what was measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guide_hub.html import verdict
from guide_hub.html.command import verify_command
from guide_hub.html.page import (
    AttackResult,
    Check,
    Likeness,
    PrivatePage,
    PublicPage,
    Summary,
    attack_results,
)
from guide_hub.html.render import write
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.hub import Source
    from guide_hub.remeasure import Measured
    from guide_hub.verify import Verification


def write_verification(
    folder: Path,
    found: Verification,
    source: Source,
    measured: Sequence[Measured],
    options: Mapping[str, object],
) -> None:
    """report-public.html, and report.html where people were measured; `options`: those of `verify`."""
    findings = {m.identity_id: m.findings for m in measured if m.findings}
    people = [likeness(m) for m in measured]
    public = public_page(found, verify_command(source), people, attack_results(findings))
    if not measured:
        write(folder, None, public)
        return
    import torch

    from guide_hub.html import erasure, plots
    from guide_hub.latents import LatentSpace
    from guide_hub.pipeline import RETAINED_SEED

    case = measured[0].case
    draw = torch.Generator().manual_seed(RETAINED_SEED)  # as in a run with seed 0
    others = LatentSpace(case.source).random(case.recipe.gate.retained_people, draw)
    public = replace(
        public,
        charts=[plots.likeness(people, "likeness")],
        others=erasure.others_of(case.source, case.erased, others, case.recipe.camera),
    )
    portraits = [
        erasure.portrait(
            p, m.seen, m.case.source, m.case.erased, m.case.recipe.camera, k, erasure.Extras(findings)
        )
        for k, (p, m) in enumerate(zip(people, measured, strict=True))
    ]
    shared = {f.name: getattr(public, f.name) for f in fields(Summary)}
    shared["command"] = verify_command(source, **options)
    write(folder, PrivatePage(**shared, portraits=portraits), public)


def public_page(
    found: Verification, command: str, people: list[Likeness], attacks: list[AttackResult]
) -> PublicPage:
    """The checks, and averages of the people."""
    checks = [Check(c.name, c.status, c.detail) for c in found.checks]
    repo, revision = found.model["repo"], found.model["revision"]
    return PublicPage(
        title=f"Verification report: {'a model folder' if repo == 'local' else repo}",
        verdict=verdict.of_checks(people, checks, attacks),
        people=people,
        attacks=attacks,
        checks=checks,
        facts=[
            ("model", str(repo)),
            *([("its revision", revision)] if revision else []),
            ("guide-hub", __version__),
        ],
        command=command,
    )


def likeness(measured: Measured) -> Likeness:
    m = measured.figures
    held = m.others_after.verified if m.others_after else None
    return Likeness(
        measured.identity_id, measured.case.recipe.gate.gone(m.after.verified, held), m.before.cosine,
        m.after.cosine, measured.threshold, m.after.verified,
        m.others_before.cosine if m.others_before else None,
        m.others_after.cosine if m.others_after else None, held,
    )  # fmt: skip
