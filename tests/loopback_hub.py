"""A small Hugging Face Hub in memory, on 127.0.0.1, that the real `huggingface_hub` client talks to.

It keeps real commits: files by content, `refs/heads/main`, tags, and pull requests on `refs/pr/N` that reach
`main` only when they are merged. It knows who asks (`TOKENS`), fails on demand (`LoopbackHub.trouble`), and
keeps every byte that clients send, so that tests can look for what must never leave the machine.

    server = LoopbackHub()          # takes a free port at once; set HF_ENDPOINT to server.endpoint
    server.start()
    server.create_repo("org/eg3d", {"config.json": b"{}"})
    server.stop()

Where the real Hub's behaviour is not documented, this one takes the less convenient side: LFS files stay
stored after a squash, a permanent deletion rewrites branches and tags, pull-request refs keep their pointers.

Plain LFS only: set HF_HUB_DISABLE_XET=1, like HF_ENDPOINT before huggingface_hub is imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep  # by name: tests that replace time.sleep mean the client's waits
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import yaml

MAIN = "refs/heads/main"
LFS_SUFFIXES = (".safetensors", ".pkl", ".pt", ".bin", ".npz", ".png")
LFS_SIZE = 10 * 2**20


@dataclass(frozen=True)
class User:
    """Who a token belongs to. `role`: read, write, fineGrained with what it was granted, or a CI job's oidc.

    `repos`: the only repositories that the token is for; None for all that its user has.
    """

    name: str
    role: str
    orgs: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    repos: tuple[str, ...] | None = None

    def owns(self, repo: Repo) -> bool:
        if self.repos is not None:
            return repo.id in self.repos
        return repo.id.split("/")[0] in (self.name, *self.orgs)

    def may_write(self, repo: Repo) -> bool:
        """Whether the token can write at all, to this repository; a pull request takes no more."""
        if self.repos is not None and repo.id not in self.repos:
            return False
        return self.role == "write" or any("write" in permission for permission in self.granted)


TOKENS = {
    "hf_writeTokenOfMaintainer": User("maintainer", "write", ("org",)),
    "hf_readTokenOfMaintainer": User("maintainer", "read", ("org",)),
    "hf_scopedTokenOfMaintainer": User("maintainer", "fineGrained", ("org",), ("repo.write",)),
    "hf_scopedReadOfMaintainer": User("maintainer", "fineGrained", ("org",), ("repo.content.read",)),
    "hf_writeTokenOfStranger": User("stranger", "write"),
    "hf_repoTokenOfMaintainer": User("maintainer", "fineGrained", ("org",), ("repo.write",), ("org/eg3d",)),
    "hf_jobTokenOfPublisher": User("org-publisher", "oidc", (), ("repo.write",), ("org/eg3d",)),
}
WRITE_TOKEN, READ_TOKEN, SCOPED_TOKEN, SCOPED_READ_TOKEN, STRANGER_TOKEN, REPO_TOKEN, JOB_TOKEN = TOKENS


@dataclass(frozen=True)
class File:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        )
        return text.encode()

    @property
    def blob_id(self) -> str:
        """Git's name for what git itself stores: the content, or the pointer to it."""
        stored = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    files: dict[str, File]
    title: str
    description: str
    author: str
    date: str


@dataclass
class PullRequest:
    num: int
    title: str
    description: str
    author: str
    created: str
    status: str = "open"


@dataclass
class Repo:
    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)  # LFS files ever committed, by SHA-256
    gone: set[str] = field(default_factory=set)  # LFS files that were permanently deleted
    tags: list[str] = field(default_factory=list)

    def commit(self, ref: str, files: dict[str, File], title: str, description: str, author: str) -> Commit:
        parent = self.refs.get(ref)
        content = [
            self.id,
            ref,
            parent,
            title,
            len(self.commits),
            sorted((p, f.blob_id) for p, f in files.items()),
        ]
        oid = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, dict(files), title, description, author, _now())
        self.refs[ref] = oid
        for path, file in files.items():
            if file.lfs and file.sha256 not in self.gone:
                entry = {"fileOid": file.sha256, "filename": path, "oid": file.sha256, "pushedAt": _now()}
                self.stored.setdefault(file.sha256, {**entry, "size": len(file.data)})
        return self.commits[oid]

    def history(self, oid: str | None) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        found = []
        while oid in self.commits:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found

    def prune(self) -> None:
        """Commits that no ref leads to are gone."""
        kept = {c.oid for oid in self.refs.values() for c in self.history(oid)}
        self.commits = {oid: c for oid, c in self.commits.items() if oid in kept}

    def rewrite(self, doomed: set[str]) -> None:
        """Take LFS files out of all branches and tags, which become other commits from there on."""
        new: dict[str | None, str | None] = {None: None}
        for ref in [r for r in self.refs if r.startswith(("refs/heads/", "refs/tags/"))]:
            for c in reversed(self.history(self.refs[ref])):
                files = {p: f for p, f in c.files.items() if not (f.lfs and f.sha256 in doomed)}
                if c.oid not in new and files == c.files and new.get(c.parent, c.parent) == c.parent:
                    new[c.oid] = c.oid
                elif c.oid not in new:
                    oid = hashlib.sha1(f"{c.oid} rewritten".encode()).hexdigest()
                    parent = new.get(c.parent, c.parent)
                    self.commits[oid] = replace(c, oid=oid, parent=parent, files=files)
                    new[c.oid] = oid
            self.refs[ref] = new[self.refs[ref]] or ""

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, ref, commit id or its first digits names."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        found = [c for oid, c in self.commits.items() if len(revision) >= 7 and oid.startswith(revision)]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def raw(self) -> bytes:
        head = "\n".join([f"{self.method} {self.path}", *(f"{k}: {v}" for k, v in self.headers.items())])
        return head.encode() + b"\n\n" + self.body


@dataclass
class Trouble:
    """What goes wrong with the next `times` requests of a kind.

    status: they get this answer, with `headers`, and nothing is done. cut_after: the connection breaks after
    so many bytes of their body. lost: they are done, but no answer comes. slow: seconds in mid-answer. act:
    what happens right before, such as somebody else's commit. then: what happens after it is done and
    before the answer, such as the client's death.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    lost: bool = False
    slow: float = 0.0
    act: Callable[[], Any] | None = None
    then: Callable[[], Any] | None = None
    times: int = 1


class HubFault(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: str):
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


class LoopbackHub:
    """The server and, for tests, the maintainer's view of it.

    Attributes:
        wire: every request since `reset`, bodies included.
        before_commit: called once, right before the next commit is looked at: the place for a race.
        page: how many entries a listing gives at a time.
        keeps_dangling: whether commits that no ref leads to can still be had by their id.
    """

    def __init__(self) -> None:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread: threading.Thread | None = None
        self.lock = threading.RLock()
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.storage = (
            f"http://localhost:{self._http.server_port}"  # another host, as the Hub's file storage is
        )
        self.reset()

    def reset(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.wire: list[Request] = []
        self.before_commit: Callable[[], Any] | None = None
        self.troubles: list[Trouble] = []
        self.page = 1000
        self.keeps_dangling = False

    def trouble(self, method: str, path: str, **what: Any) -> Trouble:
        """From now on, requests of this method whose path matches the pattern run into `what`."""
        self.troubles.append(Trouble(method, path, **what))
        return self.troubles[-1]

    def next_trouble(self, method: str, path: str) -> Trouble | None:
        with self.lock:
            for trouble in self.troubles:
                if trouble.times and trouble.method == method and re.search(trouble.path, path):
                    trouble.times -= 1
                    return trouble
        return None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
            self._thread = None
        self._http.server_close()

    # -- what tests do without a client --------------------------------------------------------------------

    def create_repo(self, repo: str, files: dict[str, bytes] | None = None, **kind: bool) -> str:
        """A new repository with one commit; gives that commit's id. `kind`: private=True, gated=True."""
        self.repos[repo] = Repo(repo, **kind)
        return self.commit(repo, files or {}, "initial commit")

    def commit(self, repo: str, files: dict[str, bytes], title: str = "a commit", ref: str = MAIN) -> str:
        """Add or replace files on `ref` as somebody else would; gives the commit's id."""
        with self.lock:
            r = self.repos[repo]
            tip = r.commits[r.refs[ref]].files if ref in r.refs else {}
            new = {path: File(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
            return r.commit(ref, {**tip, **new}, title, "", "somebody").oid

    def pull_request(self, repo: str, files: dict[str, bytes], title: str, author: str = "maintainer") -> int:
        """Open a pull request with one commit on top of `main`; gives its number."""
        with self.lock:
            r = self.repos[repo]
            num = len(r.pulls) + 1
            r.pulls.append(PullRequest(num, title, "", author, _now()))
            r.refs[f"refs/pr/{num}"] = r.refs[MAIN]
        self.commit(repo, files, title, f"refs/pr/{num}")
        return num

    def tag(self, repo: str, name: str, revision: str = MAIN) -> None:
        self.repos[repo].refs[f"refs/tags/{name}"] = self._commit_at(self.repos[repo], revision).oid

    def head(self, repo: str, revision: str = MAIN) -> str:
        return self._commit_at(self.repos[repo], revision).oid

    def log(self, repo: str, revision: str = MAIN) -> list[Commit]:
        """The commits of `revision`, newest first."""
        return self.repos[repo].history(self.head(repo, revision))

    def files(self, repo: str, revision: str = MAIN) -> dict[str, bytes]:
        """What a revision holds and the Hub still has."""
        r = self.repos[repo]
        files = self._commit_at(r, revision).files
        return {path: f.data for path, f in files.items() if not (f.lfs and f.sha256 in r.gone)}

    def delete_pr_ref(self, repo: str, num: int) -> None:
        """What only the web page of a closed or merged pull request can do."""
        with self.lock:
            del self.repos[repo].refs[f"refs/pr/{num}"]
            self.prune(self.repos[repo])

    def prune(self, repo: Repo) -> None:
        if not self.keeps_dangling:
            repo.prune()

    def merge(self, repo: str, num: int) -> str:
        """Bring a pull request to `main`, as its merge button does."""
        with self.lock:
            r, pull = self.repos[repo], self.repos[repo].pulls[num - 1]
            tip = r.commits[r.refs[f"refs/pr/{num}"]]
            base = r.commits[tip.parent or ""].files
            main = r.commits[r.refs[MAIN]].files
            changed = {path for path in {*base, *tip.files} if base.get(path) != tip.files.get(path)}
            if any(main.get(path) != base.get(path) for path in changed):
                raise HubFault(409, "Merge conflicts")
            merged = {p: f for p, f in {**main, **tip.files}.items() if p not in changed or p in tip.files}
            pull.status = "merged"
            return r.commit(MAIN, merged, pull.title, pull.description, pull.author).oid

    def sent(self) -> bytes:
        """All that clients have sent, as one piece to search; base64 file contents are there in clear too."""
        contents = [
            base64.b64decode(content)
            for request in self.wire
            for content in re.findall(rb'"content": ?"([A-Za-z0-9+/=]+)"', request.body)
        ]
        return b"\n".join([*(request.raw for request in self.wire), *contents])

    def requests(self, method: str, pattern: str) -> list[Request]:
        return [r for r in self.wire if r.method == method and re.search(pattern, r.path)]

    # -- access --------------------------------------------------------------------------------------------

    def user(self, authorization: str | None) -> User | None:
        if not authorization:
            return None
        user = TOKENS.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise HubFault(401, "Invalid credentials in Authorization header")
        return user

    def readable(self, name: str, user: User | None, *, files: bool = False) -> Repo:
        """The repository, if this user may know of it and, with `files`, may have what is in it."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and not (user and user.owns(repo))):
            raise HubFault(404 if user else 401, "Repository not found", "RepoNotFound" if user else None)
        if files and repo.gated and not (user and user.owns(repo)):
            raise HubFault(403 if user else 401, f"Access to model {name} is restricted", "GatedRepo")
        return repo

    @staticmethod
    def check_writable(repo: Repo, user: User | None) -> User:
        if user is None:
            raise HubFault(401, "Invalid username or password.")
        if not user.may_write(repo) or not user.owns(repo):
            raise HubFault(403, "Forbidden: this token has no write access to this repository")
        return user

    @staticmethod
    def _commit_at(repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise HubFault(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


# ----------------------------------------------------------------------------------------------------------
# HTTP: one method per endpoint. The table below the class says which path leads where.


class _Handler(BaseHTTPRequestHandler):
    server_hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the client's acknowledgement

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        self.hub = self.server_hub
        trouble = self.hub.next_trouble(self.command, self.path) or Trouble("", "")
        self.lost, self.slow, self.then = trouble.lost, trouble.slow, trouble.then
        cut = trouble.cut_after
        self.body = b"" if cut is None else self.rfile.read(cut)
        whole = cut is None and self._read_body()
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.hub.lock:
            self.hub.wire.append(Request(self.command, self.path, dict(self.headers.items()), self.body))
            if not whole:
                self._hang_up()
                return
            if trouble.act:
                trouble.act()
            try:
                if trouble.status:
                    self.reply({"error": "out of order"}, trouble.headers, status=trouble.status)
                    return
                self.user = self.hub.user(self.headers.get("Authorization"))
                for method, pattern, endpoint in ROUTES:
                    match = pattern.fullmatch(unquote(url.path))
                    if match and self.command in method:
                        endpoint(self, **match.groupdict())
                        return
                raise HubFault(404, f"no such endpoint: {self.command} {url.path}")
            except HubFault as fault:
                headers = {
                    "X-Error-Message": fault.message,
                    **({"X-Error-Code": fault.code} if fault.code else {}),
                }
                self.reply({"error": fault.message, **fault.more}, headers, status=fault.status)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):  # the client may be gone
            self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that died between two requests
            super().handle()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _read_body(self) -> bool:
        """Whether the whole body came; a client that dies on the way leaves its first part."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            with suppress(OSError):
                self.body = self.rfile.read(length)
            return len(self.body) == length
        try:
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        except (OSError, ValueError):
            return False
        return True

    def reply(self, content: Any = b"", headers: dict[str, str] | None = None, status: int = 200) -> None:
        if self.then:
            self.then()
        if self.lost:
            self._hang_up()
            return
        is_json = not isinstance(content, bytes)
        data = json.dumps(content).encode() if is_json else content
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "application/octet-stream")
        for name, value in {
            "Content-Length": str(len(data)),
            "X-Request-Id": "loopback",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if self.slow:
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                sleep(self.slow)
                data = data[len(data) // 2 :]
            self.wfile.write(data)
        except OSError:  # the client had enough
            self.close_connection = True

    def reply_page(self, items: list[Any]) -> None:
        """One page of a listing; a Link header leads to the next."""
        start = int(self.query.get("cursor", 0))
        end = start + min(self.hub.page, int(self.query.get("limit", self.hub.page)))
        headers = {}
        if end < len(items):
            here = urlsplit(self.path)
            query = urlencode([*((k, v) for k, v in parse_qsl(here.query) if k != "cursor"), ("cursor", end)])
            headers["Link"] = f'<{self.hub.endpoint}{here.path}?{query}>; rel="next"'
        self.reply(items[start:end], headers)

    def json(self) -> Any:
        return json.loads(self.body)

    # -- accounts and repositories -------------------------------------------------------------------------

    def whoami(self) -> None:
        if self.user is None or self.user.role == "oidc":
            raise HubFault(401, "Invalid username or password.")
        token: dict[str, Any] = {"displayName": "test", "role": self.user.role}
        if self.user.role == "fineGrained":
            entities = [{"type": "model", "name": name} for name in self.user.repos or ()]
            scopes = [
                {"entity": entity, "permissions": list(self.user.granted)}
                for entity in entities or [{"type": "org", "name": "org"}]
            ]
            token["fineGrained"] = {"global": [], "scoped": scopes}
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in self.user.orgs]
        auth = {"type": "access_token", "accessToken": token}
        self.reply({"type": "user", "name": self.user.name, "orgs": orgs, "auth": auth})

    def create(self) -> None:
        ask = self.json()
        if self.user is None:
            raise HubFault(401, "Invalid username or password.")
        name = f"{ask.get('organization') or self.user.name}/{ask['name']}"
        if name in self.hub.repos:
            raise HubFault(409, "You already created this model repo", url=f"{self.hub.endpoint}/{name}")
        repo = Repo(name, private=ask.get("visibility") == "private" or bool(ask.get("private")))
        self.hub.check_writable(repo, self.user)
        repo.commit(MAIN, {".gitattributes": File(b"", False)}, "initial commit", "", self.user.name)
        self.hub.repos[name] = repo
        self.reply({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def validate_yaml(self) -> None:
        front = re.match(r"---\r?\n(.*?)\r?\n---", self.json()["content"], re.DOTALL)
        try:
            valid = isinstance(yaml.safe_load(front[1]) if front else {}, dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "the metadata is not a YAML mapping"}]
        self.reply({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def auth_check(self, repo: str, write: str | None) -> None:
        found = self.hub.readable(repo, self.user, files=True)
        if write:
            self.hub.check_writable(found, self.user)
        self.reply({})

    def list_models(self) -> None:
        """Models whose card says `base_model: X` or has X in its list, for filter=base_model:X."""
        base = self.query.get("filter", "").removeprefix("base_model:")
        found = []
        for repo in self.hub.repos.values():
            card = repo.commits[repo.refs[MAIN]].files.get("README.md")
            front = re.match(r"---\n(.*?)\n---", card.data.decode(), re.DOTALL) if card else None
            named = (yaml.safe_load(front[1]) or {}).get("base_model") if front else None
            if not repo.private and base in (named if isinstance(named, list) else [named]):
                found.append({"id": repo.id, "modelId": repo.id, "private": False, "tags": []})
        self.reply_page(found)

    # -- reading -------------------------------------------------------------------------------------------

    def model_info(self, repo: str, revision: str | None = None) -> None:
        found = self.hub.readable(repo, self.user)
        commit = self.hub._commit_at(found, revision or MAIN)
        siblings = []
        for entry in _entries(commit):
            sibling = {"rfilename": entry["path"]}
            if self.query.get("blobs"):
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if "lfs" in entry:
                    sibling["lfs"] = {**entry["lfs"], "sha256": entry["lfs"]["oid"]}
            siblings.append(sibling)
        self.reply(
            {
                "_id": "0",
                "id": found.id,
                "modelId": found.id,
                "author": found.id.split("/")[0],
                "sha": commit.oid,
                "lastModified": commit.date,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "disabled": False,
                "tags": found.tags,
                "siblings": siblings,
            }
        )

    def tree(self, repo: str, revision: str, under: str | None = None) -> None:
        found = self.hub.readable(repo, self.user, files=True)
        entries = _entries(self.hub._commit_at(found, revision))
        self.reply_page([e for e in entries if not under or e["path"].startswith(under.strip("/") + "/")])

    def paths_info(self, repo: str, revision: str) -> None:
        found = self.hub.readable(repo, self.user, files=True)
        wanted = parse_qs(self.body.decode())["paths"]
        self.reply([e for e in _entries(self.hub._commit_at(found, revision)) if e["path"] in wanted])

    def commits(self, repo: str, revision: str) -> None:
        found = self.hub.readable(repo, self.user)
        commits = self.hub.log(repo, self.hub._commit_at(found, revision).oid)
        self.reply_page(
            [
                {
                    "id": c.oid,
                    "title": c.title,
                    "message": c.description,
                    "date": c.date,
                    "authors": [{"user": c.author}],
                }
                for c in commits
            ]
        )

    def refs(self, repo: str) -> None:
        found = self.hub.readable(repo, self.user)

        def under(prefix: str, *, full: bool = False) -> list[dict[str, str]]:
            return [
                {"name": ref if full else ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                for ref, oid in found.refs.items()
                if ref.startswith(prefix)
            ]

        branches, tags, pulls = under("refs/heads/"), under("refs/tags/"), under("refs/pr/", full=True)
        self.reply({"branches": branches, "converts": [], "tags": tags, "pullRequests": pulls})

    def download(self, repo: str, revision: str, path: str) -> None:
        found = self.hub.readable(repo, self.user, files=True)
        commit = self.hub._commit_at(found, revision)
        headers = {"X-Repo-Commit": commit.oid}
        file = commit.files.get(path)
        if file is None:
            self.reply(
                {}, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, 404
            )
        elif file.lfs and file.sha256 in found.gone:
            raise HubFault(404, "the file's content was deleted", "EntryNotFound")
        elif file.lfs:  # the content lies elsewhere; the first answer says where, how long it is and its hash
            self.hub.lfs[file.sha256] = file.data
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
            headers |= {"ETag": f'"{file.blob_id}"', "Location": f"{self.hub.storage}/_lfs/{file.sha256}"}
            self.reply(b"", headers, 302)
        else:
            self.reply(file.data, {**headers, "ETag": f'"{file.blob_id}"'})

    def lfs_download(self, sha256: str) -> None:
        if sha256 not in self.hub.lfs:
            raise HubFault(404, "no such LFS object")
        self.reply(self.hub.lfs[sha256], {"ETag": f'"{sha256}"'})

    # -- writing -------------------------------------------------------------------------------------------

    def preupload(self, repo: str, revision: str) -> None:
        tip = self.hub._commit_at(self.hub.readable(repo, self.user), revision).files
        ask = self.json()
        ignore_file = tip[".gitignore"].data.decode() if ".gitignore" in tip else ""
        ignored = [
            line for line in ask.get("gitIgnore", ignore_file).splitlines() if not line.startswith("#")
        ]
        answer = []
        for file in ask["files"]:
            path = file["path"]
            is_lfs = file["size"] >= LFS_SIZE or path.endswith(LFS_SUFFIXES)
            mode = {"path": path, "uploadMode": "lfs" if is_lfs else "regular"}
            mode["shouldIgnore"] = any(path.endswith(line.removeprefix("*")) for line in ignored)
            if path in tip:
                mode["oid"] = tip[path].sha256 if tip[path].lfs else tip[path].blob_id
            answer.append(mode)
        self.reply({"files": answer})

    def lfs_batch(self, repo: str) -> None:
        found = self.hub.readable(repo, self.user)
        if self.user is None or not self.user.may_write(found):
            raise HubFault(403, "Forbidden: this token has no write access")
        objects = []
        for ask in self.json()["objects"]:
            known = {"oid": ask["oid"], "size": ask["size"]}
            if ask["oid"] not in self.hub.lfs:
                known["actions"] = {"upload": {"href": f"{self.hub.storage}/_lfs/{ask['oid']}", "header": {}}}
            objects.append(known)
        self.reply({"transfer": "basic", "objects": objects})

    def lfs_upload(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise HubFault(400, "the content does not have that SHA-256")
        self.hub.lfs[sha256] = self.body
        self.reply()

    def make_commit(self, repo: str, revision: str) -> None:
        if self.hub.before_commit:
            race, self.hub.before_commit = self.hub.before_commit, None
            race()
        found = self.hub.readable(repo, self.user)
        pull = bool(self.query.get("create_pr"))
        if pull and (self.user is None or not self.user.may_write(found)):
            raise HubFault(403, "Forbidden: this token has no write access")
        author = self.user if pull else self.hub.check_writable(found, self.user)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        head, parent = lines[0]["value"], self.hub._commit_at(found, revision)
        if head.get("parentCommit") and pull:
            parent = self.hub._commit_at(found, head["parentCommit"])
        elif head.get("parentCommit") and head["parentCommit"] != parent.oid:
            raise HubFault(412, "A commit has happened since. Please refresh and try again.")

        files = self._apply(found, lines[1:], parent.files)
        title, description = head["summary"], head.get("description", "")
        ref, answer = f"refs/heads/{revision}", {}
        if pull:
            num = len(found.pulls) + 1
            found.pulls.append(PullRequest(num, title, description, author.name, _now()))
            ref = f"refs/pr/{num}"
            found.refs[ref] = parent.oid
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo}/discussions/{num}"
        oid = found.commit(ref, files, title, description, author.name).oid
        url = f"{self.hub.endpoint}/{repo}/commit/{oid}"
        self.reply({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", **answer})

    def _apply(self, found: Repo, changes: list[dict[str, Any]], before: dict[str, File]) -> dict[str, File]:
        files = dict(before)
        for change in changes:
            value = change["value"]
            match change["key"]:
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile" if value["oid"] in self.hub.lfs:
                    found.gone.discard(value["oid"])
                    files[value["path"]] = File(self.hub.lfs[value["oid"]], lfs=True)
                case "deletedFile" if value["path"] in files:
                    del files[value["path"]]
                case _:
                    raise HubFault(400, f"can't apply {change['key']} to {value['path']}")
        return files

    # -- refs, history and pull requests ---------------------------------------------------------------------

    def create_tag(self, repo: str, revision: str) -> None:
        self.hub.check_writable(self.hub.readable(repo, self.user), self.user)
        self.hub.tag(repo, self.json()["tag"], revision)
        self.reply({})

    def create_branch(self, repo: str, name: str) -> None:
        found = self.hub.readable(repo, self.user)
        self.hub.check_writable(found, self.user)
        start = self.json().get("startingPoint", MAIN) if self.body else MAIN
        found.refs[f"refs/heads/{name}"] = self.hub._commit_at(found, start).oid
        self.reply({})

    def delete_ref(self, repo: str, kind: str, name: str) -> None:
        found = self.hub.readable(repo, self.user)
        self.hub.check_writable(found, self.user)
        ref = {"tag": "refs/tags/", "branch": "refs/heads/"}[kind] + name
        if found.refs.pop(ref, None) is None:
            raise HubFault(404, f"Invalid rev id: {name}", "RevisionNotFound")
        self.hub.prune(found)
        self.reply({})

    def squash(self, repo: str, name: str) -> None:
        """One commit instead of a branch's history; commits that nothing else leads to are gone."""
        found = self.hub.readable(repo, self.user)
        user = self.hub.check_writable(found, self.user)
        files = self.hub._commit_at(found, name).files
        del found.refs[f"refs/heads/{name}"]
        found.commit(f"refs/heads/{name}", files, self.json().get("message") or "Super-squash", "", user.name)
        self.hub.prune(found)
        self.reply({})

    def lfs_files(self, repo: str) -> None:
        """Every LFS file that is stored, whether or not a ref still leads to it."""
        found = self.hub.readable(repo, self.user)
        self.hub.check_writable(found, self.user)
        self.reply_page(list(found.stored.values()))

    def delete_lfs_files(self, repo: str) -> None:
        """Take LFS files out of the storage and, with rewriteHistory, out of all branches and tags."""
        found = self.hub.readable(repo, self.user)
        self.hub.check_writable(found, self.user)
        asked = self.json()["deletions"]
        doomed = set(asked["sha"])
        found.gone |= doomed
        for sha256 in doomed:
            found.stored.pop(sha256, None)
            self.hub.lfs.pop(sha256, None)
        if asked["rewriteHistory"]:
            found.rewrite(doomed)
            self.hub.prune(found)
        self.reply({})

    def discussions(self, repo: str) -> None:
        found = self.hub.readable(repo, self.user)
        author, status = self.query.get("author"), self.query.get("status", "all")
        listed = [
            _discussion(found, pull)
            for pull in found.pulls
            if author in (None, pull.author)
            and (status == "all" or (status == "open") == (pull.status == "open"))
        ]
        self.reply({"discussions": listed, "count": len(listed), "start": 0})

    def discussion(self, repo: str, num: str) -> None:
        found = self.hub.readable(repo, self.user)
        changes = {"base": MAIN}
        details = {**_discussion(found, found.pulls[int(num) - 1]), "changes": changes}
        self.reply({**details, "filesWithConflicts": [], "diff": "", "events": []})

    def merge(self, repo: str, num: str) -> None:
        self.hub.check_writable(self.hub.readable(repo, self.user), self.user)
        self.hub.merge(repo, int(num))
        self.reply({})


def _entries(commit: Commit) -> list[dict[str, Any]]:
    entries = []
    for path, file in sorted(commit.files.items()):
        entry: dict[str, Any] = {"type": "file", "oid": file.blob_id, "size": len(file.data), "path": path}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
        entries.append(entry)
    return entries


def _discussion(repo: Repo, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "status": pull.status,
        "createdAt": pull.created,
        "isPullRequest": True,
        "author": {"name": pull.author, "type": "user"},
        "repo": {"name": repo.id, "type": "model"},
    }


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _route(
    methods: str, path: str, endpoint: Callable[..., None]
) -> tuple[list[str], re.Pattern[str], Callable[..., None]]:
    """`{repo}` is two parts of a path, `{revision}` one or a whole ref, `{path}` the rest."""
    pattern = path.replace("{repo}", r"(?P<repo>[^/]+/[^/]+?)").replace("{path}", r"(?P<path>.+)")
    pattern = pattern.replace("{revision}", r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)")
    pattern = pattern.replace("{name}", r"(?P<name>.+)")
    pattern = pattern.replace("{num}", r"(?P<num>\d+)").replace("{sha256}", r"(?P<sha256>[0-9a-f]{64})")
    return methods.split(), re.compile(pattern), endpoint


ROUTES = [
    _route("GET", "/api/whoami-v2", _Handler.whoami),
    _route("POST", "/api/repos/create", _Handler.create),
    _route("POST", "/api/validate-yaml", _Handler.validate_yaml),
    _route("GET", "/api/models", _Handler.list_models),
    _route("GET", "/api/models/{repo}", _Handler.model_info),
    _route("GET", "/api/models/{repo}/auth-check(?P<write>/write)?", _Handler.auth_check),
    _route("GET", "/api/models/{repo}/revision/{revision}", _Handler.model_info),
    _route("GET", "/api/models/{repo}/tree/{revision}(?P<under>/.+)?", _Handler.tree),
    _route("GET", "/api/models/{repo}/commits/{revision}", _Handler.commits),
    _route("GET", "/api/models/{repo}/refs", _Handler.refs),
    _route("GET", "/api/models/{repo}/discussions", _Handler.discussions),
    _route("GET", "/api/models/{repo}/discussions/{num}", _Handler.discussion),
    _route("POST", "/api/models/{repo}/discussions/{num}/merge", _Handler.merge),
    _route("POST", "/api/models/{repo}/tag/{revision}", _Handler.create_tag),
    _route("POST", "/api/models/{repo}/branch/{name}", _Handler.create_branch),
    _route("DELETE", "/api/models/{repo}/(?P<kind>tag|branch)/{name}", _Handler.delete_ref),
    _route("POST", "/api/models/{repo}/super-squash/{name}", _Handler.squash),
    _route("GET", "/api/models/{repo}/lfs-files", _Handler.lfs_files),
    _route("POST", "/api/models/{repo}/lfs-files/batch", _Handler.delete_lfs_files),
    _route("POST", "/api/models/{repo}/paths-info/{revision}", _Handler.paths_info),
    _route("POST", "/api/models/{repo}/preupload/{revision}", _Handler.preupload),
    _route("POST", "/api/models/{repo}/commit/{revision}", _Handler.make_commit),
    _route("POST", r"/{repo}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    _route("GET HEAD", "/_lfs/{sha256}", _Handler.lfs_download),
    _route("PUT", "/_lfs/{sha256}", _Handler.lfs_upload),
    _route("GET HEAD", "/{repo}/resolve/{revision}/{path}", _Handler.download),
]
