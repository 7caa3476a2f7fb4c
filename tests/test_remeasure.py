"""`verify --request`: commitments under the maintainer's keys, and figures measured once more."""

from __future__ import annotations

import shutil

import pytest
import tiny_erasure as tiny

from guide_hub import pipeline, record
from guide_hub.faces import crops

REPO = "org/eg3d"
KEY = "5e" * 32


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(tmp_path / "weights")))
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def request_file(tmp_path):
    return tiny.make_request(tmp_path / "request", people={"subject-a": ("IMG_2207.png",)})


@pytest.fixture
def erased(tmp_path, request_file):
    """A finished folder, whose base was a folder too."""
    model = tiny.make_model(tmp_path / "model")
    tiny.calibrated(model, tiny.EVERYBODY)
    pipeline.erase(
        str(model), request_file, device="cpu", recipe=tiny.make_recipe(tmp_path), output=tmp_path / "erased"
    )
    return tmp_path / "erased"


def checks(done):
    return {check["name"]: check["status"] for check in done.json["checks"]}


def test_whole(call, erased, request_file, tmp_path):
    arguments = ("--request", request_file, "--device", "cpu", "-q")
    done = call("verify", erased, *arguments, "--base", tmp_path / "model", "--json")
    assert done.code == 0, done.err
    assert checks(done)["commitment subject-a"] == checks(done)["figures subject-a"] == "passed"
    (measured,) = done.json["measured"]
    said = record.read_record(erased)["predicate"]["erasures"][0]["metrics"]["id"]
    assert measured["identity_id"] == "subject-a"
    assert (measured["before"], measured["now"]) == pytest.approx((said["before"], said["now"]), abs=1e-3)
    assert measured["others_before"] is None
    assert "IMG_2207" not in done.out + done.err
    needs = call("verify", erased, *arguments)
    assert needs.code == 2
    assert "--base" in needs.err


def test_a_figure_that_is_not_true(call, erased, request_file, tmp_path):
    """The one tampering that nobody without the photos can find."""
    statement = record.read_record(erased)
    statement["predicate"]["erasures"][0]["metrics"]["id"]["now"] -= 0.3
    (erased / "erasure_record.json").write_bytes(record.to_bytes(statement))
    card = record.rerender_card((erased / "README.md").read_text(), statement)
    (erased / "README.md").write_text(card)
    record.write_sums(erased)
    assert call("verify", erased).code == 0
    done = call("verify", erased, "--request", request_file, "--base", tmp_path / "model", "--json", "-q")
    assert done.code == 3
    assert [n for n, status in checks(done).items() if status == "failed"] == ["figures subject-a"]


def test_a_recipe_of_a_repository_names_no_files(call, erased, request_file, tmp_path):
    recipe = erased / "recipe.yaml"
    text = recipe.read_text()
    assert "identity_judge: null" in text
    recipe.write_text(text.replace("identity_judge: null", 'identity_judge: "irse50:/etc/passwd"'))
    done = call("verify", erased, "--request", request_file, "--base", tmp_path / "model", "--json", "-q")
    assert done.code == 2
    assert "names files of a machine" in done.json["errors"][0]["message"]


def test_people_are_told_apart_as_before_an_erasure(call, erased, request_file, tmp_path):
    people = {"subject-a": ("IMG_2207.png",), "subject-b": ("holiday.png",)}  # one person, to a line of -1
    tiny.make_request(tmp_path / "request", people=people)
    done = call("verify", erased, "--request", request_file, "--base", tmp_path / "model", "--json", "-q")
    assert done.code == 2
    assert "shows the person of" in done.json["errors"][0]["message"]


def test_keys_and_other_photos(call, erased, request_file, tmp_path, monkeypatch):
    def check():
        done = call("verify", erased, "--request", request_file, "--base", tmp_path / "model", "--json", "-q")
        (found,) = [c for c in done.json["checks"] if c["name"] == "commitment subject-a"]
        return found["status"], found["detail"]

    key = tmp_path / "state" / "key"
    old = key.read_text()
    key.write_text(f"{KEY}\n{old}")
    assert check() == ("passed", "of these photos, under an older key")
    key.write_text(KEY)
    assert check()[0] == "failed"
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "none"))
    assert check() == ("unchecked", "there is no key")
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("GUIDE_HUB_KEY", f"{KEY}\n{old}")
    assert check()[0] == "passed"
    tiny.make_request(tmp_path / "request", people={"subject-a": ("holiday.png",)})
    assert check()[0] == "failed"
    tiny.make_request(tmp_path / "request", people={"subject-b": ("holiday.png",)})
    done = call("verify", erased, "--request", request_file, "--base", tmp_path / "model", "--json", "-q")
    assert checks(done)["commitment subject-b"] == "failed"
    assert done.json["measured"] == []


def test_an_earlier_erasure_is_found_in_its_own_base(call, hub, request_file, tmp_path):
    """The second run's base has it already, the first run's not. No `now` on record: the line decides."""
    model = tiny.make_model(tmp_path / "model")
    hub.create_repo(REPO, tiny.tree(model))
    base = record.file_sha256(model / "model.safetensors")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)
    options = ["--recipe", tiny.make_recipe(tmp_path), "--device", "cpu", "--no-create-pr", "-q"]
    other = tiny.make_request(tmp_path / "next", "req-8", {"subject-b": ("holiday.png",)})
    for request, output in ((request_file, "one"), (other, "two")):
        done = call("erase", "--repo", REPO, "--request", request, "--output", output, *options)
        assert done.code == 0, done.err
        shutil.rmtree(tmp_path / "state" / base)  # as on another machine
    shutil.rmtree(tmp_path / "model")
    monkeypatch.setattr("guide_hub.remeasure.find_threshold", lambda *_: tiny.EVERYBODY)
    lower = call("verify", REPO, "--request", request_file, "--device", "cpu", "--json", "-q")
    assert checks(lower)["figures subject-a"] == "failed"  # over the line of -1: it no longer holds
    monkeypatch.setattr("guide_hub.remeasure.find_threshold", lambda *_: tiny.NOBODY)
    higher = call("verify", REPO, "--request", request_file, "--device", "cpu", "--json", "-q")
    assert checks(higher)["figures subject-a"] == "passed"
    own = call("verify", REPO, "--request", other, "--device", "cpu", "--json", "-q")
    assert own.code == 0
    assert checks(own)["figures subject-b"] == "passed"
    monkeypatch.undo()
