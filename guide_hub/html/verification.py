"""The report of a verification: its checks, and with the photos what was measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from guide_hub.html import verdict
from guide_hub.html.command import verify_command
from guide_hub.html.page import Check, Likeness, PrivatePage, PublicPage, Summary, attack_result
from guide_hub.html.render import write
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.attacks.base import Finding
    from guide_hub.hub import Source
    from guide_hub.remeasure import Measured
    from guide_hub.verify import Verification


def write_verification(
    folder: Path,
    found: Verification,
    source: Source,
    measured: Sequence[Measured],
    options: Mapping[str, object],
    findings: Mapping[str, Sequence[Finding]] | None = None,
) -> None:
    """report-public.html, and report.html where people were measured; `options`: those of `verify`.

    `findings`: of attacks, by identity.
    """
    findings = findings or {}
    attacks = [attack_result(name, f) for name, several in findings.items() for f in several]
    people = [likeness(m) for m in measured]
    checks = [Check(c.name, c.status, c.detail) for c in found.checks]
    model = found.model
    public = PublicPage(
        title=f"Verification report: {model['repo']}",
        verdict=verdict.of_checks(people, checks, attacks),
        people=people,
        checks=checks,
        attacks=attacks,
        facts=[
            ("model", str(model["repo"])),
            *([("its revision", str(model["revision"]))] if model["revision"] else []),
            ("guide-hub", __version__),
        ],
        command=verify_command(source),
    )
    if not measured:
        write(folder, None, public)
        return
    from guide_hub.html import erasure, plots

    first = measured[0].run
    shared = {f.name: getattr(public, f.name) for f in fields(Summary)}
    shared["charts"] = [plots.likeness(people, "likeness")]
    shared["others"] = erasure.others_of(first.base, first.erased, first.others(), first.recipe.camera)
    public = PublicPage(**shared)
    portraits = [
        erasure.portrait(
            p, m.seen, m.run.base, m.run.erased, m.run.recipe.camera, k, erasure.Extras(findings)
        )
        for k, (p, m) in enumerate(zip(people, measured, strict=True))
    ]
    shared["command"] = verify_command(source, **options)
    write(folder, PrivatePage(**shared, portraits=portraits), public)


def likeness(measured: Measured) -> Likeness:
    m = measured.figures
    held = m.others_after.verified if m.others_after else None
    return Likeness(
        measured.identity_id, measured.run.recipe.gate.gone(m.after.verified, held), m.before.cosine,
        m.after.cosine, measured.threshold, m.after.verified,
        m.others_before.cosine if m.others_before else None,
        m.others_after.cosine if m.others_after else None, held,
    )  # fmt: skip
