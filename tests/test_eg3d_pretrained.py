"""Models on disk and on the Hub: strict, safetensors only, repeatable bytes, one commit a push."""

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, RepoUrl
from loopback_hub import LoopbackHub
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_eg3d_model import SMALL

from guide_hub.eg3d import EG3D
from guide_hub.eg3d.pretrained import read_config
from guide_hub.errors import InputError

REPO = "org/eg3d"


@pytest.fixture(scope="module")
def model() -> EG3D:
    torch.manual_seed(0)
    return EG3D(replace(SMALL, domain={"identity": "heads"}))


@pytest.fixture
def saved(model: EG3D, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def equal(a: EG3D, b: EG3D) -> bool:
    a_state, b_state = a.state_dict(), b.state_dict()
    return list(a_state) == list(b_state) and all(
        torch.equal(a_state[name], b_state[name]) for name in a_state
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_round_trip(model, saved, capfd, recwarn):
    loaded = EG3D.from_pretrained(saved)
    assert loaded.config == model.config == read_config(saved / "config.json")
    assert equal(loaded, model)
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    ws = loaded.mapping(torch.zeros(1, 8), torch.zeros(1, 25))
    assert loaded.planes(ws).device.type == "cpu"
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_what_is_written(saved):
    assert set(digests(saved)) == {"config.json", "model.safetensors"}
    data = json.loads((saved / "config.json").read_text())
    assert (data["model_type"], data["library_name"]) == ("eg3d", "guide-hub")
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_equal_weights_give_equal_bytes(saved, tmp_path):
    again = "from guide_hub.eg3d import EG3D; import sys; _, a, b = sys.argv; "
    again += "EG3D.from_pretrained(a).save_pretrained(b)"
    done = subprocess.run(
        [sys.executable, "-c", again, saved, tmp_path / "again"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert digests(tmp_path / "again") == digests(saved)


def test_a_crash_leaves_the_old_weights(model, saved, monkeypatch):
    before = digests(saved)

    def half(state: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("guide_hub.eg3d.pretrained.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(saved)
    assert digests(saved) == before


def change(saved: Path, edit: dict, remove: tuple[str, ...] = ()) -> None:
    state = {
        name: value for name, value in load_file(saved / "model.safetensors").items() if name not in remove
    }
    save_file({**state, **edit}, saved / "model.safetensors")


def test_missing_surplus_and_misshapen_tensors(saved):
    change(
        saved,
        {"extra.weight": torch.zeros(1), "decoder.net.0.bias": torch.zeros(3)},
        ("backbone.mapping.w_avg",),
    )
    with pytest.raises(InputError) as caught:
        EG3D.from_pretrained(saved)
    text = str(caught.value)
    assert "backbone.mapping.w_avg is missing" in text
    assert "extra.weight does not belong" in text
    assert "decoder.net.0.bias is [3], not [8]" in text


def test_half_precision_files_load_as_float32(model, saved):
    change(saved, {name: value.half() for name, value in load_file(saved / "model.safetensors").items()})
    loaded = EG3D.from_pretrained(saved)
    assert {p.dtype for p in loaded.state_dict().values()} == {torch.float32}


def test_pickles_are_never_read(saved, tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"no model\.safetensors.*convert it first"):
        EG3D.from_pretrained(saved)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no config.json"),
        ("{", "cannot be read"),
        ('{"model_type": "llama"}', "does not describe an EG3D"),
        ('{"model_type": "eg3d", "w_dims": 4}', "unknown w_dims"),
    ],
)
def test_unusable_configurations(saved, content, message):
    (saved / "config.json").unlink()
    if content is not None:
        (saved / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        EG3D.from_pretrained(saved)


def test_damaged_weights(saved):
    (saved / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        EG3D.from_pretrained(saved)


def test_there_is_no_lax_loading(saved):
    with pytest.raises(InputError, match="strictly"):
        EG3D.from_pretrained(saved, strict=False)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a repository"):
        EG3D.from_pretrained(tmp_path / "missing")


def test_push_is_one_commit(model, hub: LoopbackHub):
    url = model.push_to_hub(REPO, commit_message="weights")
    assert REPO in url
    assert [commit.title for commit in hub.log(REPO)] == ["weights", "initial commit"]
    assert set(hub.files(REPO)) == {".gitattributes", "config.json", "model.safetensors"}
    assert equal(EG3D.from_pretrained(REPO), model)


def test_push_to_a_repository_that_exists(model, hub: LoopbackHub, monkeypatch):
    hub.create_repo(REPO, {"README.md": b"card"})
    asked = []

    def create_repo(self: HfApi, repo_id: str, *, exist_ok: bool, **kind: object) -> RepoUrl:
        asked.append(exist_ok)
        return RepoUrl(f"{hub.endpoint}/{repo_id}", endpoint=hub.endpoint)

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    model.push_to_hub(REPO)
    assert asked == [True]
    assert len(hub.log(REPO)) == 2
    assert hub.files(REPO)["README.md"] == b"card"


def test_pull_takes_both_files_from_one_revision(model, saved, hub: LoopbackHub, tmp_path, capfd):
    first = hub.create_repo(REPO, {path.name: path.read_bytes() for path in saved.iterdir()})
    other = EG3D(replace(model.config, mapping_layers=3))
    other.save_pretrained(tmp_path / "other")
    hub.commit(REPO, {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()})
    assert equal(EG3D.from_pretrained(REPO), other)
    assert equal(EG3D.from_pretrained(REPO, revision=first), model)
    assert equal(EG3D.from_pretrained(REPO, revision=first, local_files_only=True), model)
    assert capfd.readouterr().out == ""


def test_repository_without_safetensors(hub: LoopbackHub):
    config = json.dumps({"model_type": "eg3d", **SMALL.to_dict()}).encode()
    hub.create_repo(REPO, {"config.json": config, "pytorch_model.bin": b"pickle"})
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        EG3D.from_pretrained(REPO)
