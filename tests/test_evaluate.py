"""`guide-hub evaluate` on a tiny erased model: figures, sources, refusals, and what it must not say."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_erasure as tiny
import torch
from safetensors.torch import save_file

from guide_hub import evaluate, people, pipeline, record
from guide_hub.errors import InputError
from guide_hub.evaluate import default_features, read_features
from guide_hub.faces import crops

REPO = "org/eg3d"
SAMPLES = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module", autouse=True)
def _world(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(home / "weights")))
        patch.setenv("GUIDE_HUB_STATE", str(home / "state"))
        patch.setattr(crops, "read_faces", tiny.whole_photos)
        patch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)
        for module in (people, evaluate):
            patch.setattr(module, "check_grouping", lambda *_: None)  # noise is nobody
        yield


@pytest.fixture(scope="module")
def model(home):
    folder = tiny.make_model(home / "model")
    tiny.calibrated(folder, 0.5)
    return folder


@pytest.fixture(scope="module")
def job(home, model):
    """Two people out of the model."""
    request, recipe = tiny.make_request(home / "request"), tiny.make_recipe(home / "recipe")
    pipeline.erase(str(model), request, recipe=recipe, output=home / "erased", device="cpu")
    return SimpleNamespace(request=request, erased=home / "erased")


@pytest.fixture(scope="module")
def found(job, model):
    """The whole evaluation; read only."""
    return evaluate.evaluate(
        str(job.erased), base=str(model), request=job.request, samples=SAMPLES, device="cpu"
    )


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """`guide-hub evaluate ARGUMENTS` in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call("evaluate", *arguments, "--device", "cpu")


# ----------------------------------------------------------------------------
# Figures


def test_json_has_counts_seeds_names_and_intervals(found, model, job):
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(out) == {
        "status", "model", "base", "recipe", "device", "judge", "views", "identities", "mean", "retained",
        "drift",
    }  # fmt: skip
    assert out["base"] == {
        "repo": "local", "revision": None, "sha256": record.file_sha256(model / "model.safetensors")
    }  # fmt: skip
    assert out["model"]["sha256"] == record.file_sha256(job.erased / "model.safetensors")
    assert out["recipe"] == "tiny"
    assert out["judge"] == {"name": "heads-b", "far": 1e-3, "threshold": 0.5}
    assert out["views"] == 11
    a, b = out["identities"]
    assert (a["identity_id"], a["photos"], b["identity_id"], b["photos"]) == ("subject-a", 2, "subject-b", 1)
    for kind in ("render", "photo", "photo_before"):
        for name, n, over in (("id", 11, "views"), ("id_others", 1, "photos"), ("id_avg", 2, "photos")):
            assert (a[kind][name]["n"], a[kind][name]["over"]) == (n, over)
        assert b[kind]["id_others"] is None
        assert (out["mean"][kind]["id"]["n"], out["mean"][kind]["id"]["over"]) == (2, "identities")
        average = (a[kind]["id"]["value"] + b[kind]["id"]["value"]) / 2
        assert out["mean"][kind]["id"]["value"] == pytest.approx(average)
    assert out["retained"]["verified"]["n"] == out["retained"]["cosine"]["n"] == 3
    drift = out["drift"]
    assert (drift["extractor"], drift["features"], drift["is_fid"]) == ("heads-pooled", 328, False)
    assert (drift["samples"], drift["noise"], drift["rays"]) == (SAMPLES, "const", "jittered")
    assert drift["seeds"] == {"latents": 0, "other_latents": 1, "noise": 0, "other_noise": 1}
    more = (drift["same_noise"], *drift["floors"].values())
    for figure in (drift["fid_pre"], drift["kid"], *(f for both in more for f in both.values())):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert drift["dfid_real"] is None


def test_drift_is_over_its_noise_and_under_other_latents(found):
    drift = found.drift
    assert 0 < drift.noise_floor.fid < drift.pre.fid < drift.sampling_floor.fid
    assert 0 < drift.same_noise.fid < drift.pre.fid


def test_it_repeats(found, job, model):
    again = evaluate.evaluate(
        str(job.erased), base=str(model), request=job.request, samples=SAMPLES, device="cpu"
    )
    assert again == found


def test_id_is_the_one_of_the_erasure(found, job):
    """Same photos, recipe and base: the same latents, so the same render ID as on the report (3 views)."""
    told = record.read_record(job.erased)["predicate"]["erasures"]
    for identity, erasure in zip(found.identities, told, strict=True):
        assert identity.figures.photo_before.id.value == pytest.approx(
            erasure["metrics"]["id"]["before"], abs=0.05
        )


# ----------------------------------------------------------------------------
# Command line


def test_table_fits_progress_is_on_stderr_and_nothing_private_is_told(call, found, job, model):
    outcome = call(job.erased, "--base", model, "--request", job.request, "--samples", SAMPLES)
    assert outcome.code == 0
    assert max(map(len, outcome.out.splitlines())) <= 80
    for word in ("ID_others", "subject-a", "subject-b", "mean", "Frechet_pre", "floor: noise", "KID"):
        assert word in outcome.out
    assert "FID_pre" not in outcome.out  # the features are not Inception's
    assert "pictures of the erased model" in outcome.err
    assert "the base does not show this person" in outcome.err
    photos = [name for names in tiny.PEOPLE.values() for name in names]
    public = json.dumps(found.to_dict()) + outcome.out
    assert not [name for name in photos if name in public + outcome.err]
    assert str(model.parent) not in public


def test_json_without_a_request(call, job, model, tmp_path):
    np.save(tmp_path / "real.npy", np.random.default_rng(0).random((20, 328), np.float32))
    outcome = call(
        job.erased, "--base", model, "--samples", SAMPLES, "--seed", 3, "--real", "real.npy", "--json", "-q"
    )
    out = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (0, "")
    assert (out["identities"], out["mean"]) == ([], None)
    assert out["drift"]["seeds"]["latents"] == 3
    assert (out["drift"]["dfid_real"]["n"], out["drift"]["real_samples"]) == (SAMPLES, 20)


def test_a_hub_base_is_found_by_the_record(hub, job, model, home, tmp_path, monkeypatch):
    """At the commit that was erased, though `main` has moved on."""
    files = tiny.tree(model)
    hub.create_repo(REPO, files)
    pipeline.erase(
        REPO, tiny.make_request(tmp_path, people={"subject-a": ("IMG_2207.png",)}), push=False, device="cpu",
        recipe=tiny.make_recipe(tmp_path), output=tmp_path / "erased",
    )  # fmt: skip
    hub.commit(REPO, {"README.md": files["README.md"] + b"\nmore\n"})
    monkeypatch.setattr(evaluate, "find_threshold", lambda *_: 0.5)
    found = evaluate.evaluate(str(tmp_path / "erased"), samples=SAMPLES, device="cpu")
    said = record.read_record(tmp_path / "erased")["predicate"]["base"]
    assert found.base == {"repo": f"hf://{REPO}", "revision": said["revision"],
                          "sha256": said["digest"]["sha256"]}  # fmt: skip


# ----------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base": None}, "only its maker has"),
        ({"base": "erased"}, "the same weights"),
        ({"features": "lpips-vgg"}, "no features network"),
        ({"features": "heads-pooled:missing.safetensors"}, "not there"),
        ({"recipe": "nonsense"}, "no recipe is called"),
        ({"request": "missing.yaml"}, "missing.yaml"),
        ({"real": "missing.npy"}, "cannot be read"),
    ],
)
def test_what_cannot_be_evaluated(job, model, options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"base": str(model), "samples": SAMPLES, "device": "cpu", **options}
    if options["base"] == "erased":
        options["base"] = str(job.erased)
    with pytest.raises(InputError, match=says):
        evaluate.evaluate(str(job.erased), **options)


def test_a_model_without_a_record_needs_a_base(model):
    with pytest.raises(InputError, match="no record") as stopped:
        evaluate.evaluate(str(model))
    assert "--base" in stopped.value.problems[0].remedy


def test_another_base_is_only_told(job, model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    torch.manual_seed(2)
    evaluate.EG3D(tiny.config()).save_pretrained(other)
    said = []
    progress = SimpleNamespace(warn=said.append, stage=lambda text: None)
    erased = evaluate.hub.resolve(str(job.erased))
    sha256 = record.file_sha256(erased.weights_file)
    found, digest = evaluate.find_base(erased, sha256, str(other), progress)
    assert (found.folder, digest) == (other, record.file_sha256(other / "model.safetensors"))
    assert said == ["the base is not the one that the model's record names"]


def test_a_recipe_of_a_repository_names_no_files(job, model, tmp_path):
    erased = shutil.copytree(job.erased, tmp_path / "erased")
    text = (erased / "recipe.yaml").read_text()
    assert "identity_judge: null" in text
    (erased / "recipe.yaml").write_text(
        text.replace("identity_judge: null", 'identity_judge: "irse50:/etc/passwd"')
    )
    with pytest.raises(InputError, match="names files"):
        evaluate.evaluate(str(erased), base=str(model), samples=SAMPLES, device="cpu")


def test_real_features_must_be_of_the_extractor(call, job, model, tmp_path):
    np.save(tmp_path / "real.npy", np.zeros((20, 7), np.float32))
    outcome = call(job.erased, "--base", model, "--real", "real.npy", "-q")
    assert outcome.code == 2
    assert "7 columns, heads-pooled gives 328" in outcome.err


def test_real_features_files(tmp_path):
    values = np.random.default_rng(0).random((5, 3), np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", features=values)
    save_file({"features": torch.from_numpy(values)}, tmp_path / "a.safetensors")
    for name in ("a.npy", "a.npz", "a.safetensors"):
        assert np.allclose(read_features(tmp_path / name).numpy(), values)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", values[0])
    np.save(tmp_path / "nan.npy", values * np.nan)
    np.savez(tmp_path / "statistics.npz", mu=values[0], sigma=values)
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("object.npy", "flat.npy", "nan.npy", "statistics.npz", "empty.npy"):
        with pytest.raises(InputError, match="real features"):
            read_features(tmp_path / name)


def test_default_extractor():
    def of(**domain):
        return default_features(SimpleNamespace(domain=domain))

    assert of() == of(identity_judge="casia-webface") == "inception"
    assert of(identity_judge="heads-b") == "heads-pooled"
    assert of(identity_judge="heads-b", features="inception") == "inception"
    with pytest.raises(InputError, match=r"domain\.features"):
        of(features="inception:/etc/passwd")
