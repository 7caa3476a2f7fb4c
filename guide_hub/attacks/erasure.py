"""The quick attacks at the end of an erasure: on the final weights, and on the folder before it is pushed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from guide_hub.attacks import leaks
from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import QUICK
from guide_hub.attacks.case import figures_text, make_case, secrets_of
from guide_hub.attacks.registry import ATTACKS, quick_names
from guide_hub.attacks.suite import run_all
from guide_hub.eg3d import EG3D
from guide_hub.errors import Problem, RefusedError
from guide_hub.guide import Erasure
from guide_hub.networks import Networks
from guide_hub.report import Report

if TYPE_CHECKING:
    from guide_hub.plan import Plan
    from guide_hub.sequence import Progress

BEFORE_WRITING = [name for name in quick_names() if name != "leaks"]


def run_cases(
    plan: Plan,
    source: EG3D,
    erased: EG3D,
    networks: Networks,
    points: Iterable[Tensor],
    photos: Iterable[Tensor],
    threshold: float,
    erasures: Iterable[Erasure],
) -> dict[str, Case]:
    """A case for each identity of the run, by its name in progress and errors."""
    memo: dict[Any, Any] = {}
    return {
        identity.label: make_case(
            source, erased, plan.recipe, networks, ws, seen, len(seen) - len(ws) + 1, threshold,
            seed=plan.options.seed, w_t=erasure.w_t, secrets=secrets_of(identity), apart=erasure.photos,
            memo=memo,
        )
        for identity, ws, seen, erasure in zip(plan.identities, points, photos, erasures, strict=True)
    }  # fmt: skip


def attack_everybody(
    report: Report, cases: Mapping[str, Case], progress: Progress
) -> dict[str, list[Finding]]:
    """The quick attacks' findings, also into the report; an erasure fails by those that gate."""
    findings: dict[str, list[Finding]] = {name: [] for name in cases}
    for erasure, (name, case) in zip(report.erasures, cases.items(), strict=True):
        progress.stage(f"attacking {name}")
        for found in run_all(case, BEFORE_WRITING, QUICK):
            findings[name].append(found)
            erasure.attacks.append(found.to_dict())
            if found.passed is False and ATTACKS[found.attack].gates:
                erasure.result = "FAILED"
            elif found.passed is False:
                progress.warn(f"{name}: the attack {found.attack} succeeds ({figures_text(found.figures)})")
    return findings


def refuse_leaks(cases: Mapping[str, Case], folder: Path) -> None:
    """RefusedError where a file that is to be published holds something of somebody."""
    problems = []
    for name, case in cases.items():
        found = leaks.run(dataclasses.replace(case, folder=folder))
        if found.passed is False:
            problems.append(
                Problem(
                    f"{name}: what is to be published holds something of the person "
                    f"({figures_text(found.figures)})",
                    "look at the notes that come from the base's card; else report this",
                )
            )
    if problems:
        raise RefusedError(*problems)
