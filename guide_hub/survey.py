"""Everybody whom a model has lost, measured while a run erases more, for its report and its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from guide_hub import private
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import PEOPLE, calibrate, sees, threshold_at
from guide_hub.evaluation.collateral import Collateral, Recommended, measure, recommended_far
from guide_hub.evaluation.identity import (
    Compared,
    PersonMeasure,
    Seen,
    Sitter,
    compare_retained,
)
from guide_hub.evaluation.reemergence import Cell, Drift, Matrix
from guide_hub.evaluation.views import render_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance

if TYPE_CHECKING:
    from guide_hub.sequence import Sequence as Run

Id = tuple[str, str]

COMPANY = 10  # random people who are looked at after every step; the gate has more, at the end
JSON, PLOT = "reemergence.json", "reemergence.png"


class Survey:
    """`people`: everybody on the record, which numbers them from 1. `sitters`, by number, are those of them
    who can be measured: a run adds its own.

    `others` [N, num_ws, w_dim] are random people, looked at from cameras c [V, 25], the middle one frontal;
    `source` is the model before the run, `far` the rate at which `threshold` was calibrated on it.
    """

    def __init__(
        self,
        people: Sequence[Id],
        source: EG3D,
        judge: IdentityEncoder,
        perceptual: PerceptualDistance,
        others: Tensor,
        c: Tensor,
        threshold: float,
        far: float,
    ):
        self.matrix = Matrix(people)
        self.sitters: dict[int, Sitter] = {}
        self.source, self.judge, self.perceptual = source, judge, perceptual
        self.others, self.c, self.threshold, self.far = others, c, threshold, far
        self._pictures: list[Tensor] = []
        self._views: dict[int, Tensor] = {}

    def add(self, number: int, sitter: Sitter) -> None:
        self.sitters[number] = sitter
        self.matrix.thresholds[number] = sitter.threshold

    def remember(self, number: int, step: int, then: Cell, row: list[list[Any]]) -> None:
        """What is known of somebody whom an earlier run erased: at the own step, and the step's whole row."""
        self.matrix.steps[number] = step
        self.matrix.add_row(number, row)
        self.matrix.cells.setdefault((step, number), then)

    def person(self, number: int, student: EG3D) -> PersonMeasure:
        sitter = self.sitters[number]
        return sitter.measured(sitter.views(student))

    # ------------------------------------------------------------------------------------------------------
    # After every step, where that is asked for

    def after(self, numbers: Sequence[int], student: EG3D) -> dict[str, Any]:
        """What a step that took `numbers` out did to those before them, and to others: plain values."""
        before = [j for j in self.sitters if j < max(numbers) and j not in numbers]
        cells = {j: asdict(Cell.of(self._seen(j, student))) for j in before}
        return {"cells": cells, "retained": asdict(self._drift(student))}

    def _seen(self, number: int, student: EG3D) -> Seen:
        sitter = self.sitters[number]
        return sitter.seen(sitter.views(student))

    def _drift(self, student: EG3D) -> Drift:
        ws = self.others[:COMPANY]
        if not self._pictures:
            self._pictures = [render_views(self.source, w, self.c)[0] for w in ws.split(1)]
        found = compare_retained(
            self._pictures, student, self.judge, self.perceptual, ws, self.c, self.threshold
        )
        return Drift(found.measure.n, found.measure.verified, found.measure.perceptual)

    # ------------------------------------------------------------------------------------------------------
    # After a run

    def note(self, run: Run, first: int) -> None:
        """What `run` measured on the way; its people are numbered from `first`."""
        for step, people in enumerate(run.steps):
            number = first + max(people)
            drift = Drift()
            for k in people:
                m = run.measured[k]
                self.matrix.steps[first + k] = number
                self.matrix.cells[number, first + k] = Cell.of(Seen(m.after, m.others_after))
            if step in run.surveys:
                said = run.surveys[step]
                self.matrix.cells.update({(number, j): Cell(**cell) for j, cell in said["cells"].items()})
                drift = Drift(**said["retained"])
            self.matrix.drift[number] = Drift(
                drift.n, drift.verified, drift.lpips_mean, run.seconds_each(step)
            )

    def finish(self, student: EG3D, drift: bool = False) -> dict[int, Seen]:
        """Everybody on the final weights, by number: the matrix's last row. `drift`: as after every step."""
        last, found = max(self.matrix.steps.values()), {}
        for j, sitter in self.sitters.items():
            self._views[j] = sitter.views(student)
            found[j] = sitter.seen(self._views[j])
            self.matrix.cells[last, j] = Cell.of(found[j])
        if drift:
            then, now = self.matrix.drift[last], self._drift(student)
            self.matrix.drift[last] = Drift(now.n, now.verified, now.lpips_mean, then.seconds)
        return found

    def final(self, number: int) -> PersonMeasure:
        """One of the run's own people, after `finish`."""
        return self.sitters[number].measured(self._views[number])

    def retained(self, student: EG3D) -> Compared:
        """All of `others`, as in `measure_retained`."""
        pictures = (render_views(self.source, w, self.c)[0] for w in self.others.split(1))
        return compare_retained(
            pictures, student, self.judge, self.perceptual, self.others, self.c, self.threshold
        )

    def collateral(self, retained: Compared) -> Collateral:
        """After `finish`."""
        before, after = retained.before, retained.after
        erased = [sitter.faces[: sitter.fitted] for sitter in self.sitters.values()]
        n = len(self.matrix.people)
        return measure(
            n, self.far, self.threshold, erased, before, after, self._recommended(n, before, after)
        )

    def _recommended(self, n: int, before: Tensor, after: Tensor) -> Recommended | None:
        """The results at 0.01 / N. The threshold is that of the pairs of `before`; where they are too few,
        and the gate's rate is above it, of more people, as the gate's was found."""
        far, (people, views) = recommended_far(n), before.shape[:2]
        if sees(people, views, far):
            line, _ = threshold_at(before.cpu(), far)
        elif far < self.far and sees(PEOPLE, views, far):
            line = calibrate(self.source, self.judge, "", self.c, far).threshold
        else:
            return None
        seen = [self.sitters[j].seen(views, line) for j, views in self._views.items()]
        held_out = [s.others.verified for s in seen if s.others is not None]
        return Recommended(
            far,
            line,
            max((s.own.verified for s in seen), default=0.0),
            max(held_out, default=None),
            float(((before * after).sum(-1) >= line).double().mean()),
        )


def write(matrix: Matrix, folder: Path) -> None:
    """The matrix beside the private report's sheets, for the owner alone."""
    text = json.dumps(matrix.to_dict(), indent=2, allow_nan=False) + "\n"
    private.write(folder / JSON, text.encode())
    private.write(folder / PLOT, matrix.plot())
