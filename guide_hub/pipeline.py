"""`guide-hub erase` from request to pushed model: plan, invert, erase, measure, write, push."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_hub import hub
from guide_hub.checkpoint import Checkpoint, default_state, fingerprint
from guide_hub.errors import InputError, RefusedError
from guide_hub.interrupt import stopping
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.record import Record, erasures_of, file_sha256, keep_apart, overall, parse_record
from guide_hub.report import ErasureReport, IdentityFigures, Report, RetainedReport
from guide_hub.request import Request, load_request
from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import PersonMeasure, RetainedMeasure
    from guide_hub.sequence import Progress

RETAINED_VIEWS = 3
RETAINED_SEED = 0x5EED


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
    state: Path | None = None
    license: Path | None = None
    delete_other_weights: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("output", "report", "state", "license"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the work starts."""

    request: Request
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
    finished: bool  # the model's record already lists every identity of the request

    @property
    def message(self) -> str:
        """Commit and pull request title: the opaque request id alone."""
        return f"Erase the identities of request {self.request.request_id}"

    @property
    def base(self) -> dict[str, str | None]:
        return {"repo": self.source.uri, "revision": self.source.revision, "sha256": self.weights_sha256}


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
        return Report(status="already_erased", request_id=plan.request.request_id, base=plan.base)
    if plan.options.dry_run:
        return Report(
            status="planned", request_id=plan.request.request_id, base=plan.base, plan=describe(plan)
        )
    return _run(plan, progress)


def make_plan(repo: str, request: str | Path, options: Options) -> Plan:
    """Reads the request, resolves the model to one commit, checks licence, token, output folder and chain."""
    wanted = load_request(request, repo)
    source = hub.resolve(repo, options.revision or wanted.target_revision, options.license)
    recipe = load_recipe(options.recipe or _default_recipe(source))
    push_to, create_pr = _destination(source, options)
    output = options.output or Path(f"{_name(source.repo)}-erased")
    state = options.state or default_state()
    previous = source.record_file.read_bytes() if source.record_file else None
    finished = previous is not None and _already_done(parse_record(previous), wanted)
    keep_apart(state, output)
    if not finished:
        _check_output(output)
    head = None
    if push_to is not None and not finished:
        head = hub.preflight(push_to, create_pr=create_pr, create_repo_if_missing=True)
        same = source.kind == "hub" and push_to == source.repo
        if same and head.sha != source.revision:
            _refuse_stale(push_to, options.revision or wanted.target_revision)
        if same:
            check_other_weights(head, options.delete_other_weights)
    return Plan(
        wanted,
        source,
        file_sha256(source.weights_file),
        recipe,
        options,
        output,
        state,
        push_to,
        create_pr,
        head,
        previous,
        finished,
    )


def check_other_weights(head: hub.Head, delete: bool) -> None:
    """InputError where weight files beside the new ones would stay in the repository."""
    others = head.other_weights
    if others and not delete:
        raise InputError(
            f"{head.repo} holds {len(others)} other weight file(s) that would still show the person: "
            + ", ".join(others),
            remedy="add --delete-other-weights to remove them in the same commit, or push elsewhere",
        )


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as `--dry-run` shows it."""
    request, recipe = plan.request, plan.recipe
    return {
        "identities": [{"identity_id": i.id, "photos": len(i.images)} for i in request.identities],
        "recipe": recipe.name,
        "steps": recipe.optim.iterations * len(request.identities),
        "seed": plan.options.seed,
        "output": plan.output.name,
        "push_to": plan.push_to,
        "create_pr": plan.create_pr if plan.push_to else None,
        "earlier_erasures": len(_chain(plan)),
        "warnings": [p.message for p in request.warnings],
    }


def _default_recipe(source: hub.Source) -> str:
    from guide_hub.eg3d.pretrained import read_config
    from guide_hub.networks import default_recipe

    return default_recipe(read_config(source.config_file))


def _destination(source: hub.Source, options: Options) -> tuple[str | None, bool]:
    push_to = options.push_to or (source.repo if source.kind == "hub" else None)
    if options.push is False:
        push_to = None
    elif options.push and push_to is None:
        raise InputError("--push needs a repository", remedy="name it with --push-to org/name")
    own = push_to == source.repo
    return push_to, own if options.create_pr is None else options.create_pr


def _name(repo: str) -> str:
    return (
        Path(repo.removeprefix(hub.BUILTIN)).resolve().name
        if Path(repo).is_dir()
        else repo.rsplit("/", maxsplit=1)[-1].rsplit(":", maxsplit=1)[-1]
    )


def _check_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(
            "the output folder is not empty", remedy="choose another with --output, or move it away"
        )


def _chain(plan: Plan) -> list[dict[str, Any]]:
    return parse_record(plan.previous)["predicate"]["erasures"] if plan.previous is not None else []


def _already_done(record: Record, request: Request) -> bool:
    if overall(record) == "FAILED":
        raise InputError(
            "the model's record says that an erasure did not meet its target",
            remedy="start from the model that it was made from, with another recipe",
        )
    done = {e["identityId"] for e in erasures_of(record, request.request_id)}
    return {i.id for i in request.identities} <= done


def _refuse_stale(repo: str, revision: str | None) -> None:
    """A push to the model's own repository continues `main`, so anything else is refused before the work."""
    if revision is None:
        raise hub._conflict(repo)
    raise InputError(
        f"--revision or the request names another commit than the main branch of {repo}, "
        "which a push would continue",
        remedy="leave the revision out, push elsewhere with --push-to, or use --no-push",
    )


def _run(plan: Plan, progress: Progress) -> Report:
    import torch

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import measure_person, measure_retained
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.faces.crops import load_crops
    from guide_hub.guide.latents import LatentSpace
    from guide_hub.inversion import Inverter
    from guide_hub.networks import choose, load
    from guide_hub.publish import write_folder, write_private_report
    from guide_hub.sequence import Sequence, pick_device

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
        crops = load_crops(request, teacher.config.img_resolution, device)
        threshold = find_threshold(plan, teacher, networks.identity_judge, names.identity_judge, progress)

        run_name = fingerprint(
            base=plan.weights_sha256, recipe=recipe.digest(), seed=plan.options.seed, device=device.type,
            version=__version__, torch=torch.__version__, threads=torch.get_num_threads(),
            people=[[i.id, [p.sha256 for p in i.images]] for i in request.identities],
            networks=names.__dict__,
        )  # fmt: skip
        checkpoint = Checkpoint(plan.state, run_name)
        saved = checkpoint.load() if plan.options.resume else None
        if saved is None:
            progress.stage("finding each person's latent")
            inverter = Inverter(
                teacher, recipe.inversion, networks.perceptual, networks.identity_loss, networks.inversion
            )
            latents = [inverter(person).ws for person in crops]
        else:
            latents = [ws.to(device) for ws in saved["latents"]]

        def measure(k: int, student: EG3D) -> PersonMeasure:
            return measure_person(teacher, student, judge, crops[k], latents[k], cameras, threshold)

        ids = [i.id for i in request.identities]
        starts = [measure(k, teacher) for k in range(len(ids))] if saved is None else []
        _refuse_strangers(ids, starts, threshold, plan)
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
            {"latents": latents},
        )
        if saved is None:
            checkpoint.save({"latents": latents})
        sequence.run(ids, [ws[:1] for ws in latents], measure, saved)
        student.requires_grad_(False)

        progress.stage("measuring everybody on the final weights")
        final = [measure(k, student) for k in range(len(ids))]
        people = LatentSpace(teacher).random(
            recipe.gate.retained_people, torch.Generator().manual_seed(RETAINED_SEED + plan.options.seed)
        )
        three = yaw_cameras(teacher, recipe.camera, RETAINED_VIEWS)
        retained = measure_retained(teacher, student, judge, networks.perceptual, people, three, threshold)
        report = make_report(plan, sequence.measured, final, retained, threshold)

        progress.stage("writing the model")
        record = write_folder(plan, report, student, teacher, people, device.type)
        if plan.options.report is not None:
            write_private_report(
                plan, crops, latents, [e.w_t for e in sequence.erased], teacher, student, people
            )
        checkpoint.clear()
    report.output = str(plan.output)
    if any(e.result == "FAILED" for e in report.erasures):
        report.status = "failed"
        refused = RefusedError(*_misses(report, recipe))
        refused.report = report
        raise refused
    report.status = "erased"
    if plan.push_to is not None and plan.head is not None:
        progress.stage(f"pushing to {plan.push_to}")
        pushed = _push(plan, record)
        report.pushed = {"repo": pushed.repo, "commit": pushed.commit, "pr_url": pushed.pr_url}
    return report


def find_threshold(plan: Plan, model: EG3D, judge: Any, judge_name: str, progress: Progress) -> float:
    """The judge's threshold on this model: shipped with the weights, or measured now."""
    from guide_hub.evaluation.calibration import calibrate, shipped
    from guide_hub.evaluation.views import yaw_cameras

    far = plan.recipe.gate.far
    found = shipped(plan.source.folder, plan.weights_sha256, judge_name, far)
    if found is None:
        progress.stage("calibrating the judge on this model")
        found = calibrate(
            model, judge, judge_name, yaw_cameras(model, plan.recipe.camera, RETAINED_VIEWS), far
        )
    return found.threshold


def _refuse_strangers(ids: list[str], starts: list[PersonMeasure], threshold: float, plan: Plan) -> None:
    """Erasing the wrong point is worse than refusing: the photo must be recognised in its own render."""
    from guide_hub.errors import Problem

    missed = [
        Problem(
            f"{identity}: the model does not show this person "
            f"(cosine {start.before.cosine:.2f}, threshold {threshold:.2f})",
            "give a sharper or more frontal first photo, or answer the request with this figure",
        )
        for identity, start in zip(ids, starts, strict=False)
        if start.before.cosine < threshold
    ]
    if missed:
        refused = RefusedError(*missed)
        refused.report = Report(status="no_match", request_id=plan.request.request_id, base=plan.base)
        raise refused


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
    first = len(_chain(plan)) + 1
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
    from guide_hub.errors import Problem

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


def _push(plan: Plan, record: Record) -> hub.Pushed:
    from guide_hub.publish import pull_request_body

    assert plan.push_to is not None
    assert plan.head is not None
    same = plan.push_to == plan.source.repo
    return hub.push(
        plan.output, plan.push_to,
        parent_commit=plan.source.revision if same else plan.head.sha,
        create_pr=plan.create_pr, message=plan.message, description=pull_request_body(record),
        delete=plan.head.other_weights if same and plan.options.delete_other_weights else (),
    )  # fmt: skip


def environment(device: str) -> dict[str, str]:
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__).split("+")[0],
        "device": device,
    }


def today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()
