"""Everything about an erasure that can be known, checked and refused before the work starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guide_hub import delivery, hub, timing
from guide_hub import record as records
from guide_hub.checkpoint import default_state, fingerprint
from guide_hub.earlier import Earlier, recall, rehearses
from guide_hub.earlier import teacher as find_teacher
from guide_hub.errors import InputError, Problem
from guide_hub.html import events
from guide_hub.ledger import Entry
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.request import Identity, Request, load_request
from guide_hub.supersede import check as check_supersede


@dataclass(frozen=True)
class Options:
    """What the command line can set beside repo and request; None means the documented default."""

    revision: str | None = None
    recipe: str | None = None
    output: Path | None = None
    push_to: str | None = None
    push: bool | None = None
    create_pr: bool | None = None
    resume: bool = True
    device: str = "auto"
    seed: int = 0
    report: Path | None = None
    tensorboard: bool = False
    state: Path | None = None
    license: Path | None = None
    delete_other_weights: bool = False
    replace_record: bool = False
    latents: Path | None = None
    supersede: bool = False
    dry_run: bool = False
    base: str | None = None
    every_step: bool | None = None

    def __post_init__(self) -> None:
        for name in ("output", "report", "state", "license", "latents"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the work starts.

    `requests` hold the identities that are still to be erased; `finished` says that there are none left: the
    model's record, or the open pull request `pr_url`, lists them all. Of several requests, those that the
    record lists whole are `served`. `built`: a run that was killed before the end of its push has left this
    very erasure in `output`. `ledger`: what it knows of the people on the record; None where all is finished.
    `original`: the model from before the first erasure, where that is not `source`; `drifted`: why `source`
    is the teacher in its place.
    """

    requests: tuple[Request, ...]
    source: hub.Source
    weights_sha256: str
    recipe: Recipe
    options: Options
    output: Path
    state: Path
    push_to: str | None
    create_pr: bool
    head: hub.Head | None
    previous: bytes | None
    previous_card: str | None
    finished: bool
    pr_url: str | None = None
    served: tuple[Request, ...] = ()
    built: bool = False
    ledger: Earlier | None = None
    original: hub.Source | None = None
    drifted: str | None = None

    @property
    def people(self) -> list[tuple[Request, Identity]]:
        """In the order of erasure."""
        return [(request, identity) for request in self.requests for identity in request.identities]

    @property
    def ids(self) -> list[tuple[str, str]]:
        """Request and identity, in the order of erasure."""
        return [(request.request_id, identity.id) for request, identity in self.people]

    @property
    def every_step(self) -> bool:
        """Whether everybody is measured again after every step: by default with a private report."""
        asked = self.options.every_step
        return self.options.report is not None if asked is None else asked

    @property
    def everybody(self) -> list[tuple[str, str]]:
        """Request and identity of all whom the record will list, in its order."""
        return [(e["requestId"], e["identityId"]) for e in self.earlier] + self.ids

    @property
    def identities(self) -> list[Identity]:
        return [identity for _, identity in self.people]

    @property
    def request_ids(self) -> list[str]:
        return [request.request_id for request in (*self.requests, *self.served)]

    @property
    def warnings(self) -> list[Problem]:
        known = "is in the model's record already: left out"
        left_out = [Problem(f"request {request.request_id} {known}") for request in self.served]
        warnings = [*left_out, *(warning for request in self.requests for warning in request.warnings)]
        if self.ledger is not None and self.ledger.lost:
            warnings.append(_not_remembered(len(self.ledger.lost)))
        if self.drifted is not None:
            text = f"the model as it was pulled is the teacher, and not the original: {self.drifted}"
            remedy = "name the model from before the first erasure with --base"
            lost = self.ledger is not None and self.ledger.lost
            warnings.append(Problem(text, "" if lost else remedy))
        return warnings

    @property
    def own(self) -> bool:
        """Whether the push goes to the repository that the model was pulled from."""
        return _is_own(self.source, self.push_to)

    @property
    def earlier(self) -> list[dict[str, Any]]:
        """The erasures that the model's record lists already."""
        return records.older(self.previous) if self.previous is not None else []

    @property
    def teacher(self) -> Literal["original", "pulled"]:
        """`original`, or `pulled`: what the students are taught by."""
        return "pulled" if self.drifted is not None else "original"

    @property
    def rehearsed(self) -> tuple[Entry, ...]:
        """Those of them whom the ledger knows, where the recipe takes them in again."""
        return self.ledger.known if self.ledger is not None and rehearses(self.recipe) else ()

    @property
    def card(self) -> dict[str, Any]:
        """The base card's front matter, with a licence."""
        return licensed(self.source)

    @property
    def steps(self) -> int:
        """At most, with those for whom `joint` and `merge` erase earlier people again, and for surrogates."""
        entries = self.ledger.known if self.ledger is not None else ()
        return steps(self.recipe, len(self.ids), entries, self.teacher == "original")

    @property
    def run_name(self) -> str:
        """Of the progress on disk: who is erased, from where and how."""
        return fingerprint(
            repo=self.source.uri if self.source.kind == "hub" else self.weights_sha256,
            recipe=self.recipe.digest(), seed=self.options.seed,
            people=[[r.request_id, i.id, [[p.sha256, p.face] for p in i.images]] for r, i in self.people],
        )  # fmt: skip

    @property
    def timing_key(self) -> str:
        return timing.key(records.file_sha256(self.source.config_file), self.recipe.digest())

    @property
    def base(self) -> dict[str, str | None]:
        return {"repo": self.source.uri, "revision": self.source.revision, "sha256": self.weights_sha256}


def make_plan(repo: str, request: str | Path | Sequence[str | Path], options: Options) -> Plan:
    """Reads the requests, resolves the model to one commit, checks licence, token, folders, key and chain.

    Changes nothing. Raises InputError, HubError or ConflictError for all that would fail later.
    """
    if options.tensorboard:
        events.check(options.report)
    wanted = _load([request] if isinstance(request, (str, Path)) else request, repo)
    revision = options.revision or _target_revision(wanted)
    source = hub.resolve(repo, revision, options.license)
    hub.require_licence(source)
    recipe = load_recipe(options.recipe or _default_recipe(source))
    push_to, create_pr = destination(source, options)
    if options.supersede:
        check_supersede(source.repo if source.kind == "hub" else None, push_to)
    output = options.output or Path(f"{last_part(source)}-erased")
    state = options.state or default_state()
    previous = source.record_file.read_bytes() if source.record_file else None
    weights_sha256 = records.file_sha256(source.weights_file)
    finished, pr_url, head, card_text, built = False, None, None, None, False
    served: tuple[Request, ...] = ()
    ledger: Earlier | None = None
    original: hub.Source | None = None
    drifted: str | None = None
    if previous is not None:
        done = _served(records.parse_record(previous))
        finished = _ids(wanted) <= done
        given = wanted
        wanted = wanted if finished else _without(wanted, done)
        served = tuple(r for r in given if r.request_id not in {left.request_id for left in wanted})
    if not finished:
        keep_apart(output, state, options.report)
        key = records.find_key(state)
        records.licence(licensed(source))
        card_text = readable_card(source)
        if previous is not None:
            records.older(previous)
        if push_to is not None:
            head = aim(source, push_to, create_pr, previous, revision, options)
            if options.supersede:
                hub.preflight(source.repo, create_pr=True)
            pr_url = _open_pr(head, wanted) if create_pr else None
            finished = pr_url is not None
        made = {"base": weights_sha256, "recipe": recipe.digest(), "seed": options.seed}
        built = not finished and _is_built(output, made, wanted, key)
        if not finished and not built:
            check_empty(output)
        if not finished:
            ledger = recall(state, previous, weights_sha256, recipe.digest(), options.seed)
            if options.base is not None and previous is None:
                raise InputError("the model has no erasure record, so it is its own original",
                                 remedy="leave --base out")  # fmt: skip
            if previous is not None:
                original, drifted = find_teacher(ledger, previous, options.base)
    return Plan(
        wanted,
        source,
        weights_sha256,
        recipe,
        options,
        output,
        state,
        push_to,
        create_pr,
        head,
        previous,
        card_text,
        finished,
        pr_url,
        served,
        built,
        ledger,
        original,
        drifted,
    )


def steps(recipe: Recipe, people: int, earlier: Sequence[Entry] = (), original: bool = True) -> int:
    """Of erasing so many `people` after the `earlier` ones; `original`: it is the teacher."""
    options, cooldown = recipe.sequence, recipe.optim.cooldown
    if options.mode == "joint":
        everybody = people + sum(e.w_u is not None for e in earlier)
        visits = recipe.optim.iterations * everybody
        return math.ceil(visits / min(options.per_step, everybody)) + cooldown if people else 0
    each = recipe.optim.steps
    if options.mode == "merge":
        again = sum(e.mode != "merge" or not e.basis for e in earlier) if original and people else 0
        return each * (people + again)
    return (each + (options.surrogate_steps if options.mode == "sugar" else 0)) * people


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as `--dry-run` shows it. `time` is null where no run of this kind was timed here."""
    head = plan.head
    return {
        "identities": [
            {"request_id": r.request_id, "identity_id": i.id, "photos": len(i.images)} for r, i in plan.people
        ],
        "recipe": plan.recipe.name,
        "teacher": plan.teacher,
        "steps": plan.steps,
        "every_step": plan.every_step,
        "time": _estimate(plan),
        "seed": plan.options.seed,
        "output": plan.output.name,
        "files": _files(plan.source),
        "licence": records.licence(plan.card),
        "push_to": plan.push_to,
        "head": head.sha if head else None,
        "access": _access(head),
        "create_pr": plan.create_pr if plan.push_to else None,
        "other_weights": head.other_weights if head else plan.source.other_weights,
        "delete_other_weights": plan.options.delete_other_weights,
        "supersede": plan.source.repo if plan.options.supersede else None,
        "earlier_erasures": len(plan.earlier),
        "rehearsed_erasures": len(plan.rehearsed),
        "previous_record": records.sha256(plan.previous) if plan.previous is not None else None,
        "warnings": [p.message for p in plan.warnings],
    }


def _estimate(plan: Plan) -> dict[str, Any] | None:
    """Of the unlearning alone, from the last run of this recipe on a model of this shape."""
    known = timing.recall(plan.state, plan.timing_key, plan.options.device)
    if known is None:
        return None
    device, seconds = known
    return {"device": device, "seconds_per_step": round(seconds, 3), "seconds": round(seconds * plan.steps)}


def _files(source: hub.Source) -> list[dict[str, Any]]:
    """What is written. Weights and config keep their size; of the rest only the name is known before."""
    sizes = {f.name: f.stat().st_size for f in (source.weights_file, source.config_file)}
    if source.license_file is not None:
        sizes["LICENSE"] = source.license_file.stat().st_size
    names = ["config.json", "model.safetensors", "README.md", records.record.FILE, "recipe.yaml"]
    names += ["LICENSE"] if source.license_file is not None else []
    return [{"name": n, "bytes": sizes.get(n)} for n in [*names, hub.CHECKSUMS, "assets/retained.png"]]


def _access(head: hub.Head | None) -> str | None:
    if head is None:
        return None
    if head.sha is None:
        return "new repository"
    return "commits and pull requests" if head.may_write else "pull requests alone"


def _default_recipe(source: hub.Source) -> str:
    from guide_hub.eg3d.pretrained import read_config
    from guide_hub.networks import default_recipe

    return default_recipe(read_config(source.config_file))


def aim(
    source: hub.Source,
    push_to: str,
    create_pr: bool,
    previous: bytes | None,
    revision: str | None,
    options: Options,
) -> hub.Head:
    """Where a push goes, as it is now. Raises what would stop it later. `previous`: `source`'s record."""
    head = hub.preflight(push_to, create_pr=create_pr, create_repo_if_missing=True)
    own = _is_own(source, push_to)
    if own and head.sha != source.revision:
        _refuse_stale(push_to, revision)
    delivery.check_target(
        head,
        own=own,
        known=set() if previous is None else {records.sha256(previous)},
        delete_other_weights=options.delete_other_weights,
        replace_record=options.replace_record,
    )
    return head


def _is_own(source: hub.Source, push_to: str | None) -> bool:
    return source.kind == "hub" and push_to == source.repo


def destination(source: hub.Source, options: Options) -> tuple[str | None, bool]:
    push_to = options.push_to or (source.repo if source.kind == "hub" else None)
    if options.push is False:
        push_to = None
    elif options.push and push_to is None:
        raise InputError("--push needs a repository", remedy="name it with --push-to org/name")
    return push_to, _is_own(source, push_to) if options.create_pr is None else options.create_pr


def last_part(source: hub.Source) -> str:
    if source.kind == "folder":
        return source.folder.resolve().name
    return source.repo.rsplit("/", maxsplit=1)[-1].removeprefix(hub.BUILTIN)


def keep_apart(output: Path, state: Path, report: Path | None) -> None:
    records.keep_apart(state, output)
    if report is not None:
        records.keep_apart(report, output, what="the report shows the people's faces", option="--report")


def _not_remembered(n: int) -> Problem:
    people = "1 earlier erasure is" if n == 1 else f"{n} earlier erasures are"
    return Problem(
        f"{people} not in the ledger of this state folder: these people are not rehearsed, so the run may "
        "bring a likeness back, and they are not measured again",
        "name the state folder that erased them with --state, or erase them again from the original, with "
        "their photos",
    )


def _is_built(output: Path, made: dict[str, Any], wanted: Iterable[Request], key: bytes | None) -> bool:
    """Whether `output` is the whole result of these requests, by its sums and record."""
    try:
        hub.check_folder(output)
        predicate = records.read_record(output)["predicate"]
    except InputError:
        return False
    method, digest = predicate["method"], predicate["base"]["digest"]["sha256"]
    if key is None or made != {
        "base": digest, "recipe": method["recipeDigest"]["sha256"], "seed": method["seed"]
    }:  # fmt: skip
        return False
    people = [(r.request_id, i) for r in wanted for i in r.identities]
    last = predicate["erasures"][-len(people) :]
    return len(last) == len(people) and all(
        (e["requestId"], e["identityId"]) == (request, i.id)
        and records.matches(e["commitment"], key, request, i.id, [p.sha256 for p in i.images])
        for e, (request, i) in zip(last, people, strict=True)
    )


def check_empty(output: Path) -> None:
    place = output.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(
            "the output folder is not empty", remedy="choose another with --output, or move it away"
        )


def licensed(source: hub.Source) -> dict[str, Any]:
    """The base card's front matter; `license: other` with our copy where only a licence text was given."""
    card = dict(source.card)
    if not card.get("license"):
        card |= {"license": "other", "license_link": "LICENSE"}
    return card


def readable_card(source: hub.Source) -> str | None:
    card = source.folder / "README.md"
    try:
        return card.read_text(encoding="utf-8") if card.is_file() else None
    except (OSError, UnicodeDecodeError):
        raise InputError(
            "the base model's README.md cannot be read as UTF-8 text", remedy="save it in UTF-8"
        ) from None


def _load(files: Sequence[str | Path], repo: str) -> tuple[Request, ...]:
    """All requests, and all their mistakes at once."""
    found, problems = [], []
    for file in files:
        try:
            found.append(load_request(file, repo))
        except InputError as error:
            problems += error.problems
    for k, request in enumerate(found):
        if request.request_id in {other.request_id for other in found[:k]}:
            name = Path(request.path).name
            problems.append(Problem(f"request {request.request_id} is given twice", "leave one out", name))
    if problems:
        raise InputError(*problems)
    if len(found) == 1:
        return tuple(found)
    return tuple(
        dataclasses.replace(
            r,
            identities=tuple(dataclasses.replace(i, label=f"{r.request_id}.{i.id}") for i in r.identities),
        )
        for r in found
    )


def _target_revision(wanted: Iterable[Request]) -> str | None:
    revisions = {request.target_revision for request in wanted} - {None}
    if len(revisions) > 1:
        raise InputError("the requests name different revisions", remedy="run them one after the other")
    return revisions.pop() if revisions else None


def _ids(wanted: Iterable[Request]) -> set[tuple[str, str]]:
    return {(request.request_id, identity.id) for request in wanted for identity in request.identities}


def _served(record: records.Record) -> set[tuple[str, str]]:
    """Request and identity ids that a record lists."""
    if records.overall(record) == "FAILED":
        raise InputError(
            "the model's record says that an erasure did not meet its target",
            remedy="start from the model that it was made from, with another recipe",
        )
    return {(e["requestId"], e["identityId"]) for e in record["predicate"]["erasures"]}


def _without(wanted: Iterable[Request], done: set[tuple[str, str]]) -> tuple[Request, ...]:
    """What is left of each request; requests of which nothing is left go."""
    rest = []
    for request in wanted:
        left = tuple(i for i in request.identities if (request.request_id, i.id) not in done)
        skipped = len(request.identities) - len(left)
        text = f"{skipped} identities of request {request.request_id} are in the model's record: left out"
        notices = [Problem(text)] if skipped else []
        if left:
            rest.append(dataclasses.replace(request, identities=left, warnings=[*request.warnings, *notices]))
    return tuple(rest)


def _open_pr(head: hub.Head, wanted: Iterable[Request]) -> str | None:
    """The user's own open pull request that erases all of the requests' identities.

    Where the token can't tell who that is: anybody's, if its record continues `main` as it is now.
    """
    if head.sha is None:
        return None
    pulls, own = hub.own_open_pulls(head.repo, delivery.TITLE)
    for pull in pulls:
        found = hub.read_file(head.repo, records.record.FILE, f"refs/pr/{pull.num}")
        try:
            record = records.parse_record(found) if found is not None else None
            if record is None or not _ids(wanted) <= _served(record):
                continue
        except InputError:  # not a record, or of an erasure that failed
            continue
        if own or record["predicate"]["base"].get("revision") == head.sha:
            return pull.url
    return None


def _refuse_stale(repo: str, revision: str | None) -> None:
    """A push to the model's own repository continues `main`, so anything else is refused before the work."""
    if revision is None:
        raise hub.conflict(repo)
    raise InputError(
        f"--revision or the request names another commit than the main branch of {repo}, "
        "which a push would continue",
        remedy="leave the revision out, push elsewhere with --push-to, or use --no-push",
    )
