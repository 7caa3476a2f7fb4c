"""The Hugging Face Hub: find and pull a model at one commit, check access early, push in one commit.

Everything goes through the public `huggingface_hub` client with its own defaults: token, cache, endpoint and
offline mode are the client's business (HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE). Every failure comes
out as one of `guide_hub.errors`, with a remedy, and never carries a token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    Discussion,
    HfApi,
    get_token,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    OIDCError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.hf_api import ModelInfo, RepoFile

from guide_hub.errors import ConflictError, GuideHubError, HubError, InputError, Problem
from guide_hub.patience import WAITS, all_of, patiently, wait_for
from guide_hub.record.folder import SUMS as CHECKSUMS
from guide_hub.record.folder import file_sha256, read_sums

BUILTIN = "builtin:"
WEIGHTS = "model.safetensors"
REQUIRED_FILES = ("config.json", WEIGHTS, "README.md", "erasure_record.json", CHECKSUMS)
ASSETS = "assets/*.png"
PUBLIC_FILES = (*REQUIRED_FILES, "recipe.yaml", "LICENSE", ASSETS)  # all that may ever be pushed
LICENSE_NAMES = tuple(
    name + suffix for name in ("LICENSE", "LICENCE", "license", "licence") for suffix in ("", ".txt", ".md")
)
# Weights, and archives, which may hold some
WEIGHT_SUFFIXES = frozenset(
    {
        ".pkl",
        ".pickle",
        ".dill",
        ".joblib",
        ".pt",
        ".pth",
        ".pt2",
        ".pte",
        ".ptl",
        ".jit",
        ".ts",
        ".bin",
        ".ckpt",
    }
    | {".safetensors", ".gguf", ".ggml", ".onnx", ".engine", ".plan", ".trt", ".mlmodel", ".tflite", ".pb"}
    | {".npz", ".npy", ".mat", ".h5", ".hdf5", ".keras", ".msgpack", ".params", ".pdparams"}
    | {".tar", ".tgz", ".zip", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar", ".mar"}
)
# Text, pictures, films, sound, meshes, fonts: what a file on the Hub may be, however large
HARMLESS = frozenset(
    {
        ".md",
        ".txt",
        ".rst",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".csv",
        ".tsv",
        ".html",
    }
    | {".css", ".js", ".xml", ".log", ".tex", ".bib", ".py", ".ipynb", ".sh", ".pdf", ".png", ".jpg", ".jpeg"}
    | {
        ".gif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".svg",
        ".ico",
        ".exr",
        ".hdr",
        ".mp4",
        ".mov",
        ".webm",
        ".avi",
    }
    | {
        ".mkv",
        ".wav",
        ".mp3",
        ".ogg",
        ".flac",
        ".ply",
        ".obj",
        ".mtl",
        ".glb",
        ".gltf",
        ".stl",
        ".fbx",
        ".ttf",
    }
    | {".otf", ".woff", ".woff2"}
)
LARGE = 10 * 2**20  # bytes from which the Hub wants LFS


# ----------------------------------------------------------------------------------------------------------
# What the functions give back


@dataclass(frozen=True)
class Source:
    """A model that lies on this disk, with what its maintainer says about it.

    Attributes:
        repo: as the user gave it: `org/eg3d`, `builtin:synthetic-heads` or a folder.
        kind: where it came from.
        revision: the commit (40 hex digits) that every file comes from; None unless `kind` is "hub".
        folder: where `config.json` and `model.safetensors` lie.
        uri: the name that may be published: `hf://org/eg3d`, `builtin:NAME` or `local`; never a path.
        card: the front matter of README.md, {} where there is none.
        license_file: the full text of the licence, where there is one.
        record_file: the erasure record of earlier runs, where there is one.
        other_weights: further weight files of the repository, which an erasure leaves as they are.
        private: whether only some accounts can read the repository; False unless `kind` is "hub".
    """

    repo: str
    kind: Literal["hub", "folder", "builtin"]
    revision: str | None
    folder: Path
    uri: str
    card: dict[str, Any]
    license_file: Path | None
    record_file: Path | None
    other_weights: list[str]
    private: bool = False

    @property
    def config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def weights_file(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def license_fields(self) -> dict[str, Any]:
        """The card's `license`, `license_name` and `license_link`, those that it has."""
        return {k: self.card[k] for k in ("license", "license_name", "license_link") if self.card.get(k)}


@dataclass(frozen=True)
class Head:
    """The tip of `main` as it was before the work. `sha` is None where `push` is to create the repository.

    `may_write` is False for a token that can open a pull request and nothing more.
    """

    repo: str
    sha: str | None
    other_weights: list[str]
    may_write: bool = True


@dataclass(frozen=True)
class Pushed:
    """A finished push. `commit` is an older one when the repository already held these very files.

    `superseded`: the pull request on the base's card that points here, or the card that does already.
    """

    repo: str
    commit: str
    pr_url: str | None
    superseded: str | None = None


# ----------------------------------------------------------------------------------------------------------
# Pull


def resolve(repo: str, revision: str | None = None, license_file: str | Path | None = None) -> Source:
    """Find a model by Hub id, folder or `builtin:` name and bring it to this disk.

    A Hub model is pulled at one commit: `revision` (branch, tag, `refs/pr/N` or commit; default `main`) is
    resolved once and every file comes from there. With HF_HUB_OFFLINE=1 a model that was pulled before comes
    from the cache, at the commit that the cache knows for `revision`.

    Args:
        repo: an existing folder wins over a Hub repository of the same name.
        license_file: the licence's text, for a model that comes without one.

    Raises:
        InputError: no such folder, or no `config.json` or `model.safetensors` in it.
        HubError: the repository, its revision, the token or the network.
    """
    name = str(repo)
    folder = Path(name).expanduser()
    if name.startswith(BUILTIN):
        _refuse_revision(revision, name)
        return _describe(_builtin_folder(name), name, "builtin", name, license_file)
    if folder.is_dir():
        _refuse_revision(revision, "a folder")
        return _describe(folder, name, "folder", "local", license_file)
    if name.startswith(("/", ".", "~")) or "\\" in name:
        raise InputError("the model folder does not exist", remedy="check --repo; Hub ids are like org/name")
    return _pull(name, revision, license_file)


def require_licence(source: Source) -> None:
    """InputError for a model under no licence: nothing may be made from it or pass as whole."""
    if source.license_file is None and not source.card.get("license"):
        raise InputError(
            "the model states no licence: its card has no 'license' field and there is no LICENSE file",
            remedy="ask its author, then give the text with --license FILE",
        )


def _pull(repo: str, revision: str | None, license_file: str | Path | None) -> Source:
    uri, patterns = f"hf://{repo}", [*PUBLIC_FILES, *LICENSE_NAMES]
    with explained(repo, revision):
        try:
            info = patiently(HfApi().model_info, repo, revision=revision, files_metadata=True)
        except OfflineModeIsEnabled:
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
            return _describe(folder, repo, "hub", uri, license_file, revision=folder.name)
        files = _file_names(info)
        _check_complete(files)
        # By name, so that the cache learns what `main` is for offline runs; by commit if it has just moved.
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
        if folder.name != info.sha:
            folder = Path(snapshot_download(repo, revision=info.sha, allow_patterns=patterns))
    source = _describe(folder, repo, "hub", uri, license_file, revision=info.sha, files=files)
    others = other_weights(files, _large(info))
    return replace(source, other_weights=others, private=bool(info.private))


def _describe(
    folder: Path,
    repo: str,
    kind: Literal["hub", "folder", "builtin"],
    uri: str,
    license_file: str | Path | None,
    *,
    revision: str | None = None,
    files: list[str] | None = None,
) -> Source:
    if files is None:
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    _check_complete(files)
    card = read_card(folder / "README.md")
    if license_file is not None and not Path(license_file).is_file():
        raise InputError("the licence file does not exist", remedy="check --license")
    found = next((folder / name for name in LICENSE_NAMES if name in files), None)
    licence = Path(license_file) if license_file is not None else found
    record = folder / "erasure_record.json"
    return Source(
        repo=repo,
        kind=kind,
        revision=revision,
        folder=folder,
        uri=uri,
        card=card,
        license_file=licence,
        record_file=record if record.is_file() else None,
        other_weights=other_weights(files),
    )


def _check_complete(files: Iterable[str]) -> None:
    present = set(files)
    if WEIGHTS not in present:
        if any(name.endswith(".pkl") for name in present):
            remedy = _CONVERT
        elif f"{WEIGHTS}.index.json" in present:
            remedy = "merge its shards into a single model.safetensors"
        else:
            remedy = "check that --repo and --revision name an EG3D model in safetensors form"
        raise InputError("the model has no model.safetensors, and nothing else is ever loaded", remedy=remedy)
    if "config.json" not in present:
        raise InputError(
            "the model has no config.json", remedy="write the model's folder with EG3D.save_pretrained"
        )


def _refuse_revision(revision: str | None, what: str) -> None:
    if revision is not None:
        raise InputError(f"{what} has no revisions", remedy="leave --revision out, or give a Hub id")


def _builtin_folder(name: str) -> Path:
    root = Path(__file__).parent / "builtin"
    known = sorted(p.parent.name.replace("_", "-") for p in root.glob("*/config.json"))
    if name.removeprefix(BUILTIN) not in known:
        raise InputError(
            f"there is no built-in model {name.removeprefix(BUILTIN)!r}",
            remedy="built-in models: " + (", ".join(BUILTIN + k for k in known) or "none"),
        )
    return root / name.removeprefix(BUILTIN).replace("-", "_")


def other_weights(files: Iterable[str], large: Container[str] = ()) -> list[str]:
    """Those of `files` that may hold weights and are not the `model.safetensors` that an erasure replaces.

    By their suffixes (`ema.tar`, `old.pt.bak`). Of those that are `large` or in LFS, all but HARMLESS ones
    and our own.
    """
    return sorted(f for f in files if f != WEIGHTS and _may_hold_weights(f, f in large))


def _may_hold_weights(name: str, large: bool) -> bool:
    suffixes = PurePosixPath(name.lower()).suffixes
    if suffixes and suffixes[-1] in HARMLESS:
        return False
    return not WEIGHT_SUFFIXES.isdisjoint(suffixes) or (large and not _is_public(name))


def read_card(file: Path) -> dict[str, Any]:
    """The YAML front matter of a model card; {} where there is none or it can't be read."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        if not lines or lines[0].strip() != "---":
            return {}
        end = next(n for n, line in enumerate(lines[1:], 1) if line.strip() == "---")
        card = yaml.safe_load("\n".join(lines[1:end]))
    except (OSError, StopIteration, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        return {}  # no card, not UTF-8, no end, not YAML, or values such as a 30th of February
    return card if isinstance(card, dict) else {}


# ----------------------------------------------------------------------------------------------------------
# Push


def preflight(repo: str, *, create_pr: bool = False, create_repo_if_missing: bool = False) -> Head:
    """Find out before the work whether its result could be pushed, and what `main` is now.

    A direct commit needs write access to the repository. A pull request (`create_pr`) needs read access and
    a token that may write. Nothing is changed: with `create_repo_if_missing`, a missing repository in one of
    the user's namespaces gives a Head with sha None, and `push` creates it.

    Raises:
        HubError: no token, a read-only one, no access, no such repository, or no network.
    """
    with explained(repo):
        if not get_token():
            raise HubError("pushing needs a Hub token and there is none", remedy=_LOGIN)
        api = HfApi()
        user = _whoami(api)
        if _is_read_only(user):
            raise HubError("the Hub token is read-only", remedy=_WRITE_TOKEN)
        try:
            patiently(api.auth_check, repo, write=not create_pr)
            may_write = not create_pr or _may_write(api, repo)
            if not may_write and _is_read_only(user, repo):
                raise HubError(f"the Hub token can't write to {repo}", remedy=_WRITE_TOKEN)
            info = patiently(api.model_info, repo, files_metadata=True)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if create_repo_if_missing and repo.partition("/")[0] in _namespaces(user):
                return Head(repo, None, [])
            raise
    return Head(repo, info.sha, other_weights(_file_names(info), _large(info)), may_write)


def push(
    folder: str | Path,
    repo: str,
    *,
    parent_commit: str | None,
    create_pr: bool,
    message: str,
    description: str = "",
    delete: Iterable[str] = (),
    private: bool | None = None,
) -> Pushed:
    """Put a finished folder on the Hub in exactly one commit on top of `parent_commit`, or not at all.

    Where `main` or an open pull request of the same title holds these very files, an earlier call has put
    them there: its commit is given back, so a push that was killed or lost its answer can be done again.

    Pictures under assets/ and licence files that the folder has no longer go: older pictures may show the
    person, and an older licence file would stand beside the one that the card names.

    Args:
        folder: a finished output folder: only `PUBLIC_FILES`, and all as its SHA256SUMS says.
        parent_commit: `preflight`'s `Head.sha`. None creates the repository.
        create_pr: put the commit on a new pull request, which leaves `main` alone until somebody merges it.
        message: the commit's title and the pull request's.
        delete: files of the repository to delete in the same commit, such as `Head.other_weights`. Files that
            are gone already are no error.
        private: visibility of a repository that is created here; None leaves it to the namespace's default.

    Raises:
        InputError: the folder holds something else, lacks something, or is not what its SHA256SUMS says.
        ConflictError: `main` is no longer at `parent_commit`. Never retried: whoever pushed may have erased
            somebody too, and this result would bring them back.
        HubError: the repository, the token or the network.
    """
    sums = check_folder(folder)
    unwanted = {*delete}
    waits = iter(WAITS)
    with explained(repo):
        api = HfApi()
        if parent_commit is None:
            api.create_repo(repo, private=private)
            parent_commit = patiently(api.model_info, repo).sha
        while True:
            head = patiently(api.model_info, repo)
            there = {*_file_names(head)} - {*sums}
            gone = sorted(f for f in there if f in unwanted or _is_replaced(f, sums))
            if not gone and not _differing(api, repo, head.sha, folder, sums):
                return Pushed(repo, head.sha or "", None)
            if head.sha != parent_commit:
                raise conflict(repo)
            made = _same_pr(api, repo, message, folder, sums) if create_pr else None
            if made is not None:
                return made
            additions = [CommitOperationAdd(name, Path(folder, name)) for name in sums]
            # An empty ignore list: a .gitignore in the repository would silently leave files out.
            api.preupload_lfs_files(repo, additions, create_pr=create_pr, gitignore_content="# nothing\n")
            if patiently(api.model_info, repo).sha != parent_commit:  # uploads take long
                raise conflict(repo)
            try:
                commit = api.create_commit(
                    repo,
                    [*additions, *(CommitOperationDelete(name) for name in gone)],
                    commit_message=message,
                    commit_description=description,
                    parent_commit=parent_commit,
                    create_pr=create_pr,
                )
            except HTTPError as error:  # the client sends a commit once: it may have been made all the same
                wait_for(error, waits)
                continue
            break
        _check_pushed(api, repo, commit.oid, folder, sums)
    return Pushed(repo, commit.oid, commit.pr_url)


def own_open_pulls(repo: str, title: str) -> tuple[list[Discussion], bool]:
    """The user's own open pull requests whose titles begin so, and True.

    With a token that has no account, such as a CI job's: anybody's, and False.
    """
    with explained(repo):
        api = HfApi()
        author = _whoami(api).get("name")
        pulls = open_pulls(api, repo, author)
    return [pull for pull in pulls if pull.title.startswith(title)], author is not None


def open_pulls(api: HfApi, repo: str, author: str | None = None) -> list[Discussion]:
    """The open pull requests of a repository, or those of one author."""
    return all_of(
        api.get_repo_discussions,
        repo,
        author=author,
        discussion_type="pull_request",
        discussion_status="open",
    )


def read_file(repo: str, name: str, revision: str | None) -> bytes | None:
    """One small file of a repository; None where the repository has no such file."""
    with explained(repo, revision):
        try:
            return Path(hf_hub_download(repo, name, revision=revision)).read_bytes()
        except LocalEntryNotFoundError:  # a kind of EntryNotFoundError: offline, and not in the cache
            raise
        except EntryNotFoundError:
            return None


def is_private(repo: str) -> bool:
    """Whether a repository is private. One that can't be found counts as such."""
    try:
        with explained(repo):
            return bool(patiently(HfApi().model_info, repo).private)
    except HubError:
        return True


def check_folder(folder: str | Path) -> dict[str, str]:
    """SHA-256 by name of every file of a finished folder; they are the files that a push uploads.

    Raises:
        InputError: names every file that is missing or not as SHA256SUMS says, and counts foreign ones.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError("the folder to push does not exist", remedy=_WHOLE_OUTPUT)
    paths = {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if not p.is_dir()}
    problems = [Problem(f"{name} is missing", _WHOLE_OUTPUT) for name in REQUIRED_FILES if name not in paths]
    foreign = [PurePosixPath(name).suffix or "no suffix" for name in paths if not _is_public(name)]
    if foreign:  # by kind and not by name: it could be a person's photo
        problems.append(
            Problem(
                f"the folder holds {len(foreign)} file(s) that are not of an erased model "
                f"({', '.join(sorted({*foreign}))})",
                f"move them away; only these are pushed: {', '.join(PUBLIC_FILES)}",
            )
        )
    if problems:
        raise InputError(*problems)

    actual = {name: file_sha256(path) for name, path in paths.items()}
    stated = read_sums(root)
    changed = sorted(name for name in actual if name != CHECKSUMS and stated.get(name) != actual[name])
    problems = [Problem(f"{name} is not what {CHECKSUMS} says", _WHOLE_OUTPUT) for name in changed]
    if stated.keys() - actual.keys():
        problems.append(Problem(f"{CHECKSUMS} states files that are not in the folder", _WHOLE_OUTPUT))
    if problems:
        raise InputError(*problems)
    return actual


def _is_public(name: str) -> bool:
    """Whether a path is one of PUBLIC_FILES; `*` stays within a folder, unlike fnmatch's."""
    return any(_matches(name, pattern) for pattern in PUBLIC_FILES)


def _is_replaced(name: str, sums: Iterable[str]) -> bool:
    """Whether a file of the repository has a successor under another name among `sums`."""
    return _matches(name, ASSETS) or (name in LICENSE_NAMES and "LICENSE" in sums)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")


def _check_pushed(api: HfApi, repo: str, commit: str, folder: str | Path, sums: dict[str, str]) -> None:
    """Ask the Hub for the commit's hashes: a push counts when the weights and the record are really there."""
    try:
        wrong = _differing(api, repo, commit, folder, sums)
    except HTTPError as error:
        raise HubError(
            f"{repo}: commit {commit} was made, but could not be read back ({type(error).__name__})",
            remedy="look at it with guide-hub verify before you push again",
        ) from None
    if wrong:
        raise HubError(
            f"{repo}: commit {commit} was made, but its {wrong[0]} is not the one of this folder",
            remedy="revert that commit or close the pull request, then push again",
        )


def _differing(
    api: HfApi, repo: str, revision: str | None, folder: str | Path, sums: dict[str, str]
) -> list[str]:
    """The files of a finished folder that a revision has not, or not with the same content."""
    files = patiently(api.get_paths_info, repo, list(sums), revision=revision)
    stored = {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in files if isinstance(f, RepoFile)}
    return [
        name
        for name, sha256 in sums.items()
        if stored.get(name) != sha256 and stored.get(name) != git_blob_id(Path(folder, name))
    ]


def _same_pr(api: HfApi, repo: str, title: str, folder: str | Path, sums: dict[str, str]) -> Pushed | None:
    """An open pull request that holds a finished folder's very files, whoever opened it."""
    for pull in open_pulls(api, repo):
        ref = f"refs/pr/{pull.num}"
        if pull.title == title and not _differing(api, repo, ref, folder, sums):
            return Pushed(repo, patiently(api.model_info, repo, revision=ref).sha or "", pull.url)
    return None


def git_blob_id(path: Path) -> str:
    """Git's name for a file's content, which the Hub gives for files that are not in LFS."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# ----------------------------------------------------------------------------------------------------------
# Who is asking


def _whoami(api: HfApi) -> dict[str, Any]:
    """The token's account; {} for tokens that can't be asked, such as a CI job's trusted-publisher token."""
    try:
        return patiently(api.whoami)
    except HfHubHTTPError:
        return {}  # a token that is simply wrong fails in the next request, with a better message


def _may_write(api: HfApi, repo: str) -> bool:
    try:
        patiently(api.auth_check, repo, write=True)
    except HfHubHTTPError:
        return False
    return True


def _is_read_only(user: dict[str, Any], repo: str | None = None) -> bool:
    """Whether the token can write nowhere at all, or not to `repo`, by what `whoami` says about it."""
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {})
        granted = [*scopes.get("global", [])]
        for scope in scopes.get("scoped", []):
            if repo is None or scope.get("entity", {}).get("name") in (repo, repo.partition("/")[0]):
                granted += scope.get("permissions", [])
        return not any("write" in permission for permission in granted)
    return token.get("role") == "read"


def _namespaces(user: dict[str, Any]) -> set[str]:
    return {user.get("name", ""), *(org.get("name", "") for org in user.get("orgs", []))}


def _file_names(info: ModelInfo) -> list[str]:
    return [sibling.rfilename for sibling in info.siblings or []]


def _large(info: ModelInfo) -> set[str]:
    """The files in LFS or of more than LARGE bytes, of an answer with files_metadata."""
    return {s.rfilename for s in info.siblings or [] if s.lfs or (s.size or 0) > LARGE}


# ----------------------------------------------------------------------------------------------------------
# Errors

_LOGIN = "set HF_TOKEN or run: hf auth login"
_NETWORK = "check the network, the proxy settings and HF_ENDPOINT, then try again"
_CONVERT = "convert it first: guide-hub convert FILE DIR"
_WHOLE_OUTPUT = "give the output folder of guide-hub erase, as it was written"
_WRITE_TOKEN = "make a token with write access to the repository at huggingface.co/settings/tokens"


@contextmanager
def explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the client raises into our errors, which say what is wrong and what to do about it."""
    try:
        yield
    except GuideHubError:
        raise
    except Exception as error:
        explained = _explain(error, repo, revision or "main")
        if explained is None:
            raise
        # A transport error can quote the Authorization header, which a traceback must not show either.
        raise explained from (None if "Bearer" in str(error) else error)


def _explain(error: BaseException, repo: str, revision: str) -> GuideHubError | None:
    if isinstance(error, RuntimeError | LocalEntryNotFoundError):
        cause = error.__cause__  # what really went wrong in an upload or a download
        if isinstance(cause, OSError | HTTPError) and not isinstance(cause, OfflineModeIsEnabled):
            error = cause
    match error:
        case GatedRepoError():  # before RepositoryNotFoundError, which it is a kind of
            return HubError(
                f"{repo} is gated and this account has not been let in",
                remedy=f"ask for access on the model's page, then {_LOGIN}",
            )
        case RepositoryNotFoundError():
            return _not_found(repo)
        case RevisionNotFoundError():
            return HubError(f"{repo} has no revision {revision!r}", remedy="check --revision")
        case OfflineModeIsEnabled():
            return HubError(
                f"HF_HUB_OFFLINE is set, so the Hub can't be asked about {repo}",
                remedy="unset HF_HUB_OFFLINE",
            )
        case LocalEntryNotFoundError():
            return HubError(
                f"HF_HUB_OFFLINE is set and the local cache has no complete copy of {repo} at {revision!r}",
                remedy="unset HF_HUB_OFFLINE, or pull the model once while online",
            )
        case EntryNotFoundError():
            return HubError(f"a file of {repo} is missing at {revision!r}", remedy="check --revision")
        case LocalTokenNotFoundError():
            return HubError("this needs a Hub token and there is none", remedy=_LOGIN)
        case OIDCError():
            return HubError(
                "the CI job could not exchange its identity for a Hub token",
                remedy="give the job 'permissions: id-token: write' and check HF_OIDC_RESOURCE",
            )
        case HFValidationError():
            return InputError(
                f"{repo!r} is neither a Hub id nor an existing folder", remedy="a Hub id looks like org/name"
            )
        case HfHubHTTPError():
            return _explain_status(error, repo)
        case UnicodeEncodeError():
            return HubError("the Hub token holds characters that no token has", remedy=_LOGIN)
        case HTTPError() if type(error).__name__ == "LocalProtocolError":
            return HubError("the Hub token holds characters that no token has", remedy=_LOGIN)
        case HTTPError() | ConnectionError() | TimeoutError():
            # Its kind only: a transport error's text can quote the headers, token included.
            return HubError(f"the Hub can't be reached ({type(error).__name__})", remedy=_NETWORK)
        case RuntimeError() | XetDownloadError() | FileMetadataError():
            return HubError(f"the transfer of files from or to {repo} broke off", remedy=_NETWORK)
        case ValueError() if "metadata" in str(error).lower():
            return HubError(f"the Hub refuses the model card: {_without_tokens(str(error))}")
        case _:
            return None


def _explain_status(error: HfHubHTTPError, repo: str) -> GuideHubError:
    status = error.response.status_code
    reason = _without_tokens(error.server_message or "no reason given")
    if status in (409, 412):
        return conflict(repo)
    if status == 401 and "credentials" not in reason:
        return _not_found(repo)  # what the Hub says to those without a token, whether or not it exists
    if status == 401:
        return HubError("the Hub does not accept the token (401)", remedy=f"it may have expired: {_LOGIN}")
    if status == 403:
        return HubError(f"the token may not do this on {repo} (403: {reason})", remedy=_WRITE_TOKEN)
    if status == 429:
        return HubError("the Hub asks to slow down (429)", remedy="try again in some minutes")
    return HubError(f"the Hub answered {status} for {repo}: {reason}", remedy="try again later")


def _not_found(repo: str) -> HubError:
    return HubError(
        f"{repo} does not exist on the Hub, or it is private and the token has no access to it",
        remedy=f"check the name; for a private repository {_LOGIN}",
    )


def conflict(repo: str) -> ConflictError:
    return ConflictError(
        f"somebody pushed to {repo} since this run started; nothing was pushed",
        remedy="run again: it starts from the new state, so that no earlier erasure is lost",
    )


def _without_tokens(text: str) -> str:
    return re.sub(r"hf_\w{6,}", "hf_***", text)
