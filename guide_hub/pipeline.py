"""`guide-hub erase` from request to pushed model: plan, invert, erase, measure, write, push."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_hub import earlier
from guide_hub import record as records
from guide_hub.attacks.registry import ATTACKS
from guide_hub.checkpoint import FORMAT, Checkpoint, fingerprint
from guide_hub.delivery import deliver
from guide_hub.errors import ConflictError, GuideHubError, InputError, Problem, RefusedError
from guide_hub.interrupt import Stopped, Stopper, stopping
from guide_hub.plan import Options, Plan, describe, make_plan
from guide_hub.processes import Processes
from guide_hub.recipe import Recipe
from guide_hub.report import (
    EarlierReport,
    ErasureReport,
    IdentityFigures,
    InversionReport,
    Report,
    RetainedReport,
)
from guide_hub.timing import timed
from guide_hub.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import PersonMeasure, RetainedMeasure
    from guide_hub.faces.identity import IdentityEncoder
    from guide_hub.hub import Source
    from guide_hub.inversion import Person
    from guide_hub.networks import Networks
    from guide_hub.people import Finder, Subject
    from guide_hub.sequence import Progress

__all__ = ["Options", "Plan", "describe", "erase", "make_plan"]

RETAINED_VIEWS = 3
RETAINED_SEED = 0x5EED


def erase(
    repo: str,
    request: str | Path | Sequence[str | Path],
    *,
    progress: Progress | None = None,
    processes: Processes | None = None,
    **settings: Any,
) -> Report:
    """Takes every identity of one or several requests out of a model; writes and, on demand, pushes it.

    `repo` is a Hub id, a folder or `builtin:synthetic-heads`; `settings` are the fields of `Options`;
    `processes` share the steps (`guide_hub.processes.launched`). Raises InputError, RefusedError, HubError or
    ConflictError (see the exit codes); a RefusedError carries the figures in its `report`.
    `interrupt.Stopped` after SIGTERM or Ctrl-C, with the progress kept for the next run.
    """
    from guide_hub.progress import Silent

    progress = progress or Silent()
    progress.stage("planning")
    plan = make_plan(repo, request, Options(**settings))
    for warning in plan.warnings:
        progress.warn(str(warning))
    if plan.finished:
        done = _report(plan, "already_erased")
        if plan.pr_url is not None:
            done.pushed = {"repo": plan.push_to, "commit": None, "pr_url": plan.pr_url}
        Checkpoint(plan.state, plan.run_name).clear()  # of a run that was killed right after its push
        _draft_replies(plan, done)
        return done
    if plan.options.dry_run:
        return dataclasses.replace(_report(plan, "planned"), plan=describe(plan))
    try:
        report = _run(plan, progress, processes or Processes.alone())
    except RefusedError as refused:
        if refused.report is not None:
            _draft_replies(plan, refused.report)
        raise
    _draft_replies(plan, report)
    return report


def _run(plan: Plan, progress: Progress, processes: Processes) -> Report:
    import torch

    from guide_hub.attacks.erasure import attack_everybody, refuse_leaks, run_cases
    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import Sitter, embed
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.html import erasure as html
    from guide_hub.html.losses import Losses
    from guide_hub.html.page import matrix_of
    from guide_hub.hub import WEIGHTS
    from guide_hub.latents import LatentSpace
    from guide_hub.networks import choose, load, weights_sha256
    from guide_hub.people import Finder, check_grouping, read_subjects
    from guide_hub.publish import make_record, write_folder
    from guide_hub.sequence import Sequence, pick_device
    from guide_hub.survey import Survey
    from guide_hub.survey import write as write_matrix

    assert plan.ledger is not None
    recipe, identities, known = plan.recipe, plan.identities, plan.ledger.known
    device = pick_device(plan.options.device)
    progress.stage("loading the model")
    pulled = EG3D.from_pretrained(str(plan.source.folder)).to(device).eval().requires_grad_(False)
    teacher = pulled
    if plan.original is not None:
        teacher = EG3D.from_pretrained(str(plan.original.folder)).to(device).eval().requires_grad_(False)
    names = choose(pulled.config, recipe)
    networks = load(names, device)
    judge = networks.identity_judge
    cameras = yaw_cameras(pulled, recipe.camera, recipe.gate.views)
    with stopping() as stopper:
        processes.load(teacher, names, stopper)
        progress.stage("reading the photos")
        subjects = read_subjects(identities, pulled.config.img_resolution, device)
        threshold = find_threshold(
            plan.source, plan.weights_sha256, pulled, judge, names.identity_judge, recipe, progress,
            plan.state,
        )  # fmt: skip
        check_grouping(subjects, judge, threshold)
        kin = find_kin(plan.original or plan.source, teacher, networks, recipe, progress, plan.state)
        given = plan.options.latents
        weights = weights_sha256(names)
        made_with = fingerprint(
            base=plan.weights_sha256, device=device.type, version=__version__, torch=torch.__version__,
            threads=torch.get_num_threads(), networks=names.__dict__, weights=weights,
            threshold=f"{threshold:.3f}", latents=given and records.file_sha256(given),
            memories=earlier.fingerprint(known), teacher=plan.teacher,
            progress=FORMAT, **processes.made_with,
        )  # fmt: skip
        checkpoint = Checkpoint(plan.state, plan.run_name)
        saved = checkpoint.load() if plan.options.resume else None
        if saved is not None and saved["made_with"] != made_with:
            saved = None
        if saved is None and plan.built:
            raise InputError(
                "the output folder holds this erasure already",
                remedy="choose another with --output"
                + (f", or push this one: {push_command(plan)}" if plan.push_to else ""),
            )
        if saved is None:
            progress.stage("finding each person's latent")
            finder = Finder(pulled, recipe, networks, threshold, recipe.adjacency.photos)
            found = _find(subjects, finder, plan, progress)
            state: dict[str, Any] = {
                "made_with": made_with,
                "places": [person.places for person in found],
                "points": [person.points for person in found],
                "photos": [person.measured for person in found],
                "inversions": [dataclasses.asdict(figures) for figures in _figures(plan, found)],
            }
        else:
            state = {key: saved[key] for key in ("made_with", "places", "points", "photos", "inversions")}
        noted = Losses(progress, (saved or {}).get("losses"))
        state["losses"] = noted.rows
        places, points = ([ws.to(device) for ws in state[name]] for name in ("places", "points"))
        photos = [s.photos[kept] for s, kept in zip(subjects, state["photos"], strict=True)]

        faces = [embed(judge, crops) for crops in photos]
        judged_by = earlier.judge_name(names.identity_judge, weights["identity_judge"])
        people = LatentSpace(pulled).random(
            recipe.gate.retained_people, torch.Generator().manual_seed(RETAINED_SEED + plan.options.seed)
        )
        three = yaw_cameras(pulled, recipe.camera, RETAINED_VIEWS)
        survey = Survey(
            plan.everybody, pulled, judge, networks.perceptual, people, three, threshold, recipe.gate.far
        )
        earlier.join(survey, plan.ledger, plan.previous, judge, judged_by, cameras)
        first = len(plan.earlier) + 1
        for k, (seen, ws) in enumerate(zip(faces, points, strict=True)):
            fitted = len(seen) - len(ws) + 1
            survey.add(first + k, Sitter(judge, seen, ws, cameras, threshold, fitted, pulled))

        def measure(k: int, student: EG3D) -> PersonMeasure:
            return survey.person(first + k, student)

        def after(stage: list[int], student: EG3D) -> dict[str, Any]:
            return survey.after([first + k for k in stage], student)

        ids = [i.label for i in identities]
        student = EG3D.from_pretrained(str(plan.source.folder)).to(device).eval()
        sequence = Sequence(
            student,
            teacher,
            recipe,
            networks,
            plan.options.seed,
            checkpoint,
            stopper,
            noted,
            state,
            processes,
            earlier=earlier.memories(known),
            original=plan.teacher == "original",
            kin=kin,
        )
        if saved is None:
            checkpoint.save(state)
        steps = 0 if saved or processes.count > 1 else plan.steps
        with timed(plan.state, plan.timing_key, device.type, steps):
            sequence.run(ids, places, measure, saved, after if plan.every_step else None)
        student.requires_grad_(False)

        progress.stage("measuring everybody on the final weights")
        survey.note(sequence, first)
        last = survey.finish(student, drift=plan.every_step)
        retained = survey.retained(student)
        numbers = {(e["requestId"], e["identityId"]): e["sequence"] for e in plan.earlier}
        again = earlier.reports(plan.ledger, last, recipe.gate, numbers)
        if len(again) < len(known):
            progress.warn(
                f"{len(known) - len(again)} of {len(known)} earlier people are not measured again: "
                "the ledger keeps no face of them, or one that another judge saw"
            )
        final = [survey.final(first + k) for k in range(len(ids))]
        report = make_report(plan, sequence.measured, final, retained.measure, threshold, again)
        report.reemergence = survey.matrix.reemergence()
        report.collateral = survey.collateral(retained)
        report.inversions = [InversionReport(**figures) for figures in state["inversions"]]
        cases, findings = {}, {}
        if recipe.gate.attacks == "quick":
            cases = run_cases(plan, pulled, student, networks, points, photos, threshold, sequence.erased)
            findings = attack_everybody(report, cases, progress)

        if plan.options.report is not None:
            progress.stage("writing the report")
            shown = [
                html.Seen(s.photos, len(kept) - len(ws) + 1, ws, e.w_t)
                for s, kept, ws, e in zip(subjects, photos, points, sequence.erased, strict=True)
            ]
            short = [p.message for p in _misses(report, recipe)] if failed(report) else []
            matrix = matrix_of(survey.matrix.to_dict(), report.request_ids)
            extras = html.Extras(findings, noted.rows, matrix, short)
            html.write_erasure(plan, report, shown, pulled, student, people, extras)
            write_matrix(survey.matrix, plan.options.report)
        progress.stage("writing the model")
        with stopper.step():  # a signal waits: the folder and the ledger are there, or they are not
            if not plan.built:
                statement = partial(make_record, plan, report, device.type)
                write_folder(plan, statement, student, pulled, people, partial(refuse_leaks, cases))
            if not failed(report):
                made = earlier.Made(
                    recipe,
                    plan.options.seed,
                    judged_by,
                    records.file_sha256(plan.output / WEIGHTS),
                    survey.matrix,
                )
                added = [
                    earlier.entry(e, memory, ws, seen, len(seen) - len(ws) + 1, made)
                    for e, memory, ws, seen in zip(
                        report.erasures, sequence.memories, points, faces, strict=True
                    )
                ]
                earlier.add(plan.state, plan.ledger.base_sha256, added)
    report.output = str(plan.output)
    try:
        finish(plan, report, stopper, progress)
    finally:  # only a kill leaves the progress, and the next run goes on to the push
        checkpoint.clear()
        if not failed(report):  # not before: the progress is of the ledger as it was
            try:
                earlier.move(plan.state, plan.ledger.base_sha256, known, sequence.earlier)
            except InputError as error:
                progress.warn(f"surrogates that moved are not in the ledger, and will move again: {error}")
    return report


def finish(plan: Plan, report: Report, stopper: Stopper, progress: Progress) -> None:
    """Pushes what met its target. RefusedError for what did not."""
    if failed(report):
        report.status = "failed"
        refused = RefusedError(*_misses(report, plan.recipe))
        refused.report = report
        raise refused
    report.status = "erased"
    if plan.push_to is not None:
        if stopper.signum is not None:
            raise _stopped(stopper.signum, report, plan)
        _draft_replies(plan, report)  # what can be said so far, should the push fail
        progress.stage(f"pushing to {plan.push_to}")
        _push(plan, report)


def failed(report: Report) -> bool:
    """Whether somebody of this run is not gone, or of an earlier one is back."""
    return "FAILED" in [e.result for e in report.erasures] + [e.result for e in report.earlier]


def find_threshold(
    source: Source,
    weights_sha256: str,
    model: EG3D,
    judge: IdentityEncoder,
    name: str,
    recipe: Recipe,
    progress: Progress,
    state: Path | None = None,
) -> float:
    """The judge's threshold on a model: shipped with the weights, measured before (`state`), or now."""
    from guide_hub.evaluation.calibration import FARS, calibrate_at, keep, shipped
    from guide_hub.evaluation.views import yaw_cameras

    far = recipe.gate.far
    found = shipped(source.folder, weights_sha256, name, far, recipe.camera)
    if found is None and state is not None:
        found = shipped(state, weights_sha256, name, far, recipe.camera)
    if found is None:
        progress.stage("calibrating the judge on this model")
        c = yaw_cameras(model, recipe.camera, RETAINED_VIEWS)
        found, *others = calibrate_at(model, judge, name, c, [far, *(f for f in FARS if f != far)])
        if state is not None:
            keep(state, weights_sha256, [found, *others], recipe.camera)
    return found.threshold


def find_kin(
    source: Source, teacher: EG3D, networks: Networks, recipe: Recipe, progress: Progress, state: Path
) -> Tensor | None:
    """What `guide.kin` knows of the teacher, where the recipe asks for it: shipped with its weights, made
    before (`state`), or now."""
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.guide import kin

    if recipe.adjacency.towards != "kin":
        return None
    front = yaw_cameras(teacher, recipe.camera, 1)
    identity, folders = networks.identity_loss, [source.folder, state]
    found = kin.load_kin(teacher, identity, front, folders)
    if found is None:
        progress.stage("finding along which latents a face stays the same")
        found = kin.kin_of(teacher, identity, front)
        kin.keep_kin(state, found, kin.key_of(teacher, identity, front))
    return found


def _find(subjects: list[Subject], find: Finder, plan: Plan, progress: Progress) -> list[Person]:
    """The subjects in the model. InputError or RefusedError where the gate does not hold."""
    from guide_hub.people import read_latents, refuse_unshown

    given: list[Tensor | None] = [None] * len(subjects)
    if plan.options.latents is not None:
        given = [*read_latents(plan.options.latents, find.model, plan.identities)]
    people = [find(subject, latent) for subject, latent in zip(subjects, given, strict=True)]
    try:
        refuse_unshown(subjects, people)
    except GuideHubError as error:
        status = "no_match" if isinstance(error, RefusedError) else "error"
        error.report = dataclasses.replace(_report(plan, status), inversions=_figures(plan, people))
        raise
    for subject, person in zip(subjects, people, strict=True):
        held_out = len(subject.faces) - person.fitted
        if len(person.tested) < held_out:
            missed = held_out - len(person.tested)
            progress.warn(
                f"{subject.identity.label}: the model does not show {missed} of {held_out} held-out photos, "
                "which test nothing then"
            )
    return people


def _figures(plan: Plan, people: list[Person]) -> list[InversionReport]:
    return [
        inversion_report(request.request_id, identity.id, person)
        for (request, identity), person in zip(plan.people, people, strict=True)
    ]


def inversion_report(request_id: str | None, identity_id: str, person: Person) -> InversionReport:
    """A person's figures, averaged."""
    n, quality = person.fitted, person.quality
    distance = sum(quality.perceptual[:n]) / n
    return InversionReport(
        request_id, identity_id, len(quality.cosine), n, person.cosine, quality.threshold, distance,
        any(quality.shown),
    )  # fmt: skip


def make_report(
    plan: Plan,
    after: list[PersonMeasure],
    final: list[PersonMeasure],
    retained: RetainedMeasure,
    threshold: float,
    again: list[EarlierReport],
) -> Report:
    """Figures and results; `after` was measured right after each erasure, `final` on the last weights.

    `again`: of the people of earlier runs.
    """
    gate = plan.recipe.gate
    kept = retained.verified >= gate.retained_min
    erasures = []
    first = len(plan.earlier) + 1
    for k, ((request_id, identity_id), then, now) in enumerate(zip(plan.ids, after, final, strict=True)):
        held_out = now.others_after.verified if now.others_after else None
        others = None
        if now.others_after is not None and now.others_before is not None:
            others = IdentityFigures(now.others_before.cosine, now.others_after.cosine, threshold)
        erasures.append(
            ErasureReport(
                request_id,
                identity_id,
                first + k,
                IdentityFigures(then.before.cosine, then.after.cosine, threshold),
                now.after.cosine,
                now.guide,
                now.after.verified,
                others,
                held_out,
                "PASSED" if kept and gate.gone(now.after.verified, held_out) else "FAILED",
            )
        )
    return dataclasses.replace(
        _report(plan, "erased"),
        erasures=erasures,
        earlier=again,
        retained=RetainedReport(retained.n, retained.verified, retained.perceptual),
        teacher=plan.teacher,
    )


def _report(plan: Plan, status: str) -> Report:
    """Without figures yet."""
    ids = plan.request_ids
    return Report(status, ids[0] if len(ids) == 1 else None, plan.base, request_ids=ids)


def _misses(report: Report, recipe: Recipe) -> list[Any]:
    gate, out = recipe.gate, []
    for e in report.erasures:
        if e.verified_after > gate.erased_views_max:
            out.append(
                Problem(
                    f"{report.name(e)}: still verified in {e.verified_after:.0%} of the views "
                    f"(at most {gate.erased_views_max:.0%})"
                )
            )
        if (e.verified_others_after or 0) > gate.held_out_views_max:
            out.append(
                Problem(
                    f"{report.name(e)}: held-out photos still verified in {e.verified_others_after:.0%} "
                    f"of the views (at most {gate.held_out_views_max:.0%})"
                )
            )
        out += [
            Problem(f"{report.name(e)}: the attack {a['attack']} finds the person: not so that {a['rule']}")
            for a in e.attacks
            if a["passed"] is False and ATTACKS[a["attack"]].gates
        ]
    for old in report.earlier:
        if old.result == "FAILED":
            views = f"verified in {old.verified_now:.0%} of the views (at most {gate.erased_views_max:.0%})"
            if old.verified_others_now is not None:
                views += (
                    f", held-out photos in {old.verified_others_now:.0%} (at most "
                    f"{gate.held_out_views_max:.0%})"
                )
            out.append(
                Problem(
                    f"{old.request_id}.{old.identity_id}: an earlier erasure came back: {views}",
                    "try another seed, or a recipe that replays more: replay.per_step, replay.neighbours",
                )
            )
    if report.retained and report.retained.verified < gate.retained_min:
        out.append(
            Problem(
                f"only {report.retained.verified:.0%} of the views of other people are still themselves "
                f"(at least {gate.retained_min:.0%})"
            )
        )
    return out or [Problem("the target was not met")]


def _draft_replies(plan: Plan, report: Report) -> None:
    """Drafts of the answers to the requesters, beside the private report, else in the state folder."""
    from guide_hub import private, reply

    before = records.parse_record(plan.previous) if plan.previous is not None else None
    served = dataclasses.replace(report, status="already_erased", pushed=None)
    drafts = [(request, served, before) for request in plan.served]
    if plan.finished:
        drafts += [(request, report, before if plan.pr_url is None else None) for request in plan.requests]
    else:
        made = records.read_record(Path(report.output)) if report.output is not None else None
        drafts += [(request, report, made) for request in plan.requests]
    for request, about, record in drafts:
        path = reply.place(plan.options.report, plan.state, request.request_id)
        if plan.pr_url and path.is_file() and plan.pr_url in path.read_text(encoding="utf-8"):
            continue  # from the run that made the pull request, with its figures
        private.write(path, reply.render(about, request, record).encode())


def _push(plan: Plan, report: Report) -> None:
    """Pushes the finished folder. What stops it carries the report, and says how to go on from the folder."""
    assert plan.head is not None
    try:
        pushed = deliver(
            plan.output,
            plan.head,
            parent_commit=plan.source.revision if plan.own else plan.head.sha,
            create_pr=plan.create_pr,
            delete_other_weights=plan.options.delete_other_weights,
            private=True if plan.source.private else None,
            supersede_base=plan.options.supersede,
        )
    except GuideHubError as error:
        if isinstance(error, ConflictError):
            then = "give another folder with --output, or move this one away"
        else:
            then = f"the erasure is finished; push it with: {push_command(plan)}"
        told = [
            dataclasses.replace(p, remedy=f"{p.remedy}; {then}" if p.remedy else then) for p in error.problems
        ]
        failed = type(error)(*told)
        failed.report = dataclasses.replace(report, status="error")
        raise failed from error
    except KeyboardInterrupt:
        raise _stopped(signal.SIGINT, report, plan) from None
    report.pushed = dataclasses.asdict(pushed)


def _stopped(signum: int, report: Report, plan: Plan) -> Stopped:
    stopped = Stopped(signum)
    stopped.report = dataclasses.replace(report, status="error")
    stopped.remedy = f"the erasure is finished; push it with: {push_command(plan)}"
    return stopped


def push_command(plan: Plan) -> str:
    assert plan.push_to is not None
    words = ["guide-hub", "push", str(plan.output), "--to", plan.push_to]
    if plan.create_pr != (plan.base["repo"] == f"hf://{plan.push_to}"):  # not what push does by itself
        words.append("--create-pr" if plan.create_pr else "--no-create-pr")
    words += ["--delete-other-weights"] if plan.options.delete_other_weights else []
    words += ["--replace-record"] if plan.options.replace_record else []
    words += ["--supersede"] if plan.options.supersede else []
    return shlex.join(words)
