"""`guide-hub verify --request`: the maintainer's checks, with the photos and the key, of what a record says.

The people are found in the base once more and measured on the model, as the run did that erased them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from guide_hub import hub
from guide_hub import record as records
from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.case import figures_text, make_case, secrets_of
from guide_hub.attacks.suite import run_all
from guide_hub.base import find_base, read_recipe
from guide_hub.checkpoint import default_state
from guide_hub.eg3d import EG3D
from guide_hub.errors import HubError
from guide_hub.evaluation.identity import PersonMeasure, measure_person
from guide_hub.html.erasure import Seen
from guide_hub.inversion import Person
from guide_hub.networks import choose, load
from guide_hub.people import Finder, Subject, check_grouping, read_subjects
from guide_hub.pipeline import find_threshold
from guide_hub.request import Identity, Request, load_request
from guide_hub.sequence import Progress, pick_device
from guide_hub.verify import Check, Status, Verification

TOLERANCE = 0.02  # of a cosine; one thread or two: 0.0005 on fitted photos, 0.004 on held-out ones

Entry = dict[str, Any]  # an erasure of the record


@dataclass(frozen=True)
class Measured:
    """One identity's cosines, measured now. `of_run`: the model is the one that its own run left.

    `case`, `seen` and `findings` are private: the models, the person's pictures and what attacks found.
    """

    identity_id: str
    threshold: float
    figures: PersonMeasure
    of_run: bool
    case: Case = field(repr=False)
    seen: Seen = field(repr=False)
    findings: list[Finding] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        m = self.figures
        return {
            "identity_id": self.identity_id, "threshold": self.threshold,
            "before": m.before.cosine, "now": m.after.cosine,
            "others_before": m.others_before and m.others_before.cosine,
            "others_now": m.others_after and m.others_after.cosine,
        }  # fmt: skip

    def check(self, entry: Entry) -> Check:
        """Against the record, as far as it has figures of these weights; else against the threshold."""
        name, said, m = f"figures {self.identity_id}", entry["metrics"], self.figures
        others = said.get("idOthers", {}) if m.others_before and m.others_after else {}
        pairs = {
            "before": (said["id"]["before"], m.before.cosine),
            "now": (said["id"]["now"], m.after.cosine),
            "held-out before": (others.get("before"), m.others_before and m.others_before.cosine),
            "held-out now": (
                others.get("after") if self.of_run else None, m.others_after and m.others_after.cosine,
            ),
        }  # fmt: skip
        known = {k: (a, b) for k, (a, b) in pairs.items() if a is not None and b is not None}
        wrong = [k for k, (a, b) in known.items() if abs(a - b) > TOLERANCE]
        shown = ", ".join(f"{k} {b:.3f} (record {a:.3f})" for k, (a, b) in known.items())
        if said["id"]["now"] is None:
            shown += f", now {m.after.cosine:.3f} (threshold {self.threshold:.3f}, not on record)"
            wrong += ["now"] if m.after.cosine > self.threshold else []
        return Check(name, "failed" if wrong else "passed", shown)


def remeasure(
    found: Verification,
    source: hub.Source,
    request: Path,
    base: str | None,
    state: Path | None,
    device: str,
    progress: Progress,
    attacks: Sequence[str] = (),
    budget: Budget | None = None,
) -> list[Measured]:
    """Adds to `found` the checks that take the photos: commitments, figures on the model's weights, attacks.

    Gives what was measured of each person. `base` names the base of a model whose record only says that it
    was a folder. `attacks` by name, each within `budget`. InputError or HubError: the request, its photos or
    the key cannot be used, or a base cannot be had.
    """
    wanted = load_request(request)
    if source.record_file is None or any(c.name == "record" and c.status == "failed" for c in found.checks):
        return []
    listed = records.erasures_of(records.read_record(source.record_file), wanted.request_id)
    entries = {e["identityId"]: e for e in listed}
    state = state or default_state()
    keys = records.find_keys(state)
    found.checks += [_commitment(wanted, i, entries.get(i.id), keys) for i in wanted.identities]
    try:
        scanned = "leaks" in attacks
        measured = _measure(source, wanted, entries, base, state, pick_device(device), progress, scanned)
    except HubError as error:
        found.checks.append(Check("figures", "unchecked", error.problems[0].message))
        return []
    found.measured = [m.to_dict() for m in measured]
    found.checks += [m.check(entries[m.identity_id]) for m in measured]
    if not attacks:
        return measured
    found.attacks = []
    for m in measured:
        m.findings.extend(_attack(m, attacks, budget or FULL, progress))
        found.checks += [_attacked(m.identity_id, finding) for finding in m.findings]
        found.attacks += [{"identity_id": m.identity_id, **finding.to_dict()} for finding in m.findings]
    return measured


def _attack(m: Measured, attacks: Sequence[str], budget: Budget, progress: Progress) -> Iterator[Finding]:
    try:
        for attack in attacks:
            progress.stage(f"attacking {m.identity_id}: {attack}")
            yield from run_all(m.case, [attack], budget, progress.advance)
    finally:
        progress.finish()


def _attacked(name: str, finding: Finding) -> Check:
    status: Status = "unchecked" if finding.passed is None else "passed" if finding.passed else "failed"
    return Check(f"{finding.attack} {name}", status, f"{finding.rule}: {figures_text(finding.figures)}")


def _commitment(wanted: Request, identity: Identity, entry: Entry | None, keys: list[bytes]) -> Check:
    name = f"commitment {identity.id}"
    if entry is None:
        return Check(name, "failed", f"the record has no erasure of it for request {wanted.request_id}")
    if not keys:
        return Check(name, "unchecked", "there is no key")
    photos = [photo.sha256 for photo in identity.images]
    under = [records.matches(entry["commitment"], k, wanted.request_id, identity.id, photos) for k in keys]
    if not any(under):
        return Check(name, "failed", "not of these photos, or under another key")
    return Check(name, "passed", f"of these photos, under {'the newest' if under[0] else 'an older'} key")


def _measure(
    source: hub.Source,
    wanted: Request,
    entries: dict[str, Entry],
    given: str | None,
    state: Path,
    device: torch.device,
    progress: Progress,
    scanned: bool,
) -> list[Measured]:
    """Each identity on record, in the model that it was erased from and in `source`. `scanned`: for leaks,
    which takes the places of single photos, and an inversion of each."""
    progress.stage("loading the models")
    erased = EG3D.from_pretrained(str(source.folder)).to(device).eval().requires_grad_(False)
    subjects = read_subjects(wanted.identities, erased.config.img_resolution, device)
    runs: dict[Path, _Run] = {}
    measured, memos = list[Measured](), dict[Path, dict[Any, Any]]()
    for subject in subjects:
        name = subject.identity.id
        if name not in entries:
            continue
        holder, base = _origin(source, given, entries[name], progress)
        if holder.folder not in runs:
            runs[holder.folder] = run = _Run(holder, base, erased, state, progress, scanned)
            check_grouping(subjects, run.networks.identity_judge, run.find.threshold)
        run = runs[holder.folder]
        progress.stage(f"finding and measuring {name}")
        person = run.find(subject)
        figures = run.measure(subject, person)
        case = run.case(subject, person, source.folder, memos.setdefault(holder.folder, {}))
        seen = Seen(subject.photos, person.fitted, person.points)
        measured.append(Measured(name, run.find.threshold, figures, holder is source, case, seen))
    return measured


def _origin(
    source: hub.Source, given: str | None, entry: Entry, progress: Progress
) -> tuple[hub.Source, hub.Source]:
    """The model that first recorded the erasure, and the base that it was made from."""
    sha256 = records.file_sha256(source.weights_file)
    base, _ = find_base(source, sha256, given, progress)
    if base.record_file is not None:
        earlier = records.erasures_of(records.read_record(base.record_file), entry["requestId"])
        if entry["identityId"] in {e["identityId"] for e in earlier}:
            return _origin(base, None, entry, progress)
    return source, base


class _Run:
    """What erased somebody: the base and, by the recipe that `holder` carries, the networks and cameras."""

    def __init__(
        self,
        holder: hub.Source,
        base: hub.Source,
        erased: EG3D,
        state: Path,
        progress: Progress,
        scanned: bool,
    ):
        self.erased = erased
        self.recipe = read_recipe(holder)
        self.base = (
            EG3D.from_pretrained(str(base.folder)).to(erased.w_avg.device).eval().requires_grad_(False)
        )
        names = choose(self.base.config, self.recipe)
        self.networks = load(names, erased.w_avg.device)
        sha256, judge = records.file_sha256(base.weights_file), self.networks.identity_judge
        threshold = find_threshold(
            base, sha256, self.base, judge, names.identity_judge, self.recipe, progress, state
        )
        apart = scanned and self.recipe.adjacency.photos
        self.find = Finder(self.base, self.recipe, self.networks, threshold, apart)

    def case(self, subject: Subject, person: Person, folder: Path, memo: dict[Any, Any]) -> Case:
        """What an attack on the subject is given."""
        find, photos = self.find, subject.photos[person.measured]
        return make_case(
            self.base, self.erased, self.recipe, self.networks, person.points, photos, person.fitted,
            find.threshold, folder=folder, secrets=secrets_of(subject.identity), apart=person.apart,
            memo=memo,
        )  # fmt: skip

    def measure(self, subject: Subject, person: Person) -> PersonMeasure:
        """The subject, found in the base as `person`, measured on both models."""
        find = self.find
        return measure_person(
            self.base, self.erased, self.networks.identity_judge, subject.photos[person.measured],
            person.points, find.cameras, find.threshold, person.fitted,
        )  # fmt: skip
