"""`guide-hub rebuild`: a model without one of its erasures, for a request that was withdrawn or wrong.

No erasure can be taken back out of weights. So the others are erased once more, from the original and with
what the ledger kept of them, in their order and under their own seeds.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_hub import earlier, hub, pipeline
from guide_hub import record as records
from guide_hub.checkpoint import FORMAT, Checkpoint, default_state, fingerprint
from guide_hub.errors import GuideHubError, InputError, Problem
from guide_hub.interrupt import stopping
from guide_hub.ledger import Entry, Ledger
from guide_hub.plan import (
    Options,
    Plan,
    aim,
    check_empty,
    destination,
    keep_apart,
    last_part,
    licensed,
    readable_card,
    steps,
)
from guide_hub.processes import Processes
from guide_hub.publish import (
    collateral,
    environment,
    metrics,
    reemergence,
    retained,
    subject,
    today,
)
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.report import Report
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import PersonMeasure
    from guide_hub.modes import Memory
    from guide_hub.sequence import Progress

_WITHOUT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})/([a-z0-9][a-z0-9-]{0,62})")
_REASON = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,63}")
_NAME_IT = "name the model from before the first erasure with --base"


@dataclass(frozen=True, kw_only=True)
class Rebuild(Plan):
    """A plan whose people come from the ledger. `source` is the erased model that the result replaces.

    `entries`: of all people on its record but `without`, in the record's order.
    """

    without: earlier.Id
    reason: str | None
    origin: records.Base
    original: hub.Source | None
    entries: tuple[Entry, ...]

    @property
    def ids(self) -> list[earlier.Id]:
        return [earlier.id_of(entry) for entry in self.entries]

    @property
    def earlier(self) -> list[dict[str, Any]]:
        return []

    @property
    def request_ids(self) -> list[str]:
        return list(dict.fromkeys(request for request, _ in self.ids))

    @property
    def steps(self) -> int:
        done, total = list[Entry](), 0
        for part in self.runs:
            total += steps(self.recipe, len(part), done)
            done += part
        return total

    @property
    def base(self) -> dict[str, str | None]:
        return {"repo": self.origin.uri, "revision": self.origin.revision, "sha256": self.origin.sha256}

    @property
    def run_name(self) -> str:
        return fingerprint(rebuild=records.sha256(self.previous or b""), without=self.without)

    @property
    def runs(self) -> list[list[Entry]]:
        """The entries, cut where the seed changes: each part is a sequence of its own."""
        parts: list[list[Entry]] = []
        for entry in self.entries:
            if not parts or parts[-1][-1].seed != entry.seed:
                parts.append([])
            parts[-1].append(entry)
        return parts


def rebuild(
    repo: str,
    without: str,
    *,
    base: str | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
    **settings: Any,
) -> Report:
    """Makes `repo` anew without the erasure REQUEST_ID/IDENTITY_ID; writes and, on demand, pushes it.

    `base` names the original where the record's chain does not lead there; `reason` is a code for the record;
    `settings` are the fields of `Options`. The entry leaves the ledger when the push is through, or when the
    folder is there where nothing is pushed. Errors are those of `erase`.
    """
    from guide_hub.progress import Silent

    progress = progress or Silent()
    plan = make_plan(repo, without, base, reason, Options(**settings))
    if plan.finished:
        earlier.open_ledger(plan.state, plan.origin.sha256).forget(*plan.without)  # of a run that was killed
        return _report(plan, "already_withdrawn")
    if plan.options.dry_run:
        return dataclasses.replace(_report(plan, "planned"), plan=describe(plan))
    return _run(plan, progress, processes or Processes.alone())


def make_plan(repo: str, without: str, base: str | None, reason: str | None, options: Options) -> Rebuild:
    """Resolves the model and its original, and finds all others in the ledger. Changes nothing.

    Raises InputError, HubError or ConflictError for all that would fail later.
    """
    named = _WITHOUT.fullmatch(without)
    if named is None:
        raise InputError("--without is not REQUEST/IDENTITY", remedy="take both from the model's record")
    if reason is not None and not _REASON.fullmatch(reason):
        raise InputError(
            "--reason is no code", remedy="letters, digits and .:_- alone, such as wrong-person; it is public"
        )
    person = (named[1], named[2])
    source = hub.resolve(repo, options.revision, options.license)
    hub.require_licence(source)
    if source.record_file is None:
        raise InputError("the model has no erasure record, so there is nothing to leave out")
    previous = source.record_file.read_bytes()
    listed = records.older(previous)
    state = options.state or default_state()
    withdrawn = records.parse_record(previous)["predicate"].get("rebuilt", {}).get("withdrawn", {})
    finished = (withdrawn.get("requestId"), withdrawn.get("identityId")) == person
    others = [e for e in listed if _id(e) != person]
    if not finished and len(others) == len(listed):
        raise InputError(f"{without} is not on the model's record", remedy="take both ids from there")
    original, origin = _original(previous, base, resolve=not finished)
    if not finished and not others:
        place = origin.uri.removeprefix("hf://") + (f" at {origin.revision}" if origin.revision else "")
        raise InputError(
            f"{without} is the only erasure on record: without it the model is the original, {place}",
            remedy="publish that again",
        )
    output = options.output or Path(f"{last_part(source)}-rebuilt")
    push_to, create_pr = destination(source, options)
    recipe = Recipe()
    entries: tuple[Entry, ...] = ()
    head, card, built = None, None, False
    if not finished:
        keep_apart(output, state, None)
        records.licence(licensed(source))
        card = readable_card(source)
        entries = _entries(earlier.open_ledger(state, origin.sha256), others)
        recipe = _recipe(source, options, entries)
        if push_to is not None:
            head = aim(source, push_to, create_pr, previous, options.revision, options)
        built = _is_built(output, previous, origin, person)
        if not built:
            check_empty(output)
        options = dataclasses.replace(options, seed=entries[-1].seed)
    return Rebuild(
        (), source, records.file_sha256(source.weights_file), recipe, options, output, state, push_to,
        create_pr, head, previous, card, finished, built=built, without=person, reason=reason, origin=origin,
        original=original, entries=entries,
    )  # fmt: skip


def describe(plan: Rebuild) -> dict[str, Any]:
    """The plan as `--dry-run` shows it."""
    return {
        "without": "/".join(plan.without),
        "identities": [{"request_id": r, "identity_id": i} for r, i in plan.ids],
        "original": plan.origin.uri,
        "recipe": plan.recipe.name,
        "steps": plan.steps,
        "output": plan.output.name,
        "push_to": plan.push_to,
        "head": plan.head.sha if plan.head else None,
        "create_pr": plan.create_pr if plan.push_to else None,
    }


def _id(erasure: dict[str, Any]) -> earlier.Id:
    return erasure["requestId"], erasure["identityId"]


def _original(record: bytes, given: str | None, resolve: bool) -> tuple[hub.Source | None, records.Base]:
    """The model before the first erasure, pulled where `resolve`."""
    chain: records.Base | None = None
    try:
        chain = earlier.original(record)
    except GuideHubError as error:
        if given is None:
            raise type(error)(*(dataclasses.replace(p, remedy=_NAME_IT) for p in error.problems)) from None
    if given is not None:
        source = hub.resolve(given)
    elif chain is None or not resolve:
        assert chain is not None
        return None, chain
    else:
        try:
            source = earlier.pull(chain)
        except InputError as error:
            raise InputError(
                *(dataclasses.replace(p, remedy=p.remedy or _NAME_IT) for p in error.problems)
            ) from None
    found = records.Base(source.uri, records.file_sha256(source.weights_file), source.revision)
    if chain is not None and chain.sha256 != found.sha256:
        raise InputError("these weights are not the original that the record names", remedy=_NAME_IT)
    return source, found


def _entries(ledger: Ledger, others: list[dict[str, Any]]) -> tuple[Entry, ...]:
    """Of all of them, in order. InputError names those that are missing."""
    known = {earlier.id_of(entry): entry for entry in ledger.entries()}
    missing = [
        Problem(
            f"{'/'.join(_id(e))} is not in the ledger of this state folder",
            "name the state folder that erased it with --state, or erase the others again from the original, "
            "with their photos",
        )
        for e in others
        if _id(e) not in known
    ]
    missing += [
        Problem(
            f"the ledger keeps nothing of {'/'.join(_id(e))} that could be erased again",
            "erase the others again from the original, with their photos",
        )
        for e in others
        if _id(e) in known and (known[_id(e)].w_u is None or known[_id(e)].embeddings is None)
    ]
    if missing:
        raise InputError(*missing)
    return tuple(known[_id(e)] for e in others)


def _recipe(source: hub.Source, options: Options, entries: Sequence[Entry]) -> Recipe:
    """The one recipe of them all: the model's own, or --recipe. InputError: somebody had another."""
    from guide_hub.base import read_recipe

    recipe = load_recipe(options.recipe) if options.recipe is not None else read_recipe(source)
    other = [e for e in entries if e.extra.get(earlier.DIGEST) != recipe.digest()]
    if other:
        raise InputError(
            *(
                Problem(
                    f"{'/'.join(earlier.id_of(e))} was erased by another recipe than {recipe.name}",
                    "a rebuild takes one recipe for all: give theirs with --recipe, or erase the others "
                    "again from the original, with their photos",
                )
                for e in other
            )
        )
    return recipe


def _is_built(output: Path, previous: bytes, origin: records.Base, without: earlier.Id) -> bool:
    """Whether `output` is the whole result, of a run that was killed before the end of its push."""
    try:
        hub.check_folder(output)
        said = records.read_record(output)["predicate"]
    except InputError:
        return False
    rebuilt = said.get("rebuilt")
    return (
        rebuilt is not None
        and rebuilt["replacesRecord"]["digest"]["sha256"] == records.sha256(previous)
        and _id(rebuilt["withdrawn"]) == without
        and said["base"]["digest"]["sha256"] == origin.sha256
    )


def _report(plan: Rebuild, status: str) -> Report:
    return Report(status, plan.without[0], plan.base, request_ids=plan.request_ids)


def _run(plan: Rebuild, progress: Progress, processes: Processes) -> Report:
    import torch

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.latents import LatentSpace
    from guide_hub.networks import choose, load, weights_sha256
    from guide_hub.publish import write_folder
    from guide_hub.sequence import Sequence, pick_device
    from guide_hub.survey import Survey

    assert plan.original is not None
    recipe = plan.recipe
    device = pick_device(plan.options.device)
    progress.stage("loading the original")
    teacher = EG3D.from_pretrained(str(plan.original.folder)).to(device).eval().requires_grad_(False)
    names = choose(teacher.config, recipe)
    weights = weights_sha256(names)
    judged_by = earlier.judge_name(names.identity_judge, weights["identity_judge"])
    _check_judge(plan.entries, judged_by)
    networks = load(names, device)
    judge = networks.identity_judge
    cameras = yaw_cameras(teacher, recipe.camera, recipe.gate.views)
    points = [earlier.points_of(e).to(device) for e in plan.entries]
    with stopping() as stopper:
        processes.load(teacher, names, stopper)
        threshold = pipeline.find_threshold(
            plan.original, plan.origin.sha256, teacher, judge, names.identity_judge, recipe, progress,
            plan.state,
        )  # fmt: skip
        kin = pipeline.find_kin(plan.original, teacher, networks, recipe, progress, plan.state)

        people = LatentSpace(teacher).random(
            recipe.gate.retained_people,
            torch.Generator().manual_seed(pipeline.RETAINED_SEED + plan.options.seed),
        )
        three = yaw_cameras(teacher, recipe.camera, pipeline.RETAINED_VIEWS)
        survey = Survey(
            plan.ids, teacher, judge, networks.perceptual, people, three, threshold, recipe.gate.far
        )
        for number, entry in enumerate(plan.entries, 1):
            survey.add(number, earlier.sitter(entry, judge, cameras, threshold, teacher))

        def measure(first: int, k: int, student: EG3D) -> PersonMeasure:
            return survey.person(first + k, student)

        student = EG3D.from_pretrained(str(plan.original.folder)).to(device).eval()
        made_with = fingerprint(
            base=plan.origin.sha256, device=device.type, version=__version__, torch=torch.__version__,
            threads=torch.get_num_threads(), networks=names.__dict__, weights=weights,
            recipe=recipe.digest(), threshold=f"{threshold:.3f}",
            people=earlier.fingerprint(plan.entries, anew=True), progress=FORMAT, **processes.made_with,
        )  # fmt: skip
        checkpoints, after = [], []
        before: list[Memory] = []
        for n, part in enumerate(plan.runs):
            checkpoint = Checkpoint(plan.state, f"{plan.run_name}-{n}")
            checkpoints.append(checkpoint)
            saved = checkpoint.load() if plan.options.resume else None
            if saved is not None and saved["made_with"] != made_with:
                saved = None
            if saved is None and plan.built:
                raise _built_already(plan)
            first = len(before) + 1
            sequence = Sequence(
                student, teacher, recipe, networks, part[0].seed, checkpoint, stopper, progress,
                {"made_with": made_with}, processes, earlier=list(before), kin=kin,
            )  # fmt: skip
            sequence.run(
                [".".join(earlier.id_of(e)) for e in part],
                [earlier.places_of(e).to(device) for e in part],
                partial(measure, first),
                saved,
            )
            before = [*sequence.earlier, *sequence.memories]
            after += sequence.measured
            survey.note(sequence, first)
        student.requires_grad_(False)

        progress.stage("measuring everybody on the final weights")
        survey.finish(student)
        final = [survey.final(number) for number, _ in enumerate(plan.entries, 1)]
        kept = survey.retained(student)
        report = pipeline.make_report(plan, after, final, kept.measure, threshold, [])
        report.reemergence = survey.matrix.reemergence()
        report.collateral = survey.collateral(kept)
        report.request_id = plan.without[0]
        progress.stage("writing the model")
        with stopper.step():  # a signal waits: the folder and the ledger are there, or they are not
            if not plan.built:
                statement = partial(_record, plan, report, device.type)
                write_folder(plan, statement, student, teacher, people)
            if not pipeline.failed(report):
                made = earlier.Made(
                    recipe,
                    plan.options.seed,
                    judged_by,
                    records.file_sha256(plan.output / hub.WEIGHTS),
                    survey.matrix,
                )
                added = [
                    dataclasses.replace(
                        earlier.entry(figures, memory, ws, old.embeddings, old.fitted, made), seed=old.seed
                    )
                    for figures, memory, ws, old in zip(
                        report.erasures, before, points, plan.entries, strict=True
                    )
                    if old.embeddings is not None
                ]
                earlier.add(plan.state, plan.origin.sha256, added)
    report.output = str(plan.output)
    try:
        pipeline.finish(plan, report, stopper, progress)
        report.status = "rebuilt"
        earlier.open_ledger(plan.state, plan.origin.sha256).forget(*plan.without)
    finally:  # only a kill leaves the progress, and the next run goes on to the push
        for checkpoint in checkpoints:
            checkpoint.clear()
    return report


def _check_judge(entries: Sequence[Entry], judge: str) -> None:
    """InputError: somebody's photos were embedded by another network, so nothing could measure them."""
    other = [e for e in entries if not earlier.measurable(e, judge)]
    if other:
        raise InputError(
            *(Problem(f"{'/'.join(earlier.id_of(e))} was judged by other weights than these") for e in other),
            remedy="use the judge of then: guide-hub doctor names the files, GUIDE_HUB_WEIGHTS their folder",
        )


def _built_already(plan: Rebuild) -> InputError:
    return InputError(
        "the output folder holds this model already",
        remedy="choose another with --output"
        + (f", or push this one: {pipeline.push_command(plan)}" if plan.push_to else ""),
    )


def _record(plan: Rebuild, report: Report, device: str, folder: Path) -> records.Record:
    """The statement about the files in `folder`: what the old record says of the others, with new figures."""
    assert plan.previous is not None
    old = {_id(e): e for e in records.older(plan.previous)}
    erasures = [
        records.Erasure(
            e.request_id,
            e.identity_id,
            said["commitment"],
            said["imageCount"],
            said["regime"],
            datetime.date.fromisoformat(said["completedOn"]),
            metrics(e),
            "PASSED" if e.result == "PASSED" else "FAILED",
            said.get("ground"),
            datetime.date.fromisoformat(said["receivedOn"]) if "receivedOn" in said else None,
        )
        for e, said in ((e, old[e.request_id, e.identity_id]) for e in report.erasures)
    ]
    return records.build_record(
        subject=subject(folder),
        base=plan.origin,
        recipe_digest=plan.recipe.digest(),
        recipe_name=plan.recipe.name,
        erasures=erasures,
        seed=plan.options.seed,
        tool_version=__version__,
        environment=environment(device),
        retained=retained(report),
        reemergence=reemergence(report),
        collateral=collateral(report),
        teacher="original",
        rebuilt=records.Rebuilt(records.sha256(plan.previous), *plan.without, today(), plan.reason),
    )
