"""What a page shows. The private edition has the people; the public one has no room for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from guide_hub.attacks.base import Finding

Level = Literal["passed", "mixed", "failed"]

_OPAQUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Picture:
    """One image file as a data URI, shown `width` x `height` CSS pixels large. `still`: where it moves."""

    uri: str = field(repr=False)
    width: int
    height: int
    alt: str
    caption: str = ""
    still: str = field(default="", repr=False)


@dataclass(frozen=True)
class Table:
    """Text by rows; the first cell of each is its row's header."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A drawing as inline SVG, and its figures as a table for those who do not see it."""

    title: str
    svg: Markup = field(repr=False)
    table: Table | None = None
    note: str = ""


@dataclass(frozen=True)
class Likeness:
    """One person's mean cosines and shares of views still verified; `name` is an opaque id.

    `gone`: whether so few of the views are verified as the gate asks for. `earlier`: of a run before.
    """

    name: str
    gone: bool
    before: float | None
    now: float
    threshold: float
    views: float | None
    others_before: float | None = None
    others_now: float | None = None
    views_others: float | None = None
    earlier: bool = False

    @property
    def word(self) -> str:
        return "Gone" if self.gone else "Still recognised"


@dataclass(frozen=True)
class Kept:
    """Random people who were not erased: share of views still verified, and the least that will do."""

    n: int
    verified: float
    lpips: float
    least: float


@dataclass(frozen=True)
class AttackResult:
    """What one attack found of one person: averages alone."""

    person: str
    attack: str
    passed: bool | None
    rule: str
    figures: dict[str, float | int | None] = field(default_factory=dict)

    @property
    def word(self) -> str:
        return "not judged" if self.passed is None else "held" if self.passed else "broken"


@dataclass(frozen=True)
class Matrix:
    """Re-emergence: `values[k][j]` is person `columns[j]`'s mean cosine after step `rows[k]`, None before it.

    `verified[k][j]`: the share of views still verified, or whether any is.
    """

    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    verified: list[list[float | bool | None]]
    threshold: float | None = None
    kept: list[float | None] = field(default_factory=list)  # random people's views still verified, by step


@dataclass(frozen=True)
class Check:
    """A named question and its answer, as `guide-hub verify` gives it."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The page's first words. `short`: what fell short, a sentence each."""

    level: Level
    headline: str
    detail: str
    short: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """What both editions say: averages under opaque ids, and random people's pictures.

    `others` are rows of random people, before and after. `facts`: name and value, one a line.
    """

    title: str
    verdict: Verdict
    people: list[Likeness] = field(default_factory=list)
    kept: Kept | None = None
    attacks: list[AttackResult] = field(default_factory=list)
    matrix: Matrix | None = None
    checks: list[Check] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    others: list[Picture] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""


@dataclass(frozen=True)
class PublicPage(Summary):
    """The edition for everybody. Only ids that look opaque get in, and nothing has room for a person.

    The functions that build it (`public_page` in `erasure` and `verification`) are given figures, what
    attacks publish, and pictures of random latents, and nothing else.
    """

    def __post_init__(self) -> None:
        for name in [p.name for p in self.people] + [a.person for a in self.attacks]:
            if not _OPAQUE.fullmatch(name):
                raise ValueError("a public page names people by their ids alone")


@dataclass(frozen=True)
class Gallery:
    """Rows of renders that are looked at together, such as one person's before and after.

    `wrap`: short ones, which may stand side by side.
    """

    title: str
    rows: list[Picture]
    wrap: bool = False


@dataclass(frozen=True)
class FoundBy:
    """An attack on one person, with its plots and what its pictures look like."""

    result: AttackResult
    charts: list[Chart] = field(default_factory=list)
    rows: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Portrait:
    """All that is private about one erased person."""

    likeness: Likeness
    tiles: list[Picture] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    turntable: Picture | None = None
    photos: list[Picture] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    attacks: list[FoundBy] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.likeness.name


@dataclass(frozen=True)
class PrivatePage(Summary):
    """The maintainer's edition: all of the public one, and the people's faces."""

    portraits: list[Portrait] = field(default_factory=list)


def attack_result(name: str, finding: Finding) -> AttackResult:
    """What may be published of an attack on the person of that name."""
    told: dict[str, Any] = finding.to_dict()
    return AttackResult(name, finding.title, told["passed"], told["rule"], dict(told["figures"]))


def attack_results(findings: Mapping[str, Sequence[Finding]]) -> list[AttackResult]:
    """Of everybody, by name."""
    return [attack_result(name, f) for name, several in findings.items() for f in several]


def matrix_of(told: Mapping[str, Any], request_ids: Sequence[str]) -> Matrix:
    """From what `reemergence.json` holds. Names as in a run of these requests; steps by their people."""
    names = [
        p["identity_id"] if [p["request_id"]] == [*request_ids] else f"{p['request_id']}.{p['identity_id']}"
        for p in told["people"]
    ]
    rows, values, verified, kept = [], [], [], []
    for step in told["steps"]:
        cells = step["people"]
        own = [n for n, p in zip(names, told["people"], strict=True) if p["own_step"] == step["step"]]
        rows.append(own[0] if len(own) == 1 else f"step {step['step']}")
        values.append([None if c is None else c["cosine"] for c in cells])
        verified.append([None if c is None else c["verified"] for c in cells])
        kept.append(step["retained"]["verified"])
    thresholds = {p["threshold"] for p in told["people"]} - {None}
    one = thresholds.pop() if len(thresholds) == 1 else None
    return Matrix(rows, names, values, verified, one, kept if any(k is not None for k in kept) else [])


def grid(attacks: Iterable[AttackResult]) -> tuple[list[str], list[tuple[str, list[AttackResult | None]]]]:
    """Attacks by rows and people by columns."""
    people: list[str] = []
    rows: dict[str, dict[str, AttackResult]] = {}
    for a in attacks:
        people += [] if a.person in people else [a.person]
        rows.setdefault(a.attack, {})[a.person] = a
    return people, [(name, [found.get(p) for p in people]) for name, found in rows.items()]


def broken_first(attacks: Iterable[AttackResult]) -> list[AttackResult]:
    """Then those that could not be judged, then the rest."""
    return sorted(attacks, key=urgency)


def urgency(attack: AttackResult) -> int:
    return 0 if attack.passed is False else 1 if attack.passed is None else 2
