"""Everything about an erasure that can be known, checked and refused before the work starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guide_hub import delivery, hub
from guide_hub import record as records
from guide_hub.checkpoint import default_state
from guide_hub.errors import InputError, Problem
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.request import Request, load_request


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
    supersede: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("output", "report", "state", "license"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the work starts.

    `request` holds the identities that are still to be erased; `finished` says that there are none left: the
    model's record, or the open pull request `pr_url`, lists them all.
    """

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
    previous_card: str | None
    finished: bool
    pr_url: str | None = None

    @property
    def own(self) -> bool:
        """Whether the push goes to the repository that the model was pulled from."""
        return _is_own(self.source, self.push_to)

    @property
    def earlier(self) -> list[dict[str, Any]]:
        """The erasures that the model's record lists already."""
        return records.older(self.previous) if self.previous is not None else []

    @property
    def card(self) -> dict[str, Any]:
        """The base card's front matter, with a licence."""
        return _licensed(self.source)

    @property
    def title(self) -> str:
        """Of the new card. A folder's name may be private, so it is not in it."""
        if self.push_to is not None or self.source.kind == "folder":
            return self.push_to or "Erased model"
        return f"{_last_part(self.source)}-erased"

    @property
    def base(self) -> dict[str, str | None]:
        return {"repo": self.source.uri, "revision": self.source.revision, "sha256": self.weights_sha256}


def make_plan(repo: str, request: str | Path, options: Options) -> Plan:
    """Reads the request, resolves the model to one commit, checks licence, token, folders, key and chain.

    Changes nothing. Raises InputError, HubError or ConflictError for all that would fail later.
    """
    wanted = load_request(request, repo)
    revision = options.revision or wanted.target_revision
    source = hub.resolve(repo, revision, options.license)
    hub.require_licence(source)
    recipe = load_recipe(options.recipe or _default_recipe(source))
    push_to, create_pr = _destination(source, options)
    output = options.output or Path(f"{_last_part(source)}-erased")
    state = options.state or default_state()
    previous = source.record_file.read_bytes() if source.record_file else None
    finished, pr_url, head, card_text = False, None, None, None
    if previous is not None:
        done = _served(records.parse_record(previous), wanted)
        finished = {i.id for i in wanted.identities} <= done
        wanted = wanted if finished else _without(wanted, done)
    if not finished:
        _check_folders(output, state, options.report)
        records.find_key(state)
        records.licence(_licensed(source))
        card_text = _readable_card(source)
        if previous is not None:
            records.older(previous)
        if push_to is not None:
            head = hub.preflight(push_to, create_pr=create_pr, create_repo_if_missing=True)
            own = _is_own(source, push_to)
            if own and head.sha != source.revision:
                _refuse_stale(push_to, revision)
            delivery.check_target(
                head,
                own=own,
                known=set() if previous is None else {records.sha256(previous)},
                delete_other_weights=options.delete_other_weights,
                supersede=options.supersede,
            )
            pr_url = _open_pr(head, wanted) if create_pr else None
            finished = pr_url is not None
    return Plan(
        wanted,
        source,
        records.file_sha256(source.weights_file),
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
        "earlier_erasures": len(plan.earlier),
        "warnings": [p.message for p in request.warnings],
    }


def _default_recipe(source: hub.Source) -> str:
    from guide_hub.eg3d.pretrained import read_config
    from guide_hub.networks import default_recipe

    return default_recipe(read_config(source.config_file))


def _is_own(source: hub.Source, push_to: str | None) -> bool:
    return source.kind == "hub" and push_to == source.repo


def _destination(source: hub.Source, options: Options) -> tuple[str | None, bool]:
    push_to = options.push_to or (source.repo if source.kind == "hub" else None)
    if options.push is False:
        push_to = None
    elif options.push and push_to is None:
        raise InputError("--push needs a repository", remedy="name it with --push-to org/name")
    return push_to, _is_own(source, push_to) if options.create_pr is None else options.create_pr


def _last_part(source: hub.Source) -> str:
    if source.kind == "folder":
        return source.folder.resolve().name
    return source.repo.rsplit("/", maxsplit=1)[-1].removeprefix(hub.BUILTIN)


def _check_folders(output: Path, state: Path, report: Path | None) -> None:
    records.keep_apart(state, output)
    if report is not None:
        records.keep_apart(report, output, what="the report shows the people's faces", option="--report")
    place = output.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(
            "the output folder is not empty", remedy="choose another with --output, or move it away"
        )


def _licensed(source: hub.Source) -> dict[str, Any]:
    """The base card's front matter; `license: other` with our copy where only a licence text was given."""
    card = dict(source.card)
    if not card.get("license"):
        card |= {"license": "other", "license_link": "LICENSE"}
    return card


def _readable_card(source: hub.Source) -> str | None:
    card = source.folder / "README.md"
    try:
        return card.read_text(encoding="utf-8") if card.is_file() else None
    except (OSError, UnicodeDecodeError):
        raise InputError(
            "the base model's README.md cannot be read as UTF-8 text", remedy="save it in UTF-8"
        ) from None


def _served(record: records.Record, request: Request) -> set[str]:
    """The ids of the request's identities that a record lists already."""
    if records.overall(record) == "FAILED":
        raise InputError(
            "the model's record says that an erasure did not meet its target",
            remedy="start from the model that it was made from, with another recipe",
        )
    return {e["identityId"] for e in records.erasures_of(record, request.request_id)}


def _without(request: Request, done: set[str]) -> Request:
    left = tuple(i for i in request.identities if i.id not in done)
    skipped = len(request.identities) - len(left)
    if not skipped:
        return request
    notice = Problem(f"{skipped} of the request's identities are in the model's record already: left out")
    return dataclasses.replace(request, identities=left, warnings=[*request.warnings, notice])


def _open_pr(head: hub.Head, request: Request) -> str | None:
    """The user's own open pull request that erases all of the request's identities."""
    if head.sha is None:
        return None
    url = hub.find_open_pr(head.repo, delivery.title(request.request_id))
    if url is None:
        return None
    found = hub.read_file(head.repo, records.record.FILE, f"refs/pr/{url.rsplit('/', 1)[-1]}")
    listed = _served(records.parse_record(found), request) if found is not None else set()
    return url if {i.id for i in request.identities} <= listed else None


def _refuse_stale(repo: str, revision: str | None) -> None:
    """A push to the model's own repository continues `main`, so anything else is refused before the work."""
    if revision is None:
        raise hub._conflict(repo)
    raise InputError(
        f"--revision or the request names another commit than the main branch of {repo}, "
        "which a push would continue",
        remedy="leave the revision out, push elsewhere with --push-to, or use --no-push",
    )
