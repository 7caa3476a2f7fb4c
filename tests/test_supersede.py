"""`--supersede`: `new_version` on the base's card, by a pull request, with all else of the card as it was."""

import pytest
import takedowns
import yaml
from loopback_hub import MAIN, READ_TOKEN, STRANGER_TOKEN, LoopbackHub
from takedowns import BASE, ONE

from guide_hub.delivery import push_folder
from guide_hub.errors import HubError, InputError
from guide_hub.supersede import supersede, with_new_version

TARGET = "org/heads-erased"
OPTIONS = {"create_pr": None, "delete_other_weights": False, "replace_record": False}


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"", b"---\nnew_version: org/heads-erased\n---\n"),
        (b"# Heads\n", b"---\nnew_version: org/heads-erased\n---\n\n# Heads\n"),
        (b"---\nlicense: mit\n---\n# H\n", b"---\nlicense: mit\nnew_version: org/heads-erased\n---\n# H\n"),
        (b"---\n---\n# H\n", b"---\nnew_version: org/heads-erased\n---\n# H\n"),
        (
            b"\xef\xbb\xbf---\r\na: 'x' # why\r\n---\r\nbody  \r\n",
            b"\xef\xbb\xbf---\r\na: 'x' # why\r\nnew_version: org/heads-erased\r\n---\r\nbody  \r\n",
        ),
        (
            b"---\nnew_version: org/other   # older\ntags: [b,   a]\n---\n",
            b"---\nnew_version: org/heads-erased\ntags: [b,   a]\n---\n",
        ),
        (
            b'---\na: 1\n"new_version": >-\n  org/other\nb: |\n  x\n  y\n---\n---\ntext\n',
            b"---\na: 1\nnew_version: org/heads-erased\nb: |\n  x\n  y\n---\n---\ntext\n",
        ),
        (
            b"---\nmodel-index:\n- name: x\n  new_version: deep\n# last\n---\n",
            b"---\nmodel-index:\n- name: x\n  new_version: deep\n# last\n"
            b"new_version: org/heads-erased\n---\n",
        ),
    ],
)
def test_one_line_changes_and_nothing_else(card: bytes, expected: bytes) -> None:
    new = with_new_version(card, TARGET)
    assert new == expected
    assert with_new_version(new, TARGET) == new
    front = new.decode("utf-8-sig").replace("\r", "").split("---\n")[1]
    assert yaml.safe_load(front)["new_version"] == TARGET


@pytest.mark.parametrize(
    "card",
    [
        b"---\n{a: 1}\n---\n",
        b"---\n[a]\n---\n",
        b"---\na: [\n---\n",
        b"---\na: 1\n",
        b"---\ntext\n---\n",
        b"---\nb: &x [1]\nnew_version: &y z\nc: *y\n---\n",
        b"\xff\xfe",
    ],
)
def test_card_that_can_not_be_edited_safely_is_left_alone(card: bytes) -> None:
    with pytest.raises(InputError, match="by hand"):
        with_new_version(card, TARGET)


def test_pull_request_on_the_base(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo("org/heads", BASE)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)  # whoever may read a card may propose a change
    url = supersede("org/heads", TARGET)
    assert url == f"{hub.endpoint}/org/heads/discussions/1"
    assert hub.files("org/heads")["README.md"] == BASE["README.md"]
    assert hub.files("org/heads", "refs/pr/1") == {
        **BASE, "README.md": b"---\nlicense: mit\nnew_version: org/heads-erased\n---\n\n# Heads\n",
    }  # fmt: skip
    assert supersede("org/heads", TARGET) == url  # open already
    hub.merge("org/heads", 1)
    assert supersede("org/heads", TARGET) == f"{hub.endpoint}/org/heads"  # said already
    assert len(hub.repos["org/heads"].pulls) == 1
    assert "subject" not in hub.repos["org/heads"].pulls[0].title


def test_request_of_the_same_title_with_another_card_is_not_ours(hub: LoopbackHub) -> None:
    hub.create_repo("org/heads", BASE)
    title = f"Point to {TARGET}, the version with erasures"
    hub.pull_request("org/heads", {"README.md": b"# defaced\n"}, title, "stranger")
    assert supersede("org/heads", TARGET).endswith("/discussions/2")


@pytest.fixture
def folder(hub: LoopbackHub, tmp_path):
    """A finished folder, made from org/heads."""
    base = hub.create_repo("org/heads", BASE)
    files = takedowns.erased(
        b"one" * 400, BASE["model.safetensors"], ONE, uri="hf://org/heads", revision=base, repo=TARGET
    )
    for name, data in files.items():
        path = tmp_path / "erased" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "erased"


def test_push_that_supersedes(hub: LoopbackHub, folder, call) -> None:
    done = call("push", folder, "--to", TARGET, "--supersede", "--json")
    assert done.code == 0
    assert done.json["pushed"]["superseded"] == f"{hub.endpoint}/org/heads/discussions/1"
    assert b"new_version: org/heads-erased" in hub.files("org/heads", "refs/pr/1")["README.md"]
    assert hub.files("org/heads") == BASE
    again = call("push", folder, "--to", TARGET, "--supersede", "--json")
    assert again.json == done.json  # nothing is done twice
    assert call("push", folder, "--to", TARGET, "--json").json["pushed"]["superseded"] is None


def test_only_where_base_and_target_differ(hub: LoopbackHub, folder) -> None:
    with pytest.raises(InputError, match="goes to the base itself"):
        push_folder(folder, "org/heads", supersede=True, **OPTIONS)
    assert hub.repos["org/heads"].pulls == []


def test_base_that_is_gone_does_not_hide_that_the_push_is_done(hub: LoopbackHub, folder) -> None:
    hub.trouble("GET", "/api/models/org/heads$", act=lambda: hub.repos.pop("org/heads"), times=1)
    with pytest.raises(HubError, match=r"the model is pushed .*is not changed"):
        push_folder(folder, TARGET, supersede=True, **OPTIONS)
    assert "model.safetensors" in hub.files(TARGET, MAIN)


def test_read_only_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo("org/heads", BASE)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(HubError, match="403"):
        supersede("org/heads", TARGET)
