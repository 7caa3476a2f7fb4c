"""What a repository still serves of the people who were erased from it, and what removes it.

Every branch, tag, pull-request ref and commit is looked at. No weights are downloaded: the Hub tells them
apart by the SHA-256 that it keeps of every LFS file, and erasure records tell what a SHA-256 still shows.
Records on branches and tags are believed, since it takes write access to put them there. A record on a pull
request, which anybody can open, speaks for the files of no other ref.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import GitRefInfo, LFSFileInfo, RepoFile

from guide_hub import record as records
from guide_hub.errors import GuideHubError, HubError, InputError
from guide_hub.hub import LARGE, WEIGHTS, explained, other_weights, read_file
from guide_hub.patience import all_of, patiently

MAIN = "refs/heads/main"
CARD = "README.md"
RECORD = records.record.FILE
MAX_TEXT = records.record.MAX_BYTES  # larger records and cards, which a stranger's request may hold, are none
MAX_REFS = 200
MAX_COMMITS = 500
MAX_DERIVED = 100

Identity = tuple[str, str]  # request id, identity id
Kind = Literal["branch", "tag", "pull_request", "convert", "commit", "storage"]
Removal = Literal["squash", "delete_branch", "delete_tag", "delete_file", "delete_lfs_file", "web", "erase"]
REMOVALS: dict[Kind, Removal] = {
    "branch": "delete_branch",
    "tag": "delete_tag",
    "pull_request": "web",
    "convert": "web",
    "commit": "delete_lfs_file",
    "storage": "delete_lfs_file",
}


@dataclass(frozen=True)
class Place:
    """Where a file can be had: `ref` leads to the `commits` that hold it, newest first.

    `at_tip`: its names at the ref's tip, none where only older commits have it.
    `kind` is "commit" for commits that no ref leads to, "storage" for LFS files that no known commit holds.
    `removal` is what takes it away there; where it is "web", only a person on the Hub's pages can.
    """

    kind: Kind
    ref: str
    at_tip: tuple[str, ...]
    commits: tuple[str, ...]
    removal: Removal


@dataclass(frozen=True)
class Weights:
    """One content, whatever its names, and the people of the record whom it still shows.

    `known`: a record says what it shows; without one it must be taken to show everybody. `sha256` is None for
    a file that is not in LFS. `stored`: whether the LFS storage lists it, None where that can't be asked.
    """

    files: tuple[str, ...]
    sha256: str | None
    size: int
    known: bool
    shows: tuple[Identity, ...]
    stored: bool | None
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Claim:
    """What the card or record at the tip of a branch or tag says and is not so."""

    ref: str
    commit: str
    message: str


@dataclass(frozen=True)
class Derived:
    """A public model that names this one as its base, and the identities that its own record does not."""

    repo: str
    has_record: bool | None
    missing: tuple[Identity, ...]


@dataclass
class Audit:
    """The answer. `status` is "exposed" for `exposed` or `claims`; the rest is told for what it is.

    Attributes:
        head: the commit of `main`.
        record_sha256: of the record on `main`, None where there is none: then nothing counts as erased.
        erasures: the identities that the record lists.
        pointers: weights that the LFS storage no longer has, though refs still name them.
        claimed: weights that only a record on their own pull request says to be erased.
        base: the repository that the record was made from, where it is another one and still serves the base.
        unchecked: what could not be looked at, in words.
        complete: False where refs, commits, the LFS storage or records on branches and tags were not seen.
        main_cut: whether commits of `main` were not looked at, being too many.
        tips: what branches and tags pointed to.
    """

    repo: str
    head: str
    private: bool
    doi: bool
    record_sha256: str | None = None
    prior_revisions: str | None = None
    erasures: list[Identity] = field(default_factory=list)
    exposed: list[Weights] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    pointers: list[Weights] = field(default_factory=list)
    claimed: list[Weights] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    base: dict[str, str] | None = None
    unchecked: list[str] = field(default_factory=list)
    complete: bool = True
    main_cut: bool = False
    tips: dict[str, str] = field(default_factory=dict)
    refs: int = 0
    commits: int = 0

    @property
    def status(self) -> Literal["clean", "exposed", "incomplete"]:
        if self.exposed or self.claims:
            return "exposed"
        return "clean" if self.complete else "incomplete"

    def miss(self, what: str) -> None:
        """Notes something without which nothing can be called clean."""
        self.complete = False
        self.unchecked.append(what)

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it: identities become {request_id, identity_id}, the lists keep their order."""
        out = asdict(self)
        del out["main_cut"], out["tips"]
        checked = {"refs": out.pop("refs"), "commits": out.pop("commits")}
        out["erasures"] = _named(self.erasures)
        for key in ("exposed", "pointers", "claimed"):
            for entry in out[key]:
                entry["shows"] = _named(entry["shows"])
        for entry in out["derived"]:
            entry["missing"] = _named(entry["missing"])
        return {"status": self.status, **out, "checked": checked}


def audit(repo: str, *, also: Iterable[str] = ()) -> Audit:
    """Looks at everything that `repo` serves; `also` are commits to try that no ref may lead to any more.

    Costs one request a ref, one a commit (at most MAX_COMMITS, the newest first, tips before the rest), one a
    derived model, and some more. Changes nothing.

    Raises:
        InputError: there are neither weights nor a record in it.
        HubError: the repository, the token or the network.
    """
    with explained(repo):
        looked = _Look(repo, also)
        found = looked.result()
    return found


@dataclass
class _Content:
    size: int
    sha256: str | None
    found: dict[str, set[str]] = field(default_factory=dict)  # commit -> names

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name for names in self.found.values() for name in names}))


class _Look:
    """One pass over a repository. `histories` holds the commits of each ref, newest first."""

    def __init__(self, repo: str, also: Iterable[str]):
        self.repo, self.api = repo, HfApi()
        info = patiently(self.api.model_info, repo)
        tags = info.tags or []
        doi = any(tag.startswith("doi:") for tag in tags)
        self.out = Audit(repo, info.sha or "", bool(info.private), doi)
        self.histories: dict[str, list[str]] = {}
        self.kinds: dict[str, Kind] = {}
        self.contents: dict[str, _Content] = {}
        self.texts: dict[str, dict[str, str]] = {}  # commit -> blob id of its record and card
        self.bytes: dict[str, bytes] = {}  # by blob id
        self._list_refs()
        self._look_at_commits()
        self._read_records()
        self._look_at_dangling({*also})
        self.stored = self._list_stored()

    # -- what is there -------------------------------------------------------------------------------------

    def _list_refs(self) -> None:
        listed = patiently(self.api.list_repo_refs, self.repo, include_pull_requests=True)
        groups: list[tuple[Kind, list[GitRefInfo]]] = [
            ("branch", sorted(listed.branches, key=lambda r: r.ref != MAIN)),
            ("tag", listed.tags),
            ("convert", listed.converts),
            ("pull_request", listed.pull_requests or []),
        ]
        refs = [(kind, ref) for kind, group in groups for ref in group]
        self.out.tips = {r.ref: r.target_commit for kind, r in refs if kind in ("branch", "tag")}
        if len(refs) > MAX_REFS:
            self.out.miss(f"{len(refs) - MAX_REFS} of {len(refs)} refs")
        for kind, ref in refs[:MAX_REFS]:
            try:
                commits = patiently(self.api.list_repo_commits, self.repo, revision=ref.ref)
            except HfHubHTTPError as error:
                if not _is_gone(error):
                    raise
                self.out.miss(f"{ref.ref}, which went away meanwhile")
                continue
            self.histories[ref.ref] = [c.commit_id for c in commits]
            self.kinds[ref.ref] = kind
        self.out.refs = len(self.histories)

    def _look_at_commits(self) -> None:
        tips = [commits[0] for commits in self.histories.values() if commits]
        rest = [commit for commits in self.histories.values() for commit in commits[1:]]
        wanted = list(dict.fromkeys([*tips, *rest]))
        if len(wanted) > MAX_COMMITS:
            self.out.miss(f"{len(wanted) - MAX_COMMITS} of {len(wanted)} commits")
            self.out.main_cut = not {*self.histories.get(MAIN, [])} <= {*wanted[:MAX_COMMITS]}
        for commit in wanted[:MAX_COMMITS]:
            if not self._look_at(commit):
                self.out.miss(f"commit {commit[:10]}, which went away meanwhile")
        self.out.commits = len(self.texts)

    def _look_at(self, commit: str) -> bool:
        """Notes the weights, record and card of a commit; False where the Hub has it no longer."""
        try:
            entries = all_of(self.api.list_repo_tree, self.repo, recursive=True, revision=commit)
        except HfHubHTTPError as error:
            if not _is_gone(error):
                raise
            return False
        files = {f.path: f for f in entries if isinstance(f, RepoFile)}
        texts = [files[name] for name in (RECORD, CARD) if name in files]
        self.texts[commit] = {f.path: f.blob_id for f in texts if f.size <= MAX_TEXT}
        large = {name for name, f in files.items() if f.lfs or f.size > LARGE}
        for name in [*other_weights(files, large), *([WEIGHTS] if WEIGHTS in files else [])]:
            file = files[name]
            sha256 = file.lfs.sha256 if file.lfs else None
            content = self.contents.setdefault(sha256 or file.blob_id, _Content(file.size, sha256))
            content.found.setdefault(commit, set()).add(name)
        return True

    def _look_at_dangling(self, also: set[str]) -> None:
        """Commits that records or the caller name and no ref leads to: the Hub may still have them."""
        own = f"hf://{self.repo}"
        bases = [records.parse_record(r)["predicate"]["base"] for r in self.trusted]
        named = {base["revision"] for base in bases if base["uri"] == own and base.get("revision")}
        for commit in sorted((also | named) - self.texts.keys()):
            self._look_at(commit)

    def _list_stored(self) -> dict[str, LFSFileInfo] | None:
        """The LFS storage by SHA-256, None where it can't be asked or is not to be relied on."""
        try:
            files = all_of(self.api.list_lfs_files, self.repo)
        except HfHubHTTPError as error:
            if error.response.status_code not in (401, 403, 404):
                raise
            self.out.miss("the LFS storage, whose list takes a token with write access")
            return None
        stored = {f.file_oid: f for f in files}
        at_tip = [c for c in self.contents.values() if c.sha256 and self.out.head in c.found]
        if any(c.sha256 not in stored for c in at_tip):  # what main serves is stored, whatever the list says
            self.out.miss("the LFS storage, whose list is not complete")
            return None
        return stored

    # -- what records say ----------------------------------------------------------------------------------

    def _blob(self, commit: str, name: str) -> bytes | None:
        """A card or record, read once for each content."""
        blob = self.texts.get(commit, {}).get(name)
        if blob is not None and blob not in self.bytes:
            try:
                self.bytes[blob] = read_file(self.repo, name, commit) or b""
            except HubError as error:
                if not isinstance(error.__cause__, RevisionNotFoundError):
                    raise
                self.bytes[blob] = b""  # the commit went away meanwhile: no record, and no card
        return None if blob is None else self.bytes[blob]

    def _read_records(self) -> None:
        """`trusted`: every record on branches and tags; `hearsay`: those on pull requests alone, by ref."""
        self.trusted: list[bytes] = []
        self.hearsay: dict[str, list[bytes]] = {}
        damaged: set[bytes] = set()
        for ref, commits in self.histories.items():
            believed = self.kinds[ref] in ("branch", "tag")
            kept = self.trusted if believed else self.hearsay.setdefault(ref, [])
            for commit in commits:
                data = self._blob(commit, RECORD)
                if data is None or data in self.trusted or data in kept:
                    continue
                try:
                    records.parse_record(data)
                except InputError:
                    damaged |= {data} if believed else set()  # a stranger's changes nothing
                    continue
                kept.append(data)
        if damaged:
            self.out.miss(f"{len(damaged)} record(s) in the history that are none")
        data = self._blob(self.out.head, RECORD)
        if data is not None and data in self.trusted:
            record = records.parse_record(data)
            self.out.record_sha256 = records.sha256(data)
            self.out.prior_revisions = record["predicate"]["priorRevisions"]
            self.out.erasures = [(e["requestId"], e["identityId"]) for e in record["predicate"]["erasures"]]

    def _erased_in(self, found: list[bytes]) -> dict[str, set[Identity]]:
        """Who is erased in weights, by their SHA-256, as far as records say; the fewer where they differ."""
        parsed = [records.parse_record(data) for data in found]
        pairs = zip(found, parsed, strict=True)
        by_digest = {digest: record for data, record in pairs for digest in records.amended_digests(data)}
        said: dict[str, set[Identity]] = {}

        def note(sha256: str, ids: set[Identity]) -> None:
            said[sha256] = said[sha256] & ids if sha256 in said else ids

        for record in parsed:
            for entry in record["subject"]:
                if entry["name"] == WEIGHTS:
                    note(entry["digest"]["sha256"], _erased(record))
        for record in parsed:
            base, link = record["predicate"]["base"], record["predicate"].get("previousRecord")
            previous = by_digest.get(link["digest"]["sha256"]) if link else None
            if link and previous is None:
                previous = _record_of(base, link["digest"]["sha256"])
            if previous is not None:
                note(base["digest"]["sha256"], _erased(previous))
            elif link is None or base["digest"]["sha256"] not in said:
                note(base["digest"]["sha256"], set())
        return said

    # -- the answer ----------------------------------------------------------------------------------------

    def result(self) -> Audit:
        out = self.out
        if not self.contents and out.record_sha256 is None:
            raise InputError(
                f"{self.repo} holds neither weights nor an erasure record",
                remedy="check the repository's name",
            )
        trusted = self._erased_in(self.trusted)
        heard = {ref: self._erased_in(found) for ref, found in self.hearsay.items() if found}
        everybody = {*out.erasures}
        for key, content in sorted(self.contents.items(), key=lambda item: item[1].names):
            places = tuple(self._places(content))
            gone = self.stored is not None and content.sha256 is not None and key not in self.stored
            shows = everybody - trusted[key] if key in trusted else None
            if key in trusted and out.record_sha256 is not None and not shows:
                continue
            entry = self._weights(key, content, shows, everybody, places)
            told = [heard.get(p.ref, {}).get(key) for p in places if p.kind == "pull_request"]
            vouched = len(told) == len(places) and all(ids is not None and everybody <= ids for ids in told)
            if gone:
                out.pointers.append(entry)
            elif shows is None and vouched:
                out.claimed.append(entry)
            else:
                out.exposed.append(entry)
        for sha256, file in (self.stored or {}).items():
            name = file.filename
            if sha256 in self.contents or not (name == WEIGHTS or other_weights([name], [name])):
                continue
            shows = everybody - trusted[sha256] if sha256 in trusted else None
            if shows is None or shows:
                content = _Content(file.size, sha256, {"": {file.filename}})
                place = Place("storage", "", (), (), REMOVALS["storage"])
                out.exposed.append(self._weights(sha256, content, shows, everybody, (place,)))
        self._check_claims()
        self._find_derived(everybody)
        self._look_at_base()
        return out

    def _weights(
        self,
        key: str,
        content: _Content,
        shows: set[Identity] | None,
        everybody: set[Identity],
        places: tuple[Place, ...],
    ) -> Weights:
        people = everybody if shows is None else shows
        stored = None if self.stored is None or content.sha256 is None else key in self.stored
        return Weights(
            content.names,
            content.sha256,
            content.size,
            shows is not None,
            tuple(i for i in self.out.erasures if i in people),
            stored,
            places,
        )

    def _places(self, content: _Content) -> Iterable[Place]:
        reached: set[str] = set()
        for ref, commits in self.histories.items():
            holding = tuple(c for c in commits if c in content.found)
            reached |= {*holding}
            if holding:
                at_tip = tuple(sorted(content.found.get(commits[0], ())))
                yield Place(self.kinds[ref], ref, at_tip, holding, self._removal(ref, at_tip))
        for commit in sorted(content.found.keys() - reached):
            yield Place("commit", "", (), (commit,), REMOVALS["commit"])

    def _removal(self, ref: str, at_tip: tuple[str, ...]) -> Removal:
        if self.kinds[ref] == "branch" and not at_tip:
            return "squash"
        if ref != MAIN:
            return REMOVALS[self.kinds[ref]]
        return "erase" if WEIGHTS in at_tip else "delete_file"

    def _check_claims(self) -> None:
        """Cards against the record beside them, at the tips of branches and tags."""
        for ref, commits in self.histories.items():
            if self.kinds[ref] not in ("branch", "tag") or not commits or commits[0] not in self.texts:
                continue
            card, record = self._blob(commits[0], CARD), self._blob(commits[0], RECORD)
            for message in _false_claims(card, record, self.out.unchecked):
                self.out.claims.append(Claim(ref, commits[0], message))
        if self.out.prior_revisions == "purged" and self.out.exposed:
            message = "the record says that older revisions were removed, and some are not"
            self.out.claims.append(Claim(MAIN, self.out.head, message))

    def _find_derived(self, everybody: set[Identity]) -> None:
        try:
            listed = all_of(self.api.list_models, filter=f"base_model:{self.repo}", limit=MAX_DERIVED + 1)
        except HfHubHTTPError:
            self.out.unchecked.append("the models that derive from it")
            return
        if len(listed) > MAX_DERIVED:
            self.out.unchecked.append(f"derived models after the first {MAX_DERIVED}")
        for model in listed[:MAX_DERIVED]:
            if model.id == self.repo:
                continue
            named: set[Identity] = set()
            has_record: bool | None = False
            try:
                data = read_file(model.id, RECORD, None)
                if data is not None:
                    named, has_record = _erased(records.parse_record(data)), True
            except GuideHubError:  # gated, gone meanwhile, or not a record
                has_record = None
            missing = tuple(i for i in self.out.erasures if i in everybody - named)
            self.out.derived.append(Derived(model.id, has_record, missing))

    def _look_at_base(self) -> None:
        """Whether the model that was erased from, in another repository, is still served there."""
        data = self._blob(self.out.head, RECORD)
        if data is None or self.out.record_sha256 is None:
            return
        base = records.parse_record(data)["predicate"]["base"]
        repo = base["uri"].removeprefix("hf://")
        if repo == base["uri"] or repo == self.repo:
            return
        try:
            files = patiently(self.api.get_paths_info, repo, [WEIGHTS], revision=base["revision"])
        except HfHubHTTPError:
            return
        if any(isinstance(f, RepoFile) and f.lfs and f.lfs.sha256 == base["digest"]["sha256"] for f in files):
            self.out.base = {"repo": repo, "revision": base["revision"]}


def _is_gone(error: HfHubHTTPError) -> bool:
    """Whether a ref or commit is no longer there, and not the whole repository."""
    return error.response.status_code == 404 and not isinstance(error, RepositoryNotFoundError)


def _erased(record: records.Record) -> set[Identity]:
    """The identities that a record lists and does not call a failure."""
    listed = record["predicate"]["erasures"]
    return {(e["requestId"], e["identityId"]) for e in listed if e["result"] != "FAILED"}


def _record_of(base: dict[str, Any], digest: str) -> records.Record | None:
    """The record in a base model on the Hub, if it can be had and is the one of that digest."""
    if not base["uri"].startswith("hf://"):
        return None
    try:
        data = read_file(base["uri"].removeprefix("hf://"), RECORD, base.get("revision"))
        if data is not None and digest in records.amended_digests(data):
            return records.parse_record(data)
    except GuideHubError:
        pass
    return None


def _false_claims(card: bytes | None, record: bytes | None, unchecked: list[str]) -> list[str]:
    """Adds to `unchecked` a card that can't be compared with its record."""
    text = (card or b"").decode("utf-8", "replace")
    tags = records.front_matter(text).get("tags")
    claims = isinstance(tags, list) and "guide-hub" in tags
    if record is None:
        return ["the card is tagged as guide-hub's, and there is no record"] if claims else []
    try:
        statement = records.parse_record(record)
    except InputError:
        return ["erasure_record.json is not an erasure record"]
    if card is None:
        return ["there is a record and no card"]
    if other := records.other_words(text, statement):
        unchecked.append(f"a card, which {other}")
        return []
    try:
        faults = records.card_faults(text, statement)
        return [f"the card's {part} is not what the record says" for part in faults]
    except InputError:
        return ["there is a record, and the card is not the one that guide-hub wrote from it"]


def _named(identities: Iterable[Identity]) -> list[dict[str, str]]:
    return [{"request_id": request, "identity_id": identity} for request, identity in identities]
