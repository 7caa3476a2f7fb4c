"""The output folder, written beside its place and renamed when complete."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guide_hub import record as records
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.sheets import sheet
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.evaluation.interval import Figure
    from guide_hub.plan import Plan
    from guide_hub.report import ErasureReport, Report

SHOWN = 6  # retained people in the card's picture


def write_folder(
    plan: Plan,
    statement: Callable[[Path], records.Record],
    student: EG3D,
    teacher: EG3D,
    people: Tensor,
    check: Callable[[Path], None] | None = None,
) -> records.Record:
    """Writes `plan.output` whole or not at all; gives its record. Shows `people` ws [N, num_ws, w_dim].

    `statement` makes the record of the files in a folder; `check` looks at the whole, and may refuse it.
    """
    with building(plan.output) as folder:
        student.save_pretrained(folder)
        (folder / "recipe.yaml").write_text(plan.recipe.to_yaml(), encoding="utf-8", newline="\n")
        if plan.source.license_file is not None:
            shutil.copyfile(plan.source.license_file, folder / "LICENSE")
        assets = folder / "assets"
        assets.mkdir()
        cameras = yaw_cameras(teacher, plan.recipe.camera, 1)
        rows = {
            "before": render_views(teacher, people[:SHOWN], cameras)[:, 0],
            "after": render_views(student, people[:SHOWN], cameras)[:, 0],
        }
        sheet(rows).save(assets / "retained.png", optimize=True)
        record = statement(folder)
        (folder / records.record.FILE).write_bytes(records.to_bytes(record))
        info = records.CardInfo(plan.push_to, plan.card, ["retained.png"], plan.previous_card)
        card = records.render_card(record, info)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        records.write_sums(folder)
        if check is not None:
            check(folder)
    return record


def make_record(plan: Plan, report: Report, device: str, folder: Path) -> records.Record:
    """The statement about the files in `folder`, from the report's figures alone.

    Erasures of earlier runs are carried over, with `now: null` where the ledger could not measure them again.
    """
    key = records.load_key(plan.state)
    erasures = []
    for (request, identity), figures in zip(plan.people, report.erasures, strict=True):
        commitment = records.commit(key, request.request_id, identity.id, [p.sha256 for p in identity.images])
        erasures.append(
            records.Erasure(
                request.request_id,
                identity.id,
                commitment,
                len(identity.images),
                request.regime,
                today(),
                metrics(figures),
                "PASSED" if figures.result == "PASSED" else "FAILED",
                request.public_ground,
                request.public_received,
                figures.attacks,
            )
        )
    again = {
        (e.request_id, e.identity_id): records.Again(e.now, e.result == "PASSED") for e in report.earlier
    }
    return records.build_record(
        subject=subject(folder),
        base=records.Base(plan.source.uri, plan.weights_sha256, plan.source.revision),
        recipe_digest=plan.recipe.digest(), recipe_name=plan.recipe.name, erasures=erasures,
        seed=plan.options.seed, tool_version=__version__, environment=environment(device),
        retained=retained(report), reemergence=reemergence(report), collateral=collateral(report),
        teacher=report.teacher, previous=plan.previous, remeasured=again,
    )  # fmt: skip


def metrics(figures: ErasureReport) -> records.Metrics:
    """One identity's figures as the record has them."""
    others = figures.id_others
    return records.Metrics(
        before=figures.id.before, after=figures.id.after, threshold=figures.id.threshold, now=figures.now,
        others=records.Held(others.before, others.after, others.threshold) if others else None,
        id_guide=figures.id_guide, verified_after=figures.verified_after,
        verified_others_after=figures.verified_others_after,
    )  # fmt: skip


def retained(report: Report) -> records.Retained:
    """Those who were not erased, as the record has them."""
    assert report.retained is not None
    return records.Retained(report.retained.n, report.retained.verified, report.retained.lpips_mean)


def reemergence(report: Report) -> records.Reemergence | None:
    """What later erasures did to earlier ones, as the record has it."""
    r = report.reemergence
    if r is None:
        return None
    return records.Reemergence(r.n, r.rise, r.verified_max, r.every_step, r.others_rise)


def collateral(report: Report) -> records.Collateral | None:
    """Whom else the erasures touch, as the record has it."""
    c = report.collateral
    if c is None:
        return None
    return records.Collateral(
        c.n, c.far, c.expected, c.changed.n, c.known,
        changed=_share(c.changed),
        alike=None if c.alike is None else _share(c.alike),
        recommended=None if c.recommended is None else records.AtRate(**asdict(c.recommended)),
    )  # fmt: skip


def _share(figure: Figure) -> records.Share:
    assert figure.low is not None
    assert figure.high is not None
    return records.Share(figure.value, figure.low, figure.high)


def subject(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a record is about."""
    return {name: records.file_sha256(folder / name) for name in ("model.safetensors", "config.json")}


def environment(device: str) -> dict[str, str]:
    """Versions and device, as the record names them."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__).split("+")[0],
        "device": device,
    }


def today() -> datetime.date:
    """The day in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date()


@contextmanager
def building(output: Path) -> Iterator[Path]:
    """A sibling of `output` that takes its name when the block ends well; else it goes, now or next time."""
    output = output.resolve()
    folder = output.with_name(f".{output.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        if output.is_dir():
            output.rmdir()  # empty: the plan checked
        os.replace(folder, output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
