"""How a finished folder gets to the Hub: what may be replaced there, and the commit or pull request."""

from __future__ import annotations

from pathlib import Path

from guide_hub import hub
from guide_hub import record as records
from guide_hub.errors import InputError, RefusedError


def title(request_id: str) -> str:
    """Of the commit and the pull request: the opaque request id alone."""
    return f"Erase the identities of request {request_id}"


def check_target(
    head: hub.Head, *, own: bool, known: set[str], delete_other_weights: bool, supersede: bool
) -> None:
    """Refuses a push that would leave the person in the repository, or bring back others.

    Args:
        own: the repository is the one that the model was pulled from.
        known: SHA-256 of the erasure records that the new one continues or is.
        supersede: replace another record and its weights all the same.

    Raises:
        InputError: other weight files would stay, or the repository's record is of other erasures.
    """
    if head.sha is None:
        return
    if head.other_weights and not delete_other_weights:
        raise InputError(
            f"{head.repo} holds {len(head.other_weights)} other weight file(s) that would still show the "
            "person: " + ", ".join(head.other_weights),
            remedy="add --delete-other-weights to remove them in the same commit, or push elsewhere",
        )
    if own or supersede:
        return
    theirs = hub.read_file(head.repo, records.record.FILE, head.sha)
    if theirs is not None and records.sha256(theirs) not in known:
        raise InputError(
            f"{head.repo} records erasures that this model does not have; pushing would undo them",
            remedy=f"erase from it with --repo {head.repo}, or replace its record and weights: --supersede",
        )


def deliver(
    folder: Path,
    head: hub.Head,
    *,
    parent_commit: str | None,
    create_pr: bool,
    delete_other_weights: bool,
    private: bool | None,
) -> hub.Pushed:
    """Pushes a finished folder; title and description come from its record."""
    record = records.read_record(folder)
    return hub.push(
        folder,
        head.repo,
        parent_commit=parent_commit,
        create_pr=create_pr and head.sha is not None,
        message=title(record["predicate"]["erasures"][-1]["requestId"]),
        description=description(record),
        delete=head.other_weights if delete_other_weights else (),
        private=private,
    )


def push_folder(
    folder: Path, repo: str, *, create_pr: bool | None, delete_other_weights: bool, supersede: bool
) -> hub.Pushed:
    """`guide-hub push`: a finished folder, by default as a pull request where `repo` is its record's base.

    Raises RefusedError where its record says FAILED, and what `check_target` and `hub.push` raise.
    """
    hub.check_folder(folder)
    record = records.read_record(folder)
    if records.overall(record) == "FAILED":
        raise RefusedError(
            "the record says that the target was not met", remedy="erase again with another recipe"
        )
    base = record["predicate"]["base"]
    source = base["uri"].removeprefix("hf://") if base["uri"].startswith("hf://") else None
    own = source == repo
    create_pr = own if create_pr is None else create_pr
    head = hub.preflight(repo, create_pr=create_pr, create_repo_if_missing=True)
    known = {records.file_sha256(folder / records.record.FILE)}
    if "previousRecord" in record["predicate"]:
        known.add(record["predicate"]["previousRecord"]["digest"]["sha256"])
    check_target(head, own=own, known=known, delete_other_weights=delete_other_weights, supersede=supersede)
    return deliver(
        folder,
        head,
        parent_commit=base["revision"] if own else head.sha,
        create_pr=create_pr,
        delete_other_weights=delete_other_weights,
        private=True if head.sha is None and source and hub.is_private(source) else None,
    )


def description(record: records.Record) -> str:
    """What a reviewer decides from: the erasures by opaque id and their figures."""
    lines = [
        "guide-hub erased these identities from the weights; card and erasure_record.json have the details.",
        "",
    ]
    lines += ["| identity | before | now | threshold | result |", "|---|---|---|---|---|"]
    for e in record["predicate"]["erasures"]:
        m = e["metrics"]["id"]
        now = "-" if m.get("now") is None else f"{m['now']:.3f}"
        lines.append(
            f"| {e['identityId']} | {m['before']:.3f} | {now} | {m['threshold']:.3f} | {e['result']} |"
        )
    retained = record["predicate"].get("retained")
    if retained:
        lines += [
            "",
            f"{retained['verified']:.0%} of {retained['n']} random other people are still themselves.",
        ]
    lines += ["", "Merging does not remove older revisions: they still show these people."]
    return "\n".join(lines)
