"""Do later erasures bring earlier people back? Everybody, measured after every step: M[k, j].

M[k, j] is person j after step k, by the judge: the photos against the model's pictures at the person's
latents. A step is one stage of a mode, and is named after the last person whom it erases; its row holds
those who are erased by then. arXiv 2605.25962 and 2511.07970 show why one needs it, SUGAR's tables lack it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guide_hub.evaluation.identity import Seen

SCHEMA = "guide-hub/reemergence/v1"
SHOWN = 20  # people whose figures are written into the plot's cells

Row = list[list[Any]]  # of a step: request and identity, and a cell's figures; JSON


@dataclass(frozen=True)
class Cell:
    """One person after one step: mean cosine and share of views verified, of the photos of the erasure and of
    held-out ones. None: not measured, or no such photos."""

    cosine: float
    verified: float | None = None
    others: float | None = None
    others_verified: float | None = None

    @staticmethod
    def of(seen: Seen) -> Cell:
        others = seen.others
        return Cell(
            seen.own.cosine,
            seen.own.verified,
            others.cosine if others else None,
            others.verified if others else None,
        )


@dataclass(frozen=True)
class Drift:
    """Random people who were not erased, after a step against the model as the run found it: as in
    `RetainedMeasure`; and the seconds that the step took for each of its people. None: not measured.

    FID_pre and KID take thousands of pictures: `guide-hub evaluate` has them, of the model of the end.
    """

    n: int | None = None
    verified: float | None = None
    lpips_mean: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Reemergence:
    """Of the `n` people who were measured after a later step than their own.

    `rise`, `others_rise`: the largest `M[k, j] - M[j, j]` over j and k > j, of cosines; `verified_max`: the
    largest share of views verified then. `every_step`: whether all those k were measured, or the last alone.
    """

    n: int
    rise: float
    others_rise: float | None
    verified_max: float
    every_step: bool


@dataclass
class Matrix:
    """`people`: request and identity of everybody, in the order of the record, which numbers them from 1.

    `steps`: the step of each one's own erasure, by number; `cells`: (step, number).
    """

    people: Sequence[tuple[str, str]]
    steps: dict[int, int] = field(default_factory=dict)
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)
    drift: dict[int, Drift] = field(default_factory=dict)
    thresholds: dict[int, float] = field(default_factory=dict)

    def row(self, step: int) -> Row:
        """What `add_row` takes, for the ledger."""
        return [[*self.people[j - 1], *asdict(c).values()] for (k, j), c in self.cells.items() if k == step]

    def add_row(self, step: int, row: Row) -> None:
        """The figures of a run before; those of people who are no longer on record are left out."""
        numbers = {person: j for j, person in enumerate(self.people, 1)}
        for request, identity, *figures in row:
            if (request, identity) in numbers:
                self.cells[step, numbers[request, identity]] = Cell(*figures)

    def later(self, j: int) -> list[Cell]:
        """Person j after the steps that followed the own one."""
        own = self.steps.get(j)
        return [] if own is None else [c for (k, i), c in self.cells.items() if i == j and k > own]

    def reemergence(self) -> Reemergence | None:
        """None where nobody was measured twice."""
        rises, others, verified, whole = list[float](), list[float](), list[float](), True
        for j, own in self.steps.items():
            then, later = self.cells.get((own, j)), self.later(j)
            if then is None or not later:
                continue
            rises.append(max(c.cosine for c in later) - then.cosine)
            verified += [c.verified for c in later if c.verified is not None]
            if then.others is not None:
                others += [c.others - then.others for c in later if c.others is not None]
            whole &= len(later) == len({k for k in self.steps.values() if k > own})
        if not rises:
            return None
        return Reemergence(
            len(rises), max(rises), max(others, default=None), max(verified, default=0.0), whole
        )

    def to_dict(self) -> dict[str, Any]:
        """What `reemergence.json` holds: opaque ids and averages, null for what was not measured."""
        found, numbers = self.reemergence(), range(1, len(self.people) + 1)
        return {
            "schema": SCHEMA,
            "people": [
                {
                    "number": j,
                    "request_id": request,
                    "identity_id": identity,
                    "own_step": self.steps.get(j),
                    "threshold": self.thresholds.get(j),
                }
                for j, (request, identity) in enumerate(self.people, 1)
            ],
            "steps": [
                {
                    "step": k,
                    "people": [
                        None if (k, j) not in self.cells else asdict(self.cells[k, j]) for j in numbers
                    ],
                    "retained": asdict(self.drift.get(k, Drift())),
                }
                for k in sorted({k for k, _ in self.cells})
            ],
            "reemergence": None if found is None else asdict(found),
        }

    def plot(self) -> bytes:
        """The cosines as a PNG: steps downwards, people to the right; what was not measured stays white."""
        from matplotlib.figure import Figure

        steps, n = sorted({k for k, _ in self.cells}), len(self.people)
        nothing = float("nan")
        values = [
            [self.cells[k, j].cosine if (k, j) in self.cells else nothing for j in range(1, n + 1)]
            for k in steps
        ]
        size, line = max(3.5, min(12.0, 1.5 + 0.45 * n)), max([1e-3, *self.thresholds.values()])
        figure = Figure(figsize=(size + 1, max(2.5, size * len(steps) / n)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(values, vmin=0, vmax=line, cmap="viridis")
        every = 1 + n // (2 * SHOWN)
        axes.set_xticks(range(0, n, every), [str(j) for j in range(1, n + 1, every)])
        axes.set_yticks(range(0, len(steps), every), [str(k) for k in steps[::every]])
        axes.set_xlabel("person, by number on the record")
        axes.set_ylabel("after step")
        if n <= SHOWN:
            for y, x in [(y, x) for y, k in enumerate(steps) for x in range(n) if (k, x + 1) in self.cells]:
                colour = "black" if values[y][x] > 0.6 * line else "white"
                axes.text(x, y, f"{values[y][x]:.2f}", ha="center", va="center", color=colour, fontsize=7)
        figure.colorbar(image, label="mean cosine; top: verified", extend="both")
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=120)
        return out.getvalue()
