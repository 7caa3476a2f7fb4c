"""How a finished folder gets to the Hub: what may be replaced there, and the commit or pull request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from guide_hub import hub
from guide_hub import record as records
from guide_hub.errors import GuideHubError, InputError, Problem, RefusedError
from guide_hub.supersede import check, supersede

TITLE = "Erase the identities of request"


def title(request_ids: Sequence[str]) -> str:
    """Of the commit and the pull request: opaque request ids alone, of three at most."""
    if len(request_ids) == 1:
        return f"{TITLE} {request_ids[0]}"
    more = len(request_ids) - 3
    return f"{TITLE}s " + ", ".join(request_ids[:3]) + (f" and {more} more" if more > 0 else "")


def check_target(
    head: hub.Head, *, own: bool, known: set[str], delete_other_weights: bool, replace_record: bool
) -> None:
    """Refuses a push that would leave the person in the repository, or bring back others.

    Args:
        own: the repository is the one that the model was pulled from.
        known: SHA-256 of the erasure records that the new one continues or is.
        replace_record: replace another record and its weights all the same.

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
    if own or replace_record:
        return
    theirs = hub.read_file(head.repo, records.record.FILE, head.sha)
    if theirs is not None and records.amended_digests(theirs).isdisjoint(known):
        raise InputError(
            f"{head.repo} records erasures that this model does not have; pushing would undo them",
            remedy=f"erase from it with --repo {head.repo}, or replace its record and weights: "
            "--replace-record",
        )


def deliver(
    folder: Path,
    head: hub.Head,
    *,
    parent_commit: str | None,
    create_pr: bool,
    delete_other_weights: bool,
    private: bool | None,
    supersede_base: bool = False,
) -> hub.Pushed:
    """Pushes a finished folder; title and description come from its record.

    `supersede_base`: the base's card gets a pull request that points here. What stops that says that the push
    itself is done.
    """
    record, delete = records.read_record(folder), head.other_weights if delete_other_weights else []
    pushed = hub.push(
        folder,
        head.repo,
        parent_commit=parent_commit,
        create_pr=create_pr and head.sha is not None,
        message=_message(record, head),
        description=description(record, head.repo, delete),
        delete=delete,
        private=private,
    )
    if not supersede_base:
        return pushed
    try:
        url = supersede(base_repo(record) or "", head.repo)
    except GuideHubError as error:
        done = f"the model is pushed ({pushed.pr_url or pushed.commit}), the base's card is not changed"
        raise type(error)(*(Problem(f"{done}: {p.message}", p.remedy) for p in error.problems)) from error
    return dataclasses.replace(pushed, superseded=url)


def _message(record: records.Record, head: hub.Head) -> str:
    rebuilt = record["predicate"].get("rebuilt")
    if rebuilt is None:
        return title(_new_requests(record, head))
    return f"Withdraw an erasure of request {rebuilt['withdrawn']['requestId']}"


def _new_requests(record: records.Record, head: hub.Head) -> list[str]:
    """Those of the record's requests that the repository's own record does not have."""
    theirs = hub.read_file(head.repo, records.record.FILE, head.sha) if head.sha is not None else None
    known = records.parse_record(theirs)["predicate"]["erasures"] if theirs is not None else []
    there = {(e["requestId"], e["identityId"]) for e in known}
    ours = [(e["requestId"], e["identityId"]) for e in record["predicate"]["erasures"]]
    return list(dict.fromkeys(r for r, i in ours if (r, i) not in there) or [ours[-1][0]])


def base_repo(record: records.Record) -> str | None:
    """The Hub id of the model that a record's was made from; None for other bases."""
    uri: str = record["predicate"]["base"]["uri"]
    return uri.removeprefix("hf://") if uri.startswith("hf://") else None


def push_folder(
    folder: Path,
    repo: str,
    *,
    create_pr: bool | None,
    delete_other_weights: bool,
    replace_record: bool,
    supersede: bool,
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
    source = base_repo(record)
    if supersede:
        check(source, repo)
    own = source == repo
    create_pr = own if create_pr is None else create_pr
    head = hub.preflight(repo, create_pr=create_pr, create_repo_if_missing=True)
    known = records.amended_digests((folder / records.record.FILE).read_bytes())
    rebuilt = record["predicate"].get("rebuilt")
    link = record["predicate"].get("previousRecord") or (rebuilt and rebuilt["replacesRecord"])
    if link:
        known.add(link["digest"]["sha256"])
    continues = own and rebuilt is None  # the base is what main serves
    check_target(
        head,
        own=continues,
        known=known,
        delete_other_weights=delete_other_weights,
        replace_record=replace_record,
    )
    return deliver(
        folder,
        head,
        parent_commit=record["predicate"]["base"]["revision"] if continues else head.sha,
        create_pr=create_pr,
        delete_other_weights=delete_other_weights,
        private=True if head.sha is None and source and hub.is_private(source) else None,
        supersede_base=supersede,
    )


def description(record: records.Record, repo: str, deleted: Iterable[str]) -> str:
    """What a reviewer decides from: figures by opaque ids, what else the commit changes, and what it leaves.

    `deleted` names files of the repository that the commit removes.
    """
    p, code, number = record["predicate"], records.card.code, records.card.number
    head = ["request", "identity", "before", "now", "held-out photos", "threshold", "result"]
    rows = []
    for e in p["erasures"]:
        m, others = e["metrics"]["id"], e["metrics"].get("idOthers")
        held_out = f"{number(others['before'])} to {number(others['after'])}" if others else "–"
        figures = [number(m["before"]), number(m["now"]), held_out, number(m["threshold"])]
        rows.append([code(e["requestId"]), code(e["identityId"]), *figures, e["result"]])
    recipe = code(p["method"]["recipe"]) if "recipe" in p["method"] else "a recipe of the maintainer"
    made = f"GUIDE, guide-hub {code(p['tool']['version'])}, {recipe} (in `recipe.yaml`)"
    lines = [
        f"These identities are suppressed in the weights ({made}). Their ids are pseudonyms.",
        records.card.table(head, rows),
        "Similarity of the person's photos and the model's pictures, to a recogniser that the training did "
        "not use; lower is better. *now* is measured on these weights, – not measured. **The gate**: PASSED "
        "needs *now* and held-out photos to stay under the threshold in as many views as `recipe.yaml` asks, "
        "and other people to stay themselves.",
    ]
    if "rebuilt" in p:
        gone_again = p["rebuilt"]["withdrawn"]
        lines += [
            f"**Withdrawn**: identity {code(gone_again['identityId'])} of request "
            f"{code(gone_again['requestId'])}. The model was built anew from the original without that "
            "erasure, so it shows that person again."
        ]
    if "retained" in p:
        retained = p["retained"]
        share = f"{retained['verified']:.0%} of the views of {retained['n']} random people"
        lines += [f"**Others**: still themselves in {share}."]
    gone = ", ".join(code(name) for name in deleted)
    lines += [
        "**Files**: `model.safetensors`, `README.md`, `erasure_record.json`, `recipe.yaml`, `LICENSE`, "
        "`SHA256SUMS` and the pictures under `assets/` are replaced or added; `config.json` stays what it "
        f"says. {f'Deleted: {gone}.' if gone else 'No other weights are deleted.'}",
        f"**Before you merge**: `guide-hub verify {repo} --revision refs/pr/N`, with the number of this pull "
        "request, checks files, record, card, licence and the chain of earlier erasures.",
        "**Merging does not** remove older revisions, tags, branches or other people's copies: they still "
        "show these people. `guide-hub audit` lists what is left, `guide-hub purge` removes it.",
    ]
    return "\n\n".join(lines)
