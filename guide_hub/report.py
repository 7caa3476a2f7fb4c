"""What a run says about itself: the same fields in Python and in `--json`. Opaque ids and averages only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from guide_hub.errors import Problem

if TYPE_CHECKING:
    from guide_hub.evaluation.collateral import Collateral
    from guide_hub.evaluation.reemergence import Reemergence


@dataclass
class IdentityFigures:
    """Mean cosines over views before and after, beside the threshold at the recipe's false accept rate."""

    before: float
    after: float
    threshold: float


@dataclass
class InversionReport:
    """What the model makes of one identity: means over its `fitted` photos at the latent that they found.

    `recognised`: whether the judge recognises any of the photos, and so the person.
    """

    request_id: str | None
    identity_id: str
    photos: int
    fitted: int
    cosine: float
    threshold: float
    perceptual: float
    recognised: bool


@dataclass
class ErasureReport:
    """One identity. `now` is `id.after` on the final weights; shares are of views still verified there.

    `attacks`: what the quick attacks found there (`guide_hub.attacks.base.Finding.to_dict`).
    """

    request_id: str
    identity_id: str
    sequence: int
    id: IdentityFigures
    now: float
    id_guide: float
    verified_after: float
    id_others: IdentityFigures | None
    verified_others_after: float | None
    result: str
    attacks: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class EarlierReport:
    """Somebody whom an earlier run erased, measured again on the final weights from what the ledger keeps."""

    request_id: str
    identity_id: str
    sequence: int
    threshold: float
    now: float
    verified_now: float
    others_now: float | None
    verified_others_now: float | None
    result: str


@dataclass
class RetainedReport:
    """Random people who were not erased: share still verified as themselves, mean perceptual distance."""

    n: int
    verified: float
    lpips_mean: float


@dataclass
class Report:
    """`request_id` is None for a run of several requests, whose ids are in `request_ids`.

    `teacher`: `original`, or `pulled` where only the model as it was pulled could be had.
    """

    status: str
    request_id: str | None = None
    base: dict[str, str | None] | None = None
    inversions: list[InversionReport] = field(default_factory=list)
    erasures: list[ErasureReport] = field(default_factory=list)
    earlier: list[EarlierReport] = field(default_factory=list)
    retained: RetainedReport | None = None
    reemergence: Reemergence | None = None
    collateral: Collateral | None = None
    teacher: Literal["original", "pulled"] | None = None
    output: str | None = None
    pushed: dict[str, str | None] | None = None
    request_ids: list[str] = field(default_factory=list)
    plan: dict[str, Any] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def name(self, of: InversionReport | ErasureReport) -> str:
        """What a person sees: the identity's id, with its request's in a run of several."""
        return f"{of.request_id}.{of.identity_id}" if len(self.request_ids) > 1 else of.identity_id

    def to_dict(self) -> dict[str, Any]:
        out = asdict(self)
        if self.plan is None:
            del out["plan"]
        return out


def problem_dict(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file, "line": problem.line, "column": problem.column,
        "message": problem.message, "remedy": problem.remedy,
    }  # fmt: skip
