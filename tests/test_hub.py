"""The Hub: the real client against a Hub on 127.0.0.1 (tests/loopback_hub.py)."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import (
    JOB_TOKEN,
    READ_TOKEN,
    REPO_TOKEN,
    SCOPED_READ_TOKEN,
    SCOPED_TOKEN,
    STRANGER_TOKEN,
    WRITE_TOKEN,
    HubFault,
    LoopbackHub,
)

from guide_hub import hub as guide_hub_hub
from guide_hub.errors import ConflictError, GuideHubError, HubError, InputError
from guide_hub.hub import (
    Head,
    other_weights,
    own_open_pulls,
    preflight,
    push,
    read_card,
    require_licence,
    resolve,
)

CARD = b"---\nlicense: other\nlicense_name: research\ntags:\n- eg3d\n---\n# A face generator\n"
MODEL = {
    "config.json": b"{}",
    "model.safetensors": os.urandom(4096),
    "README.md": CARD,
    "LICENSE.txt": b"for research\n",
    "network.pkl": b"a pickle",
}


def without(*names: str, **more: bytes) -> dict[str, bytes]:
    return {name: data for name, data in MODEL.items() if name not in names}


def write_checksums(folder: Path) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in paths
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished output folder with made-up weights."""
    folder = tmp_path / "eg3d-erased"
    (folder / "assets").mkdir(parents=True)
    files = {"config.json": b"{}", "model.safetensors": os.urandom(4096), "README.md": CARD + b"erased\n"}
    files |= {
        "erasure_record.json": b'{"erased": 1}',
        "recipe.yaml": b"name: guide\n",
        "LICENSE": b"for research\n",
    }
    files |= {"assets/before_after.png": b"\x89PNG made up"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_checksums(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def publish(folder: Path, parent: str | None, repo: str = "org/eg3d", **options) -> guide_hub_hub.Pushed:
    return push(
        folder, repo, parent_commit=parent, message="Erase subject-a", **{"create_pr": False, **options}
    )


# -- pull --------------------------------------------------------------------------------------------------


def test_pull_is_at_the_commit_that_main_has(hub: LoopbackHub) -> None:
    sha = hub.create_repo("org/eg3d", MODEL)
    source = resolve("org/eg3d")
    assert (source.kind, source.revision, source.uri) == ("hub", sha, "hf://org/eg3d")
    assert source.weights_file.read_bytes() == MODEL["model.safetensors"]
    assert source.config_file.is_file()
    assert source.license_fields == {"license": "other", "license_name": "research"}
    assert source.license_file is not None
    assert source.license_file.read_bytes() == b"for research\n"
    assert source.record_file is None
    assert source.other_weights == ["network.pkl"]
    pickle = hashlib.sha256(MODEL["network.pkl"]).hexdigest()
    assert not [r for r in hub.wire if "network.pkl" in r.path or pickle in r.path]  # never even downloaded


def test_pull_of_an_older_commit_a_tag_and_short_id(hub: LoopbackHub) -> None:
    old = hub.create_repo("org/eg3d", MODEL)
    hub.tag("org/eg3d", "v1")
    new = hub.commit("org/eg3d", {"model.safetensors": b"newer", "erasure_record.json": b"{}"})
    assert resolve("org/eg3d").revision == new
    assert resolve("org/eg3d").record_file is not None
    for revision in (old, old[:10], "v1"):
        source = resolve("org/eg3d", revision)
        assert source.revision == old
        assert source.weights_file.read_bytes() == MODEL["model.safetensors"]
        assert source.record_file is None


def test_pull_stays_at_one_commit_when_main_moves_meanwhile(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.create_repo("org/eg3d", MODEL)
    snapshot = guide_hub_hub.snapshot_download

    def late(*args, **kwargs):
        if kwargs["revision"] is None:
            hub.commit("org/eg3d", {"model.safetensors": b"newer"})
        return snapshot(*args, **kwargs)

    monkeypatch.setattr(guide_hub_hub, "snapshot_download", late)
    source = resolve("org/eg3d")
    assert source.revision == sha == source.folder.name
    assert source.weights_file.read_bytes() == MODEL["model.safetensors"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (without("model.safetensors"), r"no model\.safetensors.*guide-hub convert FILE DIR"),
        (without("model.safetensors", "network.pkl"), r"no model\.safetensors"),
        (without("config.json"), r"no config\.json"),
    ],
    ids=["only-pickle", "no-safetensors", "no-config"],
)
def test_pull_of_an_unusable_model(
    hub: LoopbackHub, files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    hub.create_repo("org/eg3d", files)
    with pytest.raises(InputError, match=said) as caught:
        resolve("org/eg3d")
    assert caught.value.exit_code == 2
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        resolve(str(tmp_path))


def test_no_licence_is_refused_where_something_is_made_from_the_model(hub: LoopbackHub) -> None:
    hub.create_repo("org/eg3d", {**without("LICENSE.txt"), "README.md": b"# no front matter\n"})
    source = resolve("org/eg3d")  # enough to look at it
    with pytest.raises(InputError, match=r"no licence.*--license FILE") as caught:
        require_licence(source)
    assert caught.value.exit_code == 2
    hub.commit("org/eg3d", {"LICENSE.txt": b"terms"})
    require_licence(resolve("org/eg3d"))


def test_licence_from_the_command_line(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.create_repo("org/eg3d", without("LICENSE.txt", "README.md"))
    (tmp_path / "terms.txt").write_text("terms")
    assert resolve("org/eg3d", license_file=tmp_path / "terms.txt").license_file == tmp_path / "terms.txt"
    with pytest.raises(InputError, match="licence file does not exist"):
        resolve("org/eg3d", license_file=tmp_path / "nothing.txt")


def test_pull_from_a_folder(tmp_path: Path) -> None:
    for name, data in MODEL.items():
        (tmp_path / name).write_bytes(data)
    source = resolve(str(tmp_path))
    assert (source.kind, source.revision, source.uri, source.folder) == ("folder", None, "local", tmp_path)
    assert source.other_weights == ["network.pkl"]
    with pytest.raises(InputError, match="no revisions"):
        resolve(str(tmp_path), "main")


def test_pull_of_a_built_in_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_hub_hub, "__file__", str(tmp_path / "hub.py"))
    folder = tmp_path / "builtin" / "synthetic_heads"
    folder.mkdir(parents=True)
    for name, data in without("network.pkl").items():
        (folder / name).write_bytes(data)
    source = resolve("builtin:synthetic-heads")
    assert (source.kind, source.uri, source.folder) == ("builtin", "builtin:synthetic-heads", folder)
    with pytest.raises(InputError, match="built-in models: builtin:synthetic-heads"):
        resolve("builtin:other")


def test_names_that_are_nothing(hub: LoopbackHub) -> None:
    with pytest.raises(InputError, match="no built-in model 'nobody'"):
        resolve("builtin:nobody")
    with pytest.raises(InputError, match="folder does not exist"):
        resolve("./no/such/folder")
    with pytest.raises(InputError, match="neither a Hub id"):
        resolve("one/two/three")


def test_missing_repository_and_revision(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo("org/eg3d", MODEL)
    with pytest.raises(HubError, match="has no revision 'v9'"):
        resolve("org/eg3d", "v9")
    hub.create_repo("other/secret", MODEL, private=True)
    for token in (WRITE_TOKEN, ""):
        monkeypatch.setenv("HF_TOKEN", token)
        for repo in ("org/nothing", "other/secret"):
            with pytest.raises(HubError, match=r"does not exist.*or it is private.*HF_TOKEN") as caught:
                resolve(repo)
            assert caught.value.exit_code == 4


@pytest.mark.parametrize("token", [STRANGER_TOKEN, ""], ids=["not-let-in", "no-token"])
def test_gated_repository(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    hub.create_repo("org/gated", MODEL, gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=r"is gated.*ask for access"):
        resolve("org/gated")
    if token:
        with pytest.raises(HubError, match="is gated"):
            preflight("org/gated", create_pr=True)


def run_offline(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    code = f"from guide_hub.hub import resolve\nfrom guide_hub.errors import GuideHubError\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_offline_from_the_cache(hub: LoopbackHub) -> None:
    first = hub.create_repo("org/cached", MODEL)
    resolve("org/cached", first)
    second = hub.commit("org/cached", {"model.safetensors": b"newer"})
    resolve("org/cached")
    hub.commit("org/cached", {"model.safetensors": b"newest"})
    asked = len(hub.wire)
    found = run_offline(
        f"for revision in (None, {first!r}):\n"
        "    s = resolve('org/cached', revision)\n"
        "    print(s.revision, s.weights_file.read_bytes().hex(), s.license_file.name)\n"
        "for repo, revision in (('org/never', None), ('org/cached', 'v7')):\n"
        "    try: resolve(repo, revision)\n"
        "    except GuideHubError as error: print(error.exit_code, error)\n"
        "from guide_hub.hub import preflight\n"
        "try: preflight('org/cached')\n"
        "except GuideHubError as error: print(error.exit_code, error)\n"
    )
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0] == f"{second} {b'newer'.hex()} LICENSE.txt"
    assert lines[1] == f"{first} {MODEL['model.safetensors'].hex()} LICENSE.txt"
    assert re.match(r"4 HF_HUB_OFFLINE is set.*org/never", lines[2])
    assert re.match(r"4 HF_HUB_OFFLINE is set.*org/cached at 'v7'", lines[3])
    assert re.match(r"4 HF_HUB_OFFLINE is set, so the Hub can't be asked", lines[4])
    assert len(hub.wire) == asked


def test_card_that_can_not_be_read(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    for text in ("", "# title", "---\nlicense: mit\n", "---\n[\n---\n", "---\n- a\n---\n"):
        card.write_text(text)
        assert read_card(card) == {}
    for value in ("2026-02-30", "!!bool x", "!!int ''", "!!timestamp x", "[" * 5000):
        card.write_text(f"---\ndate: {value}\n---\n")
        assert read_card(card) == {}
    card.write_bytes(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n")
    assert read_card(card) == {"license": "mit"}


# -- preflight ---------------------------------------------------------------------------------------------


def test_preflight_knows_the_head(hub: LoopbackHub) -> None:
    sha = hub.create_repo("org/eg3d", MODEL)
    assert preflight("org/eg3d") == Head("org/eg3d", sha, ["network.pkl"])
    assert preflight("org/eg3d", create_pr=True).sha == sha


@pytest.mark.parametrize("create_pr", [False, True])
@pytest.mark.parametrize(
    ("token", "said"),
    [
        (READ_TOKEN, "read-only"),
        (SCOPED_READ_TOKEN, "read-only"),
        ("", "there is none"),
        ("hf_wrongToken", "401"),
    ],
)
def test_preflight_finds_a_token_that_can_not_push(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str, said: str, create_pr: bool
) -> None:
    hub.create_repo("org/eg3d", MODEL)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=said) as caught:
        preflight("org/eg3d", create_pr=create_pr)
    assert caught.value.exit_code == 4
    assert caught.value.problems[0].remedy


def test_preflight_of_a_stranger(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's repository takes pull requests, but no commits."""
    hub.create_repo("org/eg3d", MODEL)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(HubError, match="403"):
        preflight("org/eg3d")
    assert preflight("org/eg3d", create_pr=True).sha == hub.head("org/eg3d")


def test_preflight_and_push_of_a_new_repository(hub: LoopbackHub, finished: Path) -> None:
    with pytest.raises(HubError, match="does not exist"):
        preflight("org/new")
    with pytest.raises(HubError, match="does not exist"):
        preflight("elsewhere/new", create_repo_if_missing=True)
    head = preflight("org/new", create_repo_if_missing=True)
    assert head == Head("org/new", None, [])
    assert "org/new" not in hub.repos  # nothing is published before the work is done
    publish(finished, None, "org/new", private=True)
    assert hub.repos["org/new"].private
    assert hub.files("org/new").items() >= contents(finished).items()
    with pytest.raises(ConflictError):
        publish(finished, None, "org/new")


# -- push --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [WRITE_TOKEN, SCOPED_TOKEN])
def test_push_is_one_commit_of_exactly_the_folder(
    hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    base = hub.create_repo("org/eg3d", MODEL)
    head = preflight("org/eg3d")
    pushed = publish(
        finished, head.sha, description="By request 2026-0042.", delete=[*head.other_weights, "gone.pt"]
    )
    assert (pushed.commit, pushed.pr_url) == (hub.head("org/eg3d"), None)
    assert len(hub.requests("POST", "/commit/main")) == 1
    assert [c.oid for c in hub.log("org/eg3d")] == [pushed.commit, base]
    assert (hub.log("org/eg3d")[0].title, hub.log("org/eg3d")[0].description) == (
        "Erase subject-a",
        "By request 2026-0042.",
    )
    assert hub.files("org/eg3d") == contents(finished)  # LICENSE.txt has become LICENSE
    again = publish(finished, pushed.commit)
    assert again.commit == pushed.commit  # nothing to do is no new commit
    source = resolve("org/eg3d")
    assert source.revision == pushed.commit
    assert source.record_file is not None


def test_hf_download_reads_the_push_back(hub: LoopbackHub, finished: Path, tmp_path: Path) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    pushed = publish(finished, base, create_pr=True)
    program = Path(sys.executable).with_name("hf")
    if not program.exists():
        pytest.skip("the hf command is not beside this Python")
    command = [program, "download", "org/eg3d", "--revision", pushed.commit, "--local-dir", tmp_path / "got"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)
    for name, data in contents(finished).items():
        assert (tmp_path / "got" / name).read_bytes() == data


def test_push_takes_old_pictures_and_licences_away(hub: LoopbackHub, finished: Path) -> None:
    old = {"assets/person.png": b"the person", "assets/more/deep.png": b"kept", "notes.txt": b"kept"}
    base = hub.create_repo("org/eg3d", {**MODEL, **old})
    publish(finished, base)
    left = {*hub.files("org/eg3d")} - {*contents(finished)}
    assert left == {"network.pkl", "assets/more/deep.png", "notes.txt"}


def test_pull_request_stays_off_main_until_it_is_merged(
    hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    assert own_open_pulls("org/eg3d", "Erase") == ([], True)
    pushed = publish(finished, base, create_pr=True)
    assert pushed.pr_url == f"{hub.endpoint}/org/eg3d/discussions/1"
    assert [pull.url for pull in own_open_pulls("org/eg3d", "Erase")[0]] == [pushed.pr_url]
    assert own_open_pulls("org/eg3d", "Other") == ([], True)
    with monkeypatch.context() as someone_else:
        someone_else.setenv("HF_TOKEN", WRITE_TOKEN)
        assert own_open_pulls("org/eg3d", "Erase") == ([], True)
    with monkeypatch.context() as job:  # which can't be asked who it is
        job.setenv("HF_TOKEN", JOB_TOKEN)
        pulls, own = own_open_pulls("org/eg3d", "Erase")
        assert ([pull.url for pull in pulls], own) == ([pushed.pr_url], False)
    assert hub.head("org/eg3d") == base
    assert hub.files("org/eg3d") == MODEL
    assert resolve("org/eg3d").weights_file.read_bytes() == MODEL["model.safetensors"]
    erased = resolve("org/eg3d", "refs/pr/1")
    assert erased.revision == pushed.commit
    assert erased.weights_file.read_bytes() == (finished / "model.safetensors").read_bytes()

    hub.merge("org/eg3d", 1)
    assert resolve("org/eg3d").weights_file.read_bytes() == (finished / "model.safetensors").read_bytes()
    assert own_open_pulls("org/eg3d", "Erase") == ([], True)


@pytest.mark.parametrize("create_pr", [False, True])
def test_head_that_moved_before_the_push(hub: LoopbackHub, finished: Path, create_pr: bool) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    moved = hub.commit("org/eg3d", {"erasure_record.json": b"somebody else's erasure"})
    with pytest.raises(ConflictError, match="somebody pushed") as caught:
        publish(finished, base, create_pr=create_pr)
    assert caught.value.exit_code == 5
    assert hub.head("org/eg3d") == moved
    assert not hub.requests("POST", "/commit/|/preupload/|/lfs/")


def test_head_that_moves_during_the_push(hub: LoopbackHub, finished: Path) -> None:
    """The Hub itself refuses (412), and the client does not try again on top of the other commit."""
    base = hub.create_repo("org/eg3d", MODEL)
    hub.before_commit = lambda: hub.commit("org/eg3d", {"erasure_record.json": b"somebody else's erasure"})
    with pytest.raises(ConflictError, match="somebody pushed"):
        publish(finished, base)
    assert len(hub.requests("POST", "/commit/main")) == 1
    assert hub.files("org/eg3d")["erasure_record.json"] == b"somebody else's erasure"
    assert hub.files("org/eg3d")["model.safetensors"] == MODEL["model.safetensors"]


def test_push_with_a_read_only_token(
    hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    for create_pr in (False, True):
        with pytest.raises(HubError, match="403"):
            publish(finished, base, create_pr=create_pr)
    assert hub.head("org/eg3d") == base


def test_ignore_file_of_the_repository_leaves_nothing_out(hub: LoopbackHub, finished: Path) -> None:
    base = hub.create_repo("org/eg3d", {**MODEL, ".gitignore": b"*.safetensors\n*.json\n"})
    publish(finished, base)
    assert hub.files("org/eg3d").items() >= contents(finished).items()


def test_commit_with_other_content_is_no_success(hub: LoopbackHub, finished: Path) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.before_commit = lambda: hub.lfs.update(
        {hashlib.sha256((finished / "model.safetensors").read_bytes()).hexdigest(): b"other content"}
    )
    with pytest.raises(HubError, match=r"its model\.safetensors is not the one"):
        publish(finished, base)


def test_commit_that_can_not_be_read_back(
    hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is there, and the message must not say otherwise."""
    base = hub.create_repo("org/eg3d", MODEL)
    hub.before_commit = lambda: monkeypatch.setattr(hub, "readable", refuse_reading_back)
    readable = hub.readable

    def refuse_reading_back(name, user, *, files=False):
        if files:
            raise HubFault(500, "out of order")
        return readable(name, user)

    with pytest.raises(HubError, match="was made, but could not be read back") as caught:
        publish(finished, base)
    assert hub.head("org/eg3d") in str(caught.value)


def test_card_that_the_hub_refuses(hub: LoopbackHub, finished: Path) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    (finished / "README.md").write_text("---\n- a list\n---\n")
    write_checksums(finished)
    with pytest.raises(HubError, match="refuses the model card"):
        publish(finished, base)
    assert hub.head("org/eg3d") == base


@pytest.mark.parametrize(
    "name", ["photo-of-alice.jpg", "network.pkl", "assets/notes.txt", "assets/more/x.png", ".env"]
)
def test_extra_file_is_refused_and_not_named(hub: LoopbackHub, finished: Path, name: str) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    (finished / name).parent.mkdir(exist_ok=True)
    (finished / name).write_bytes(b"x")
    write_checksums(finished)
    with pytest.raises(InputError, match="not of an erased model") as caught:
        publish(finished, base)
    assert caught.value.exit_code == 2
    assert Path(name).stem not in str(caught.value)
    assert not hub.wire


def test_tampered_and_incomplete_folders_are_refused(hub: LoopbackHub, finished: Path) -> None:
    sums = (finished / "SHA256SUMS").read_text()
    (finished / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"model\.safetensors is not what SHA256SUMS says"):
        publish(finished, "0" * 40)
    write_checksums(finished)
    (finished / "LICENSE").unlink()
    with pytest.raises(InputError, match="states files that are not"):
        publish(finished, "0" * 40)
    (finished / "SHA256SUMS").write_text(sums + "nonsense\n")
    with pytest.raises(InputError, match=f"SHA256SUMS:{len(sums.splitlines()) + 1}:1: is not a line"):
        publish(finished, "0" * 40)
    (finished / "SHA256SUMS").write_text("")
    with pytest.raises(InputError, match=r"config\.json is not what"):
        publish(finished, "0" * 40)
    (finished / "erasure_record.json").unlink()
    with pytest.raises(InputError, match=r"erasure_record\.json is missing"):
        publish(finished, "0" * 40)
    assert not hub.wire


# -- a Hub in trouble --------------------------------------------------------------------------------------


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that we and the client would have waited; nobody does."""
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    return naps


# What the client itself tries again: listings, preupload, LFS. And what only `patiently` and `push` do.
CLIENTS = [("POST", "/preupload/"), ("POST", "/objects/batch"), ("PUT", "/_lfs/")]
OURS = [("GET", "/api/models/org/eg3d$"), ("POST", "/paths-info/"), ("POST", "/commit/main")]
OURS += [("POST", "/validate-yaml")]


@pytest.mark.parametrize("create_pr", [False, True])
@pytest.mark.parametrize(("method", "path"), CLIENTS + OURS)
def test_push_to_a_busy_hub(
    hub: LoopbackHub, finished: Path, naps: list[float], method: str, path: str, create_pr: bool
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.trouble(method, path, status=503)
    hub.trouble(method, path, status=429, headers={"Retry-After": "7"})
    pushed = publish(finished, base, create_pr=create_pr)
    assert hub.files("org/eg3d", pushed.commit).items() >= contents(finished).items()
    assert len(naps) == 2
    assert max(naps) >= 7
    commits = {c.oid for ref in hub.repos["org/eg3d"].refs for c in hub.log("org/eg3d", ref)}
    assert commits == {base, pushed.commit}
    assert len(hub.repos["org/eg3d"].pulls) == create_pr


@pytest.mark.parametrize(
    ("trouble", "tries"),
    [({"status": 503}, 4), ({"status": 500}, 1), ({"status": 429, "headers": {"Retry-After": "3600"}}, 1)],
)
def test_patience_ends(
    hub: LoopbackHub, finished: Path, naps: list[float], trouble: dict, tries: int
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.trouble("POST", "/commit/main", times=99, **trouble)
    with pytest.raises(HubError) as caught:
        publish(finished, base)
    assert caught.value.exit_code == 4
    assert len(hub.requests("POST", "/commit/main")) == tries
    assert len(naps) == tries - 1
    assert hub.head("org/eg3d") == base


@pytest.mark.parametrize("create_pr", [False, True])
def test_preflight_on_a_busy_hub(hub: LoopbackHub, naps: list[float], create_pr: bool) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    for path in ("/whoami-v2", "/auth-check", "/api/models/org/eg3d\\?"):
        hub.trouble("GET", path, status=502)
    assert preflight("org/eg3d", create_pr=create_pr).sha == base
    assert len(naps) == 3


def test_upload_that_is_cut_is_sent_again_by_the_client(
    hub: LoopbackHub, finished: Path, naps: list[float]
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.trouble("PUT", "/_lfs/", cut_after=8, times=2)
    publish(finished, base)
    assert hub.files("org/eg3d").items() >= contents(finished).items()


@pytest.mark.parametrize("create_pr", [False, True])
def test_upload_that_stays_cut_is_finished_by_another_push(
    hub: LoopbackHub, finished: Path, naps: list[float], create_pr: bool
) -> None:
    """What was uploaded is not sent again, and nothing of it shows before the one commit."""
    base = hub.create_repo("org/eg3d", MODEL)
    weights = hashlib.sha256((finished / "model.safetensors").read_bytes()).hexdigest()
    picture = hashlib.sha256((finished / "assets/before_after.png").read_bytes()).hexdigest()
    cut = hub.trouble("PUT", weights, cut_after=1000, times=99)
    with pytest.raises(HubError, match=r"broke off|can't be reached") as caught:
        publish(finished, base, create_pr=create_pr)
    assert caught.value.exit_code == 4
    assert (hub.head("org/eg3d"), hub.repos["org/eg3d"].pulls) == (base, [])
    assert not hub.requests("POST", "/commit/")
    cut.times = 0
    hub.wire.clear()
    pushed = publish(finished, base, create_pr=create_pr)
    assert hub.files("org/eg3d", pushed.commit).items() >= contents(finished).items()
    sent = {Path(r.path).name for r in hub.requests("PUT", "/_lfs/")}
    assert weights in sent
    assert len(hub.requests("PUT", picture)) <= 1


@pytest.mark.parametrize("create_pr", [False, True])
def test_commit_whose_answer_is_lost_is_not_made_twice(
    hub: LoopbackHub, finished: Path, naps: list[float], create_pr: bool
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.trouble("POST", "/commit/main", lost=True)
    pushed = publish(finished, base, create_pr=create_pr, delete=["network.pkl"])
    assert len(hub.requests("POST", "/commit/main")) == 1
    assert pushed.commit == hub.head("org/eg3d", "refs/pr/1" if create_pr else "main")
    assert len(hub.repos["org/eg3d"].pulls) == create_pr
    assert (pushed.pr_url is not None) == create_pr
    if create_pr:
        assert pushed.pr_url == f"{hub.endpoint}/org/eg3d/discussions/1"


@pytest.mark.parametrize("create_pr", [False, True])
def test_push_done_twice_is_done_once(hub: LoopbackHub, finished: Path, create_pr: bool) -> None:
    """As after a kill between the commit and its answer."""
    base = hub.create_repo("org/eg3d", MODEL)
    first = publish(finished, base, create_pr=create_pr)
    assert publish(finished, base, create_pr=create_pr) == first
    assert len(hub.requests("POST", "/commit/main")) == 1
    if create_pr:
        hub.merge("org/eg3d", 1)
        again = publish(finished, base, create_pr=True)
        assert (again.commit, again.pr_url) == (hub.head("org/eg3d"), None)
        assert len(hub.repos["org/eg3d"].pulls) == 1


def test_pull_request_of_the_same_title_with_other_files_is_not_ours(
    hub: LoopbackHub, finished: Path
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.pull_request("org/eg3d", {"model.safetensors": b"the person"}, "Erase subject-a", "stranger")
    pushed = publish(finished, base, create_pr=True)
    assert pushed.pr_url == f"{hub.endpoint}/org/eg3d/discussions/2"


@pytest.mark.parametrize("create_pr", [False, True])
def test_head_that_moves_during_the_upload(hub: LoopbackHub, finished: Path, create_pr: bool) -> None:
    """Uploads take minutes; nothing is committed on top of what came meanwhile, nor a request opened."""
    base = hub.create_repo("org/eg3d", MODEL)
    meanwhile = {"erasure_record.json": b"somebody else's erasure"}
    hub.trouble("PUT", "/_lfs/", act=lambda: hub.commit("org/eg3d", meanwhile))
    with pytest.raises(ConflictError) as caught:
        publish(finished, base, create_pr=create_pr)
    assert caught.value.exit_code == 5
    assert not hub.requests("POST", "/commit/")
    assert hub.repos["org/eg3d"].pulls == []
    assert hub.files("org/eg3d")["model.safetensors"] == MODEL["model.safetensors"]


def test_slow_download_goes_on_where_it_stopped(hub: LoopbackHub) -> None:
    hub.create_repo("org/slow", MODEL)
    hub.trouble("GET", "/_lfs/", slow=1.5)
    code = "from guide_hub.hub import resolve; print(resolve('org/slow').weights_file.read_bytes().hex())"
    environment = {**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == MODEL["model.safetensors"].hex()
    assert len(hub.requests("GET", "/_lfs/")) == 2


# -- tokens for one repository -----------------------------------------------------------------------------


@pytest.mark.parametrize("token", [REPO_TOKEN, JOB_TOKEN], ids=["fine-grained", "trusted-publisher"])
@pytest.mark.parametrize("create_pr", [False, True])
def test_token_for_one_repository(
    hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch, token: str, create_pr: bool
) -> None:
    base = hub.create_repo("org/eg3d", MODEL)
    hub.create_repo("org/secret", MODEL, private=True)
    monkeypatch.setenv("HF_TOKEN", token)
    assert preflight("org/eg3d", create_pr=create_pr) == Head("org/eg3d", base, ["network.pkl"])
    pushed = publish(finished, base, create_pr=create_pr)
    assert hub.files("org/eg3d", pushed.commit).items() >= contents(finished).items()
    with pytest.raises(HubError, match="does not exist"):
        resolve("org/secret")


@pytest.mark.parametrize("create_pr", [False, True])
def test_token_for_another_repository_is_found_out_before_the_work(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, create_pr: bool
) -> None:
    hub.create_repo("org/other", MODEL)
    monkeypatch.setenv("HF_TOKEN", REPO_TOKEN)
    with pytest.raises(HubError, match=r"can't write to org/other|403"):
        preflight("org/other", create_pr=create_pr)


def test_access_of_a_stranger_is_pull_requests_alone(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create_repo("org/eg3d", MODEL)
    assert preflight("org/eg3d", create_pr=True).may_write
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    assert not preflight("org/eg3d", create_pr=True).may_write


# -- privacy and failures ----------------------------------------------------------------------------------


def test_no_token_in_any_message(hub: LoopbackHub, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo("org/eg3d", MODEL)
    tokens = (
        READ_TOKEN,
        STRANGER_TOKEN,
        "hf_wrongTokenOfNobody",
        "hf_wrong\x01TokenOfNobody",
        "hf_wrongTökenOfNobody",
    )
    calls = [
        lambda: preflight("org/eg3d"),
        lambda: resolve("org/nothing"),
        lambda: publish(finished, hub.head("org/eg3d")),
    ]
    seen = 0
    for token in tokens:
        monkeypatch.setenv("HF_TOKEN", token)
        for call in calls:
            with pytest.raises(GuideHubError) as caught:
                call()
            seen += 1
            assert token not in str(caught.value)
            assert token[3:] not in json.dumps([vars(p) for p in caught.value.problems])
    assert seen == len(tokens) * len(calls)


def test_server_that_echoes_a_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(*_, **__):
        raise HubFault(500, f"could not look up {WRITE_TOKEN}")

    monkeypatch.setattr(hub, "readable", echo)
    with pytest.raises(HubError, match="answered 500") as caught:
        resolve("org/eg3d")
    assert WRITE_TOKEN not in str(caught.value)


def test_hub_that_is_not_there() -> None:
    code = (
        "from guide_hub.hub import resolve, preflight\nfrom guide_hub.errors import HubError\n"
        "for call in (resolve, preflight):\n"
        "    try: call('org/eg3d')\n"
        "    except HubError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": WRITE_TOKEN}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("can't be reached (ConnectError) (check the network") == 2


# -- the loopback Hub itself ---------------------------------------------------------------------------------


def test_loopback_hub_keeps_refs_history_and_derived_models(hub: LoopbackHub, finished: Path) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    base = hub.create_repo("org/eg3d", MODEL)
    hub.create_repo("other/derived", {"README.md": b"---\nbase_model: org/eg3d\n---\n"})
    api.create_tag("org/eg3d", tag="v1")
    api.create_branch("org/eg3d", branch="old")
    request = publish(finished, base, create_pr=True)
    api.merge_pull_request("org/eg3d", 1)
    merged = hub.head("org/eg3d")

    refs = api.list_repo_refs("org/eg3d", include_pull_requests=True)
    assert {r.ref: r.target_commit for r in [*refs.branches, *refs.tags, *refs.pull_requests]} == {
        "refs/heads/main": merged,
        "refs/heads/old": base,
        "refs/tags/v1": base,
        "refs/pr/1": request.commit,
    }
    assert [c.commit_id for c in api.list_repo_commits("org/eg3d")] == [merged, base]
    assert [m.id for m in api.list_models(filter="base_model:org/eg3d")] == ["other/derived"]
    assert api.get_discussion_details("org/eg3d", 1).status == "merged"
    assert {f.path for f in api.list_repo_tree("org/eg3d", recursive=True)} == {
        "network.pkl", *contents(finished),
    }  # fmt: skip

    api.delete_tag("org/eg3d", tag="v1")
    api.delete_branch("org/eg3d", branch="old")
    api.super_squash_history("org/eg3d", branch="main")
    assert len(hub.log("org/eg3d")) == 1
    old = hashlib.sha256(MODEL["model.safetensors"]).hexdigest()
    doomed = [f for f in api.list_lfs_files("org/eg3d") if f.file_oid == old]
    assert len(doomed) == 1  # refs/pr/1 still leads to the base commit
    api.permanently_delete_lfs_files("org/eg3d", doomed)
    assert old not in {f.file_oid for f in api.list_lfs_files("org/eg3d")}
    assert MODEL["model.safetensors"] not in hub.files("org/eg3d", base).values()


def test_loopback_hub_keeps_what_was_sent(hub: LoopbackHub, finished: Path) -> None:
    """Else a search for what must stay private would find nothing and mean nothing."""
    publish(finished, hub.create_repo("org/eg3d", MODEL))
    sent = hub.sent()
    assert (finished / "model.safetensors").read_bytes() in sent
    assert (finished / "erasure_record.json").read_bytes() in sent
    assert b"Erase subject-a" in sent


# -- what may hold weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["ema.tar", "ckpt.zip", "model.pkl.gz", "w.tar.gz", "network.jit", "model.engine", "old.pt.bak", "A.PKL"],
)
def test_other_weights_by_name(name: str) -> None:
    assert other_weights([name, "model.safetensors", "notes.txt"]) == [name]


def test_other_weights_by_size(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the Hub, LFS files of an unknown kind count; pictures, text and our own do not."""
    monkeypatch.setattr("loopback_hub.LFS_SUFFIXES", (".safetensors", ".png", ".blob", "LICENSE"))
    files = {
        "network.blob": b"x",
        "teaser.png": b"x",
        "small.dat": b"x",
        "model.safetensors.index.json": b"x",
    }
    hub.create_repo("org/eg3d", {**without("network.pkl"), **files})
    assert preflight("org/eg3d").other_weights == ["network.blob"]
    assert resolve("org/eg3d").other_weights == ["network.blob"]
    assert other_weights(["big.dat"], ["big.dat"]) == ["big.dat"]
    assert other_weights(["big.dat"]) == []
