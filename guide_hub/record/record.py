"""The erasure record: an in-toto Statement v1 about the published files, chained to older ones.

What may be public is what `erasure_record.v1.schema.json` lists, nothing else: writing anything more fails.
Reading ignores fields that it doesn't know, since later versions of v1 may add some.
"""

from __future__ import annotations

import copy
import datetime
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jsonschema

from guide_hub.errors import InputError, Problem

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:guide-hub:erasure-record:v1"
PAPER = "arXiv:2405.09879"
FILE = "erasure_record.json"
LIMITATIONS = ("approximate", "not-proof-of-data-removal", "white-box-re-inversion-not-tested")
MAX_BYTES = 16 << 20
DIGITS = 6  # of a published average

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # `$` in a pattern lets a last newline pass

Record = dict[str, Any]
Result = Literal["PASSED", "WARNED", "FAILED"]
Teacher = Literal["original", "pulled"]
PriorRevisions = Literal["reachable", "purged", "unknown"]


@dataclass(frozen=True)
class Base:
    """The model that was pulled. `uri`: hf://org/name, builtin:name or local; `revision`: its Hub commit."""

    uri: str
    sha256: str
    revision: str | None = None


@dataclass(frozen=True)
class Retained:
    """People who were not erased, before against after: number, share of their views verified, perceptual
    distance."""

    n: int
    verified: float
    lpips_mean: float | None = None


@dataclass(frozen=True)
class Held:
    """Similarity on photos that the erasure did not use."""

    before: float
    after: float
    threshold: float


@dataclass(frozen=True)
class Metrics:
    """One erasure's averages over views: cosines in [-1, 1], shares in [0, 1]. None stays out of the record.

    `now` is `after` on the final weights of the run; None where it was not measured.
    """

    before: float
    after: float
    threshold: float
    now: float | None = None
    others: Held | None = None
    id_guide: float | None = None
    verified_after: float | None = None
    verified_others_after: float | None = None
    retained: Retained | None = None


@dataclass(frozen=True)
class Again:
    """A carried erasure on the new weights: `now` as in `Metrics`; whether the gate still holds."""

    now: float
    holds: bool


@dataclass(frozen=True)
class Reemergence:
    """What later erasures did to earlier ones, over the `n` people who were measured after a later step.

    `rise`, `others_rise`: the largest rise of a similarity since the own step, on photos of the erasure and
    on held-out ones. `verified_max`: the largest share of views verified then. `every_step`: after every
    later step, or after the last of each run alone.
    """

    n: int
    rise: float
    verified_max: float
    every_step: bool
    others_rise: float | None = None


@dataclass(frozen=True)
class Share:
    """A measured share and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AtRate:
    """Results at another false accept rate: largest shares of an erased person's views that are verified, own
    and held-out photos'; share of the views of others that are."""

    far: float
    threshold: float
    erased: float
    retained: float
    others: float | None = None


@dataclass(frozen=True)
class Collateral:
    """How many random faces the erasures touch: `expected` of all `n` at the gate's rate `far`, and measured.

    On `people` random people: `alike`, taken for one of `known` erased people before; `changed`, no more
    themselves. `recommended`: the results at 0.01 / n, where so small a rate could be seen.
    """

    n: int
    far: float
    expected: float
    people: int
    known: int
    changed: Share
    alike: Share | None = None
    recommended: AtRate | None = None


@dataclass(frozen=True)
class Rebuilt:
    """Why a model was built anew from its original: one erasure of the record `replaces` was withdrawn.

    `replaces`: that record's SHA-256. `reason`: a code, such as `wrong-person`; no prose.
    """

    replaces: str
    request_id: str
    identity_id: str
    on: datetime.date
    reason: str | None = None


@dataclass(frozen=True)
class Erasure:
    """One erased identity as the public may see it; `ground` and `received_on` only if published.

    `attacks`: each one's name, whether its rule holds (None: not told), the rule, and averaged figures.
    """

    request_id: str
    identity_id: str
    commitment: str
    image_count: int
    regime: str
    completed_on: datetime.date
    metrics: Metrics
    result: Result
    ground: str | None = None
    received_on: datetime.date | None = None
    attacks: Sequence[Mapping[str, Any]] = ()


def _round(value: float | None) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError("a measured value is not finite; a record holds none such")
    return round(float(value), DIGITS)


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _retained(retained: Retained | None) -> dict[str, Any] | None:
    if retained is None:
        return None
    return _given(n=retained.n, verified=_round(retained.verified), lpipsMean=_round(retained.lpips_mean))


def _metrics(m: Metrics) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "id": {
            "before": _round(m.before),
            "after": _round(m.after),
            "now": _round(m.now),
            "threshold": _round(m.threshold),
            "lowerIsBetter": True,
        }
    }
    if m.others:
        o = m.others
        figures["idOthers"] = {k: _round(getattr(o, k)) for k in ("before", "after", "threshold")}
    return figures | _given(
        idGuide=_round(m.id_guide),
        verifiedAfter=_round(m.verified_after),
        verifiedOthersAfter=_round(m.verified_others_after),
        retained=_retained(m.retained),
    )


def _erasure(erasure: Erasure, sequence: int) -> dict[str, Any]:
    return _given(
        sequence=sequence,
        requestId=erasure.request_id,
        identityId=erasure.identity_id,
        commitment=erasure.commitment,
        imageCount=erasure.image_count,
        regime=erasure.regime,
        ground=erasure.ground,
        receivedOn=erasure.received_on.isoformat() if erasure.received_on else None,
        completedOn=erasure.completed_on.isoformat(),
        metrics=_metrics(erasure.metrics),
        attacks=[_attack(a) for a in erasure.attacks] or None,
        result=erasure.result,
    )


def _attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    figures = {k: _round(v) if isinstance(v, float) else v for k, v in attack["figures"].items()}
    return {**{key: attack[key] for key in ("attack", "passed", "rule")}, "figures": figures}


def _rebuilt(r: Rebuilt | None) -> dict[str, Any] | None:
    if r is None:
        return None
    return {
        "replacesRecord": {"digest": {"sha256": r.replaces}},
        "withdrawn": _given(
            requestId=r.request_id, identityId=r.identity_id, withdrawnOn=r.on.isoformat(), reason=r.reason
        ),
    }


def _reemergence(r: Reemergence | None) -> dict[str, Any] | None:
    if r is None:
        return None
    return _given(
        n=r.n,
        rise=_round(r.rise),
        othersRise=_round(r.others_rise),
        verifiedMax=_round(r.verified_max),
        everyStep=r.every_step,
    )


def _share(s: Share | None) -> dict[str, Any] | None:
    return None if s is None else {k: _round(getattr(s, k)) for k in ("value", "low", "high")}


def _collateral(c: Collateral | None) -> dict[str, Any] | None:
    if c is None:
        return None
    at = c.recommended
    return _given(
        n=c.n,
        far=c.far,
        expected=_round(c.expected),
        people=c.people,
        known=c.known,
        alike=_share(c.alike),
        changed=_share(c.changed),
        recommended=at
        and _given(
            far=at.far,
            threshold=_round(at.threshold),
            erasedVerifiedMax=_round(at.erased),
            othersVerifiedMax=_round(at.others),
            retainedVerified=_round(at.retained),
        ),
    )


def _carried(old: Mapping[str, Any], again: Again | None) -> dict[str, Any]:
    """An older erasure with its similarity on the new weights; it fails where the gate no longer holds."""
    new = copy.deepcopy(dict(old))
    new["metrics"]["id"]["now"] = _round(again.now) if again is not None else None
    if again is not None and not again.holds:
        new["result"] = "FAILED"
    return new


def older(previous: bytes) -> list[dict[str, Any]]:
    """The erasures that a base's record lists. InputError where they could not be carried over unchanged."""
    record = parse_record(previous)
    if _faults(record, strict=True):
        raise InputError(
            "the base model's record has fields that this version cannot carry over",
            remedy="it was written by a newer guide-hub: upgrade",
        )
    return list(record["predicate"]["erasures"])


def build_record(
    *,
    subject: Mapping[str, str],
    base: Base,
    recipe_digest: str,
    erasures: Sequence[Erasure],
    seed: int,
    tool_version: str,
    environment: Mapping[str, str],
    recipe_name: str | None = None,
    retained: Retained | None = None,
    reemergence: Reemergence | None = None,
    collateral: Collateral | None = None,
    teacher: Teacher | None = None,
    previous: bytes | None = None,
    remeasured: Mapping[tuple[str, str], Again] | None = None,
    rebuilt: Rebuilt | None = None,
    prior_revisions: PriorRevisions = "reachable",
    limitations: Sequence[str] = LIMITATIONS,
) -> Record:
    """The record of a run, checked against the schema.

    Args:
        subject: SHA-256 of each published file that the statement is about, by name.
        erasures: this run's, in order. They follow those of `previous`.
        environment: `python`, `torch` (versions) and `device` (cpu, cuda or mps).
        teacher: the model from before the first erasure, or the one that was pulled.
        previous: bytes of the record in the base model. Its erasures are carried over, its digest chained.
        remeasured: carried erasures by (request id, identity id); `now` of those not named becomes null.
        rebuilt: of a model built anew, which has no `previous`: what was left out.

    Raises:
        ValueError: a value is not finite, or a field would not be public (a bug of the caller).
        InputError: `previous` is not a record.
    """
    again = remeasured or {}
    old = older(previous) if previous is not None else []
    carried = [_carried(e, again.get((e["requestId"], e["identityId"]))) for e in old]
    start = max((e["sequence"] for e in carried), default=0) + 1
    record: Record = {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in sorted(subject.items())],
        "predicateType": PREDICATE,
        "predicate": _given(
            tool={"name": "guide-hub", "version": tool_version},
            method=_given(
                name="GUIDE",
                paper=PAPER,
                recipe=recipe_name,
                recipeDigest={"sha256": recipe_digest},
                seed=seed,
                teacher=teacher,
            ),
            base=_given(uri=base.uri, revision=base.revision, digest={"sha256": base.sha256}),
            previousRecord={"digest": {"sha256": sha256(previous)}} if previous is not None else None,
            rebuilt=_rebuilt(rebuilt),
            erasures=carried + [_erasure(e, start + i) for i, e in enumerate(erasures)],
            retained=_retained(retained),
            reemergence=_reemergence(reemergence),
            collateral=_collateral(collateral),
            environment=dict(environment),
            priorRevisions=prior_revisions,
            limitations=list(limitations),
        ),
    }
    faults = _faults(record, strict=True)
    if faults:
        raise ValueError("not a publishable record: " + "; ".join(faults))
    return record


def with_prior_revisions(data: bytes, state: PriorRevisions) -> bytes:
    """The record of the same erasures after somebody looked at, or removed, the older revisions.

    It amends the record and is no new link of the chain: `previousRecord`, base and subject stay, and the
    next erasure names the amended one. InputError where `data` is not a record.
    """
    record = parse_record(data)
    record["predicate"]["priorRevisions"] = state
    return to_bytes(record)


def amended_digests(data: bytes) -> set[str]:
    """SHA-256 of a record and of those that differ from it only in what they say of older revisions."""
    return {sha256(data), *(sha256(with_prior_revisions(data, s)) for s in get_args(PriorRevisions))}


def to_bytes(record: Record) -> bytes:
    """The one form of a record that is written and hashed: sorted keys, two spaces, ASCII, a last newline."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema of the record."""
    text = (Path(__file__).parent / "erasure_record.v1.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _texts(value: Any, place: str = "$") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield place, key
            yield from _texts(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{i}]")


def _faults(record: Any, strict: bool) -> list[str]:
    """What breaks the schema, by place, without the values. Unknown fields count where `strict`."""
    validator = jsonschema.Draft202012Validator(schema())
    errors = [e for e in validator.iter_errors(record) if strict or e.validator != "additionalProperties"]
    faults = [f"{e.json_path} breaks '{e.validator}'" for e in errors]
    if not faults:
        erasures = record["predicate"]["erasures"]
        if [e["sequence"] for e in erasures] != list(range(1, len(erasures) + 1)):
            faults.append("$.predicate.erasures are not numbered 1, 2, 3, ...")
    faults += [
        f"{place} holds a control character" for place, text in _texts(record) if _CONTROL.search(text)
    ]
    return sorted(faults)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def parse_record(data: bytes, file: str = FILE) -> Record:
    """A record from its bytes. InputError where it is not one; unknown fields are kept and ignored."""
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        record = json.loads(data, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"is not an erasure record: {error}", file=file)) from None
    faults = _faults(record, strict=False)
    if faults:
        raise InputError(*(Problem(f"is not an erasure record: {f}", file=file) for f in faults))
    return dict(record)


def read_record(path: str | Path) -> Record:
    """`parse_record` of a file; a folder means the record in it. InputError where there is none."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        return parse_record(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None


def erasures_of(record: Record, request_id: str) -> list[dict[str, Any]]:
    """The erasures that the record lists for a request; empty if it has not been served."""
    return [e for e in record["predicate"]["erasures"] if e["requestId"] == request_id]


def overall(record: Record) -> Result:
    """The worst result of the record's erasures."""
    results = {e["result"] for e in record["predicate"]["erasures"]}
    return "FAILED" if "FAILED" in results else "WARNED" if "WARNED" in results else "PASSED"


def _past(erasure: Mapping[str, Any]) -> dict[str, Any]:
    """All of an erasure that no later run may change."""
    fixed = copy.deepcopy({k: v for k, v in erasure.items() if k != "result"})
    del fixed["metrics"]["id"]["now"]
    return fixed


def _bettered(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """A later run may find that an erasure no longer holds, nothing else."""
    return after["result"] not in (before["result"], "FAILED")


def check_link(newer: Record, older: bytes) -> list[Problem]:
    """What contradicts that `newer` continues the record whose file is `older`; empty if nothing does."""
    problems = []
    previous = newer["predicate"].get("previousRecord")
    if previous is None:
        return [Problem("the record names no previous record, though the base has one")]
    if previous["digest"]["sha256"] != sha256(older):
        problems.append(Problem("the previous record is not the one that this record continues"))
    old = parse_record(older)
    models = {s["name"]: s["digest"]["sha256"] for s in old["subject"]}
    if models.get("model.safetensors") != newer["predicate"]["base"]["digest"]["sha256"]:
        problems.append(Problem("the base is not the model of the previous record"))
    now = newer["predicate"]["erasures"]
    for i, before in enumerate(old["predicate"]["erasures"]):
        after = now[i] if i < len(now) else None
        if after is None or _past(after) != _past(before) or _bettered(before, after):
            problems.append(Problem(f"erasure {before['sequence']} is missing or was changed"))
    return problems


def check_subject(record: Record, digests: Mapping[str, str]) -> list[Problem]:
    """What in the record's subject is absent from `digests` (SHA-256 by file name) or differs."""
    problems = []
    for entry in record["subject"]:
        actual = digests.get(entry["name"])
        if actual is None:
            problems.append(Problem(f"{entry['name']} is missing"))
        elif actual != entry["digest"]["sha256"]:
            problems.append(Problem(f"{entry['name']} is not the file that the record is about"))
    return problems
