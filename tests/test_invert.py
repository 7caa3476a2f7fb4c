"""`guide-hub invert`: figures, sheets and refusals before anything is erased."""

from __future__ import annotations

import stat

import numpy as np
import pytest
import tiny_erasure as tiny
from PIL import Image
from safetensors.torch import load_file

from guide_hub import invert
from guide_hub.faces import crops


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("invert")


@pytest.fixture(scope="module")
def model(home):
    tiny.make_weights(home / "weights")
    return tiny.make_model(home / "model")


@pytest.fixture(autouse=True)
def _world(home, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(home / "weights"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    monkeypatch.setattr(invert, "check_grouping", lambda *_: None)  # noise is nobody


@pytest.fixture
def run(call, model, tmp_path, monkeypatch):
    """`guide-hub invert` at a threshold."""

    def invert_at(threshold, *options):
        monkeypatch.setattr(invert, "find_threshold", lambda *_: threshold)
        recipe = tiny.make_recipe(tmp_path / "recipe")
        request = tiny.make_request(tmp_path / "request")
        return call(
            "invert", "--repo", model, "--request", request, "--recipe", recipe, "--device", "cpu", *options
        )

    return invert_at


def test_json_has_the_figures_of_every_photo_and_person(run):
    done = run(tiny.EVERYBODY, "--json", "-q")
    assert (done.code, done.json["status"]) == (0, "inverted")
    assert [p["photo"] for p in done.json["photos"]] == [
        "identities[0].images[0]", "identities[0].images[1]", "identities[1].images[0]",
    ]  # fmt: skip
    assert [p["fitted"] for p in done.json["photos"]] == [True, False, True]
    a, b = done.json["inversions"]
    assert (a["photos"], a["fitted"], b["photos"], b["fitted"]) == (2, 1, 1, 1)
    assert a["cosine"] == done.json["photos"][0]["cosine"]
    assert a["cosine"] != b["cosine"]
    assert done.json["erasures"] == []


def test_for_people(run):
    done = run(tiny.EVERYBODY)
    assert done.code == 0
    assert "held out" in done.out
    assert "subject-a: shown (cosine" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "IMG_2207" not in done.out + done.err


def test_the_answer_no_has_the_figures(run, tmp_path):
    done = run(tiny.NOBODY, "--json", "-q")
    assert (done.code, done.json["status"]) == (3, "no_match")
    assert len(done.json["photos"]) == 3
    assert [i["identity_id"] for i in done.json["inversions"]] == ["subject-a", "subject-b"]
    told = run(tiny.NOBODY)
    assert told.code == 3
    assert "subject-b: not shown (cosine" in told.out
    assert "identities[0].images[1]" in told.out


def test_sheets_are_private_and_show_photo_crop_and_renders(run, tmp_path):
    folder = tmp_path / "private"
    assert run(tiny.EVERYBODY, "--report", folder).code == 0
    assert {p.name for p in folder.iterdir()} == {
        "subject-a-inversion.png", "subject-b-inversion.png", "latents.safetensors",
    }  # fmt: skip
    latents = load_file(folder / "latents.safetensors")
    assert {name: w.shape[0] for name, w in latents.items()} == {"subject-a": 1, "subject-b": 1}
    assert stat.S_IMODE((folder / "latents.safetensors").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sheet = folder / "subject-a-inversion.png"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    scale = 256 // 64
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    assert pixels.shape == (2 * (64 * scale + 16), 6 * 64 * scale, 3)
    photo = np.asarray(Image.open(tmp_path / "request" / "IMG_2207.png").convert("RGB").resize((64, 64)))
    shown = pixels[16 : 16 + 64 * scale : scale, 64 * scale : 2 * 64 * scale : scale]
    assert np.abs(shown.astype(int) - photo).mean() < 2


def test_photos_by_path_are_of_one_person(call, run, model, tmp_path, monkeypatch):
    run(tiny.EVERYBODY, "-q")  # makes the photos
    photos = [tmp_path / "request" / name for name in ("IMG_2207.png", "IMG_2208.png", "holiday.png")]
    recipe = tmp_path / "recipe" / "tiny.yaml"
    options = ["--repo", model, "--recipe", recipe, "--device", "cpu", "--json", "-q"]
    done = call("invert", *photos, *options)
    assert done.code == 0
    assert [p["photo"] for p in done.json["photos"]] == ["photo 1", "photo 2", "photo 3"]
    assert [(i["fitted"], i["photos"]) for i in done.json["inversions"]] == [(2, 3)]
    assert call("invert", *photos, "--request", tmp_path / "request" / "req-7.yaml", *options).code == 2
    assert call("invert", *options).code == 2
    (tmp_path / "empty.png").touch()
    broken = call("invert", photos[0], tmp_path / "empty.png", *options)
    assert (broken.code, broken.json["errors"][0]["message"]) == (2, "photo 2 is empty")


def test_without_a_report_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tiny.EVERYBODY)
    assert {p.name for p in tmp_path.iterdir()} == {"recipe", "request"}
