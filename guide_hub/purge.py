"""Taking the un-erased weights that an audit found out of a repository, for ever. None of it can be undone.

The order makes a killed purge safe to run again: first the refs and the history that lead to the weights,
then the weights in the LFS storage, last the record, which says "purged" only after a second audit agrees.
What is on `main` stays; its commit becomes another one, so links and `revision=` pins to older ones end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from guide_hub import record as records
from guide_hub.audit import CARD, RECORD, Audit, Weights, audit
from guide_hub.errors import ConflictError, GuideHubError, InputError, RefusedError
from guide_hub.hub import CHECKSUMS, WEIGHTS, explained, open_pulls, other_weights, preflight, read_file
from guide_hub.patience import all_of, patiently
from guide_hub.record.folder import parse_sums
from guide_hub.record.record import PriorRevisions

SQUASHED = "Erased model; older revisions were removed"
DELETED = "Delete weights that still show erased people"
RECORDED = "Record what became of older revisions"


@dataclass(frozen=True)
class Doomed:
    """A file in the LFS storage that is to go; `file` is one of its names."""

    sha256: str
    file: str
    size: int


@dataclass(frozen=True)
class Plan:
    """What a purge does, in this order, and what it can't.

    Attributes:
        delete_files: other weights at the tip of `main`, by one commit.
        squash: branches whose history becomes one commit, by what their tip holds.
        web: what only a person on the Hub's pages can remove, or nobody.
        warnings: what else changes.
        state: what the record would say if there were nothing to remove.
        unrecorded: why the outcome can't be written to the record, None where it can.
    """

    repo: str
    head: str
    delete_files: tuple[str, ...]
    delete_tags: tuple[str, ...]
    delete_branches: tuple[str, ...]
    squash: tuple[str, ...]
    delete_lfs: tuple[Doomed, ...]
    web: tuple[str, ...]
    warnings: tuple[str, ...]
    prior_revisions: str
    state: PriorRevisions
    unrecorded: str | None = None

    @property
    def removes(self) -> bool:
        return bool(
            self.delete_files or self.delete_tags or self.delete_branches or self.squash or self.delete_lfs
        )

    @property
    def records(self) -> bool:
        """Whether there is nothing to remove any more, but the record does not say so yet."""
        done = not self.removes and not self.web
        return done and self.prior_revisions != self.state and self.unrecorded is None

    def to_dict(self) -> dict[str, Any]:
        out = asdict(self)
        del out["repo"], out["head"], out["prior_revisions"], out["state"]
        return out


@dataclass(frozen=True)
class Outcome:
    """`after` is the audit that followed; `commit` the one that recorded it, None where nothing changed."""

    after: Audit
    prior_revisions: str
    commit: str | None


def make_plan(found: Audit) -> Plan:
    """What removes everything that an audit found. Changes nothing.

    Raises:
        InputError: the repository records no erasure, so there is nothing to tell weights apart by.
        RefusedError: `main` itself serves weights that were not erased.
    """
    if found.record_sha256 is None:
        raise InputError(
            f"{found.repo} has no erasure record on its main branch",
            remedy="erase first, and merge the pull request: guide-hub erase --repo " + found.repo,
        )
    places = [(weights, place) for weights in found.exposed for place in weights.places]
    if any(place.removal == "erase" for _, place in places):
        raise RefusedError(
            f"the {WEIGHTS} on the main branch of {found.repo} is not the one that its record is about",
            remedy="revert main to the erased model, or erase again",
        )

    def named(removal: str) -> tuple[str, ...]:
        refs = {place.ref.split("/", 2)[2] for _, place in places if place.removal == removal}
        return tuple(sorted(refs))

    at_tip = {name for _, p in places if p.removal == "delete_file" for name in p.at_tip}
    branches = named("delete_branch")
    squash = {*named("squash")} - {*branches}
    if at_tip or found.main_cut:
        squash.add("main")
    # An audit that did not see everything can't tell what it does not know from what a record vouches for.
    sure = [w for w in found.exposed if found.complete or (w.known and not _is_stored_alone(w))]
    doomed = [Doomed(w.sha256, w.files[0], w.size) for w in sure if w.sha256]
    kept = sum(w.sha256 is not None for w in found.exposed) - len(doomed)
    return Plan(
        repo=found.repo,
        head=found.head,
        delete_files=tuple(sorted(at_tip)),
        delete_tags=named("delete_tag"),
        delete_branches=branches,
        squash=tuple(sorted(squash, key=lambda name: (name == "main", name))),
        delete_lfs=tuple(doomed),
        web=tuple(_on_the_web(found)),
        warnings=tuple(_warnings(found, squash, kept, {*at_tip, *(d.file for d in doomed)})),
        prior_revisions=found.prior_revisions or "unknown",
        state=_state(found),
        unrecorded=_why_not(lambda: _recorded(found.repo, found.head, "purged")),
    )


def carry_out(plan: Plan, found: Audit, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """Does what the plan says, audits again and records the outcome. `tell` hears of every step.

    Raises:
        ConflictError: somebody pushed to `main`, or moved a branch or tag of the plan, since the audit.
        HubError: the repository, the token or the network; run it again, it goes on with what is left.
    """
    repo, head = plan.repo, plan.head
    if preflight(repo).sha != head:
        raise _moved(repo)
    known = {c for w in found.exposed for p in w.places for c in p.commits}
    tags = [f"refs/tags/{name}" for name in plan.delete_tags]
    branches = [f"refs/heads/{name}" for name in (*plan.delete_branches, *plan.squash) if name != "main"]
    with explained(repo):
        api = HfApi()
        _check_tips(api, found, *tags, *branches)
        if plan.delete_files:
            tell("deleting weights from main")
            head = api.create_commit(
                repo,
                [CommitOperationDelete(name) for name in plan.delete_files],
                commit_message=DELETED,
                parent_commit=head,
            ).oid
        for tag in plan.delete_tags:
            tell(f"deleting the tag {tag}")
            _check_tips(api, found, f"refs/tags/{tag}")
            _gone(api.delete_tag, repo, tag=tag)
        for branch in plan.delete_branches:
            tell(f"deleting the branch {branch}")
            _check_tips(api, found, f"refs/heads/{branch}")
            _gone(api.delete_branch, repo, branch=branch)
        for branch in plan.squash:
            tell(f"squashing {branch}")
            if branch != "main":
                _check_tips(api, found, f"refs/heads/{branch}")
            elif patiently(api.model_info, repo).sha != head:
                raise _moved(repo)
            _gone(api.super_squash_history, repo, branch=branch, commit_message=SQUASHED)
        if plan.delete_lfs:
            tell(f"deleting {len(plan.delete_lfs)} file(s) from the LFS storage")
            doomed = {d.sha256 for d in plan.delete_lfs}
            listed = [f for f in all_of(api.list_lfs_files, repo) if f.file_oid in doomed]
            patiently(api.permanently_delete_lfs_files, repo, listed, rewrite_history=True)
    tell("looking again")
    after = audit(repo, also=known)
    state = _state(after)
    commit = None if after.prior_revisions == state or plan.unrecorded else _record(after, state)
    if commit is not None:
        tell(f"recorded: older revisions {state}")
        after = audit(repo, also=known)
    return Outcome(after, after.prior_revisions or "unknown", commit)


def _state(after: Audit) -> PriorRevisions:
    if after.exposed:
        return "reachable"
    return "purged" if after.complete else "unknown"


def _is_stored_alone(weights: Weights) -> bool:
    return all(place.kind == "storage" for place in weights.places)


def _check_tips(api: HfApi, found: Audit, *refs: str) -> None:
    """ConflictError where one of these branches and tags is not where the audit saw it; gone is no error."""
    listed = patiently(api.list_repo_refs, found.repo)
    now = {r.ref: r.target_commit for r in (*listed.branches, *listed.tags)}
    if any(now.get(ref, found.tips[ref]) != found.tips[ref] for ref in refs):
        raise _moved(found.repo)


def _record(after: Audit, state: PriorRevisions) -> str:
    files = _recorded(after.repo, after.head, state)
    with explained(after.repo):
        additions = [CommitOperationAdd(name, data) for name, data in files.items()]
        return HfApi().create_commit(
            after.repo, additions, commit_message=RECORDED, parent_commit=after.head
        ).oid  # fmt: skip


def _recorded(repo: str, head: str, state: PriorRevisions) -> dict[str, bytes]:
    """Record, card and SHA256SUMS of a revision, saying what became of the older ones.

    InputError where card or sums are not those of the record.
    """
    old = {}
    for name in (RECORD, CARD, CHECKSUMS):
        found = read_file(repo, name, head)
        if found is None:
            raise InputError(f"{name} is missing")
        old[name] = found
    data = records.with_prior_revisions(old[RECORD], state)
    text = old[CARD].decode().replace("\r\n", "\n")
    card = records.rerender_card(text, records.parse_record(data))
    files = {RECORD: data, CARD: card.encode()}
    sums = parse_sums(old[CHECKSUMS]) | {name: records.sha256(content) for name, content in files.items()}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return {**files, CHECKSUMS: lines.encode()}


def _why_not(build: Callable[[], Any]) -> str | None:
    try:
        build()
    except (InputError, UnicodeDecodeError) as error:
        problem = error.problems[0].message if isinstance(error, GuideHubError) else "the card is not UTF-8"
        return problem
    return None


def _on_the_web(found: Audit) -> list[str]:
    how = {"pull_request": 'close the pull request, then "Delete ref" on its page'}
    refs = {(p.ref, p.kind) for w in found.exposed for p in w.places if p.removal == "web"}
    return [f"{ref}: {how.get(kind, 'ask the support of the Hub')}" for ref, kind in sorted(refs)]


def _warnings(found: Audit, squash: Collection[str], kept: int, doomed: Collection[str]) -> list[str]:
    """`kept`: files left in the LFS storage for want of proof; `doomed`: names of those that go."""
    out = []
    if kept:
        missed = "; ".join(found.unchecked)
        out.append(f"{kept} file(s) stay in the LFS storage, as not everything was looked at ({missed})")
    unsure = sorted(name for name in doomed if name != WEIGHTS and not other_weights([name]))
    if unsure:
        out.append(f"taken for weights by size alone, check them: {', '.join(unsure)}")
    if squash:
        names = ", ".join(sorted(squash))
        become = "becomes one new commit" if len(squash) == 1 else "become one new commit each"
        out.append(f"{names} {become}: links and pins to older commits end")
        with explained(found.repo):
            count = len(open_pulls(HfApi(), found.repo))
        if count:
            out.append(f"{count} open pull request(s) can no longer be merged")
    left = {p.ref for w in found.pointers for p in w.places}
    if left:
        out.append(f"names of deleted weights are left in {', '.join(sorted(left))}")
    if found.doi:
        out.append("the model has a DOI, which goes on naming what was removed")
    out.append("copies elsewhere stay: downloads, duplicates, derived models")
    return out


def _gone(delete: Callable[..., Any], repo: str, **what: str) -> None:
    """`delete(repo, ...)`; what is gone already is no error."""
    try:
        patiently(delete, repo, **what)
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise


def _moved(repo: str) -> ConflictError:
    return ConflictError(f"somebody pushed to {repo} since it was looked at", remedy="run again")
