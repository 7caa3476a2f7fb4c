"""`guide-hub erase` from request to pushed model: plan, invert, erase, measure, write, push."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_hub.checkpoint import Checkpoint, fingerprint
from guide_hub.delivery import deliver
from guide_hub.errors import ConflictError, GuideHubError, Problem, RefusedError
from guide_hub.interrupt import Stopped, stopping
from guide_hub.plan import Options, Plan, describe, make_plan
from guide_hub.recipe import Recipe
from guide_hub.report import ErasureReport, IdentityFigures, InversionReport, Report, RetainedReport
from guide_hub.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import PersonMeasure, RetainedMeasure
    from guide_hub.faces.identity import IdentityEncoder
    from guide_hub.hub import Source
    from guide_hub.inversion import Person
    from guide_hub.people import Finder, Subject
    from guide_hub.sequence import Progress

__all__ = ["Options", "Plan", "describe", "erase", "make_plan"]

RETAINED_VIEWS = 3
RETAINED_SEED = 0x5EED


def erase(repo: str, request: str | Path, *, progress: Progress | None = None, **settings: Any) -> Report:
    """Takes every identity of a request out of a model and writes, and on demand pushes, the result.

    `repo` is a Hub id, a folder or `builtin:synthetic-heads`; `settings` are the fields of `Options`. Raises
    InputError, RefusedError, HubError or ConflictError (see the exit codes); a RefusedError carries the
    figures in its `report`. `interrupt.Stopped` after SIGTERM or Ctrl-C, with the progress kept for the next
    run.
    """
    from guide_hub.progress import Silent

    progress = progress or Silent()
    plan = make_plan(repo, request, Options(**settings))
    for warning in plan.request.warnings:
        progress.warn(str(warning))
    if plan.finished:
        done = Report(status="already_erased", request_id=plan.request.request_id, base=plan.base)
        if plan.pr_url is not None:
            done.pushed = {"repo": plan.push_to, "commit": None, "pr_url": plan.pr_url}
        return done
    if plan.options.dry_run:
        return Report(
            status="planned", request_id=plan.request.request_id, base=plan.base, plan=describe(plan)
        )
    return _run(plan, progress)


def _run(plan: Plan, progress: Progress) -> Report:
    import torch

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import measure_person, measure_retained
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.inversion import fitted_of
    from guide_hub.latents import LatentSpace
    from guide_hub.networks import choose, load, weights_sha256
    from guide_hub.people import Finder, check_grouping, read_subjects
    from guide_hub.publish import write_folder
    from guide_hub.sequence import Sequence, pick_device
    from guide_hub.sheets import write_private_report

    recipe, request = plan.recipe, plan.request
    device = pick_device(plan.options.device)
    progress.stage("loading the model")
    teacher = EG3D.from_pretrained(str(plan.source.folder)).to(device).eval().requires_grad_(False)
    names = choose(teacher.config, recipe)
    networks = load(names, device)
    judge = networks.identity_judge
    cameras = yaw_cameras(teacher, recipe.camera, recipe.gate.views)
    with stopping() as stopper:
        progress.stage("reading the photos")
        subjects = read_subjects(request.identities, teacher.config.img_resolution, device)
        threshold = find_threshold(
            plan.source, plan.weights_sha256, teacher, judge, names.identity_judge, recipe, progress
        )
        check_grouping(subjects, judge, threshold)
        photos = [subject.photos for subject in subjects]

        run_name = fingerprint(
            base=plan.weights_sha256, recipe=recipe.digest(), seed=plan.options.seed, device=device.type,
            version=__version__, torch=torch.__version__, threads=torch.get_num_threads(),
            people=[[i.id, [[p.sha256, p.face] for p in i.images]] for i in request.identities],
            networks=names.__dict__, weights=weights_sha256(names), threshold=threshold,
        )  # fmt: skip
        checkpoint = Checkpoint(plan.state, run_name)
        saved = checkpoint.load() if plan.options.resume else None
        if saved is None:
            progress.stage("finding each person's latent")
            points, inversions = _find(subjects, Finder(teacher, recipe, networks, threshold), plan)
        else:
            points = [ws.to(device) for ws in saved["points"]]
            inversions = [InversionReport(**figures) for figures in saved["inversions"]]
        state = {"points": points, "inversions": [dataclasses.asdict(i) for i in inversions]}

        def measure(k: int, student: EG3D) -> PersonMeasure:
            fitted = fitted_of(len(photos[k]))
            return measure_person(teacher, student, judge, photos[k], points[k], cameras, threshold, fitted)

        ids = [i.id for i in request.identities]
        student = EG3D.from_pretrained(str(plan.source.folder)).to(device).eval()
        sequence = Sequence(
            student,
            teacher,
            recipe,
            networks,
            plan.options.seed,
            checkpoint,
            stopper,
            progress,
            state,
        )
        if saved is None:
            checkpoint.save(state)
        sequence.run(ids, [ws[:1] for ws in points], measure, saved)
        student.requires_grad_(False)

        progress.stage("measuring everybody on the final weights")
        final = [measure(k, student) for k in range(len(ids))]
        people = LatentSpace(teacher).random(
            recipe.gate.retained_people, torch.Generator().manual_seed(RETAINED_SEED + plan.options.seed)
        )
        three = yaw_cameras(teacher, recipe.camera, RETAINED_VIEWS)
        retained = measure_retained(teacher, student, judge, networks.perceptual, people, three, threshold)
        report = make_report(plan, sequence.measured, final, retained, threshold)
        report.inversions = inversions

        if plan.options.report is not None:
            progress.stage("writing the private report")
            write_private_report(
                plan, photos, points, [e.w_t for e in sequence.erased], teacher, student, people
            )
        progress.stage("writing the model")
        with stopper.step():  # a signal waits: the folder is there and the progress gone, or neither
            write_folder(plan, report, student, teacher, people, device.type)
            checkpoint.clear()
    report.output = str(plan.output)
    if any(e.result == "FAILED" for e in report.erasures):
        report.status = "failed"
        refused = RefusedError(*_misses(report, recipe))
        refused.report = report
        raise refused
    report.status = "erased"
    if plan.push_to is not None:
        if stopper.signum is not None:
            raise _stopped(stopper.signum, report, plan)
        progress.stage(f"pushing to {plan.push_to}")
        _push(plan, report)
    return report


def find_threshold(
    source: Source,
    weights_sha256: str,
    model: EG3D,
    judge: IdentityEncoder,
    name: str,
    recipe: Recipe,
    progress: Progress,
) -> float:
    """The judge's threshold on a model: shipped with the weights, or measured now."""
    from guide_hub.evaluation.calibration import calibrate, shipped
    from guide_hub.evaluation.views import yaw_cameras

    far = recipe.gate.far
    found = shipped(source.folder, weights_sha256, name, far, recipe.camera)
    if found is None:
        progress.stage("calibrating the judge on this model")
        found = calibrate(model, judge, name, yaw_cameras(model, recipe.camera, RETAINED_VIEWS), far)
    return found.threshold


def _find(subjects: list[Subject], find: Finder, plan: Plan) -> tuple[list[Tensor], list[InversionReport]]:
    """Each subject's `Person.points` and figures. InputError or RefusedError where the gate does not hold."""
    from guide_hub.people import refuse_unshown

    people = [find(subject) for subject in subjects]
    figures = [inversion_report(s.identity.id, p) for s, p in zip(subjects, people, strict=True)]
    try:
        refuse_unshown(subjects, people)
    except GuideHubError as error:
        status = "no_match" if isinstance(error, RefusedError) else "error"
        error.report = Report(status, plan.request.request_id, plan.base, figures)
        raise
    return [person.points for person in people], figures


def inversion_report(identity_id: str, person: Person) -> InversionReport:
    """A person's figures, averaged."""
    n, quality = person.fitted, person.quality
    distance = sum(quality.perceptual[:n]) / n
    return InversionReport(identity_id, len(quality.cosine), n, person.cosine, quality.threshold, distance)


def make_report(
    plan: Plan,
    after: list[PersonMeasure],
    final: list[PersonMeasure],
    retained: RetainedMeasure,
    threshold: float,
) -> Report:
    """Figures and results; `after` was measured right after each erasure, `final` on the last weights."""
    gate = plan.recipe.gate
    kept = retained.verified >= gate.retained_min
    erasures = []
    first = len(plan.earlier) + 1
    for k, (identity, then, now) in enumerate(zip(plan.request.identities, after, final, strict=True)):
        gone = now.after.verified <= gate.erased_views_max
        others = None
        if now.others_after is not None and now.others_before is not None:
            others = IdentityFigures(now.others_before.cosine, now.others_after.cosine, threshold)
            gone = gone and now.others_after.verified <= gate.held_out_views_max
        erasures.append(
            ErasureReport(
                identity.id,
                first + k,
                IdentityFigures(then.before.cosine, then.after.cosine, threshold),
                now.after.cosine,
                now.guide,
                now.after.verified,
                others,
                now.others_after.verified if now.others_after else None,
                "PASSED" if gone and kept else "FAILED",
            )
        )
    return Report(
        status="erased", request_id=plan.request.request_id, base=plan.base, erasures=erasures,
        retained=RetainedReport(retained.n, retained.verified, retained.perceptual),
    )  # fmt: skip


def _misses(report: Report, recipe: Recipe) -> list[Any]:
    gate, out = recipe.gate, []
    for e in report.erasures:
        if e.verified_after > gate.erased_views_max:
            out.append(
                Problem(
                    f"{e.identity_id}: still verified in {e.verified_after:.0%} of the views "
                    f"(at most {gate.erased_views_max:.0%})"
                )
            )
        if (e.verified_others_after or 0) > gate.held_out_views_max:
            out.append(
                Problem(
                    f"{e.identity_id}: held-out photos still verified in {e.verified_others_after:.0%} "
                    f"of the views (at most {gate.held_out_views_max:.0%})"
                )
            )
    if report.retained and report.retained.verified < gate.retained_min:
        out.append(
            Problem(
                f"only {report.retained.verified:.0%} of other people are still themselves "
                f"(at least {gate.retained_min:.0%})"
            )
        )
    return out or [Problem("the target was not met")]


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
        )
    except GuideHubError as error:
        if isinstance(error, ConflictError):
            then = "give another folder with --output, or move this one away"
        else:
            then = f"the erasure is finished; push it with: {_push_command(plan)}"
        told = [
            dataclasses.replace(p, remedy=f"{p.remedy}; {then}" if p.remedy else then) for p in error.problems
        ]
        failed = type(error)(*told)
        failed.report = dataclasses.replace(report, status="error")
        raise failed from error
    except KeyboardInterrupt:
        raise _stopped(signal.SIGINT, report, plan) from None
    report.pushed = {"repo": pushed.repo, "commit": pushed.commit, "pr_url": pushed.pr_url}


def _stopped(signum: int, report: Report, plan: Plan) -> Stopped:
    stopped = Stopped(signum)
    stopped.report = dataclasses.replace(report, status="error")
    stopped.remedy = f"the erasure is finished; push it with: {_push_command(plan)}"
    return stopped


def _push_command(plan: Plan) -> str:
    assert plan.push_to is not None
    words = ["guide-hub", "push", str(plan.output), "--to", plan.push_to]
    if plan.create_pr != plan.own:  # not what push does by itself
        words.append("--create-pr" if plan.create_pr else "--no-create-pr")
    words += ["--delete-other-weights"] if plan.options.delete_other_weights else []
    words += ["--supersede"] if plan.options.supersede else []
    return shlex.join(words)
