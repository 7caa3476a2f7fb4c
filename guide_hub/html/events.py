"""TensorBoard event files of a run, on request: losses and figures, no pictures. Private like the report."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from guide_hub.errors import InputError

if TYPE_CHECKING:
    from guide_hub.html.losses import Rows
    from guide_hub.report import Report

FOLDER = "tensorboard"


def check(report: Path | None) -> None:
    """InputError where event files are asked for and cannot be written, before the work starts."""
    if report is None:
        raise InputError("--tensorboard needs a folder", remedy="name it with --report DIR")
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard, which is not installed",
            remedy="pip install 'guide-hub[tensorboard]', or leave it out: the page has the plots",
        )


def write(folder: Path, rows: Rows, report: Report) -> None:
    """One run a stage of losses, and one a person of figures; replaces those of an earlier report."""
    from torch.utils.tensorboard import SummaryWriter

    from guide_hub.html.losses import TERMS

    place = folder / FOLDER
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    for stage, found in rows.items():
        with SummaryWriter(str(place / stage)) as writer:
            for last, count, *sums in found:
                for term, value in zip(TERMS, sums, strict=True):
                    writer.add_scalar(f"loss/{term}", value / count, int(last))
    for e in report.erasures:
        with SummaryWriter(str(place / report.name(e))) as writer:
            figures = {"before": e.id.before, "after": e.id.after, "now": e.now, "threshold": e.id.threshold}
            for name, value in figures.items():
                writer.add_scalar(f"cosine/{name}", value, e.sequence)
    for path in place.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
