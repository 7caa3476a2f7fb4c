"""`guide-hub doctor`: what is here, what is missing and how it says so."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import pytest
import tiny_erasure as tiny
import torch

from guide_hub.doctor import FETCHED, MISSING, PRESENT, examine
from guide_hub.errors import InputError, RefusedError
from guide_hub.faces import registry

SECRET = "hf_" + "s" * 34


@pytest.fixture(autouse=True)
def _bare(tmp_path, monkeypatch):
    """A machine without weights, token, key or a way out; the package's own networks are there."""
    monkeypatch.chdir(tmp_path)
    for name in ("GUIDE_HUB_WEIGHTS", "GUIDE_HUB_STATE", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("HF_HUB_OFFLINE", "GUIDE_HUB_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("went to the network"))


@pytest.fixture
def call(call):
    """`guide-hub doctor ARGUMENTS` in this process."""
    return partial(call, "doctor")


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "guide_hub_weights"
    folder.mkdir()
    return folder


def recipe(folder, **networks):
    given = ", ".join(f"{k}: '{v}'" for k, v in networks.items())
    file = folder / "mine.yaml"
    file.write_text(f"schema: guide-hub/recipe/v1\nnetworks: {{{given}}}\n", encoding="utf-8")
    return str(file)


def of(diagnosis):
    return {n.name: n for n in diagnosis.networks}


def test_everything_is_listed_and_nothing_required(tmp_path, call):
    found = of(examine())
    assert list(found) == registry.names()
    assert not any(n.required for n in found.values())
    assert {found[n].state for n in ("heads-a", "heads-b", "heads-features", "heads-inversion")} == {PRESENT}
    assert {found[n].state for n in ("vggface2", "casia-webface", "lpips-vgg", "lpips-alex")} == {FETCHED}
    assert found["vggface2"].path == str(tmp_path / "torch_home/checkpoints/20180402-114759-vggface2.pt")
    assert found["lpips-vgg"].path == str(tmp_path / "torch_home/hub/checkpoints/vgg16-397923af.pth")
    assert {found[n].state for n in ("irse50", "curricularface", "goae")} == {MISSING}
    assert found["irse50"].put_into == str(tmp_path / "guide_hub_weights")
    done = call()
    assert done.code == 0
    assert max(map(len, done.out.split("\n\n", maxsplit=1)[0].splitlines())) <= 80
    for word in ("encoder_FFHQ.pt", "put it into", found["irse50"].sha256, "device: cpu", "no token"):
        assert word in done.out
    assert done.err == ""
    assert list(tmp_path.iterdir()) == []  # not even a key is made


def test_own_folder_says_where_weights_go_without_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("GUIDE_HUB_WEIGHTS")
    assert of(examine())["goae"].put_into == str(tmp_path / "torch_home" / "guide_hub")


def test_hashes_are_compared(weights, monkeypatch):
    for name in ("lpips-vgg", "irse50", "goae"):
        (weights / registry.weights_of(name).file).write_bytes(b"other bytes")
    found = of(examine())
    assert [found[n].fits for n in ("lpips-vgg", "irse50", "goae")] == [False, False, None]
    assert {found[n].state for n in ("lpips-vgg", "irse50", "goae")} == {PRESENT}
    right = registry._by_hand("model_ir_se50.pth", "", hashlib.sha256(b"other bytes").hexdigest())
    entry = registry.Entry("identity", right, registry.NETWORKS["irse50"].build)
    monkeypatch.setitem(registry.NETWORKS, "irse50", entry)
    assert of(examine())["irse50"].fits is True


def test_a_model_requires_its_own_networks(tmp_path, call):
    model = tiny.make_model(tmp_path / "model")
    done = call("--repo", model, "--json")
    found = json.loads(done.out)
    assert (done.code, found["status"], found["errors"]) == (0, "ok", [])
    used = {n["name"] for n in found["networks"] if n["required"]}
    assert used == {"heads-a", "heads-b", "heads-features", "heads-inversion"}


def test_what_a_recipe_names_must_be_here(tmp_path, call, weights):
    model = tiny.make_model(tmp_path / "model")
    mine = recipe(tmp_path, identity_judge="curricularface", inversion=f"goae:{tmp_path / 'none.pt'}")
    done = call("--repo", model, "--recipe", mine)
    assert done.code == 3
    assert "curricularface *" in done.out
    assert f"goae needs {tmp_path / 'none.pt'}, which is not here" in done.err
    assert f"put the file CurricularFace_Backbone.pth into {weights}" in done.err
    assert "irse50 needs" not in done.out + done.err
    found = json.loads(call("--recipe", mine, "--json").out)
    assert found["status"] == "missing"
    assert [e["message"].split()[0] for e in found["errors"]] == ["curricularface", "goae"]
    (tmp_path / "none.pt").touch()
    (weights / "CurricularFace_Backbone.pth").touch()  # perhaps another copy: told, not refused
    assert call("--repo", model, "--recipe", mine).code == 0


def test_offline_nothing_can_be_fetched(tmp_path, call, monkeypatch):
    mine = recipe(tmp_path, perceptual="lpips-vgg")
    assert call("--recipe", mine).code == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = call("--recipe", mine)
    assert done.code == 3
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in done.err
    assert "offline (HF_HUB_OFFLINE)" in done.out


def test_a_wrong_file_that_would_be_refused_is_a_problem(tmp_path, weights):
    file = weights / "vgg16-397923af.pth"
    file.write_bytes(b"half a download")
    with pytest.raises(RefusedError, match=r"not the published file.*begins with 397923af.*delete it"):
        examine(recipe=recipe(tmp_path, perceptual="lpips-vgg"))
    examine(recipe=recipe(tmp_path, perceptual=f"lpips-vgg:{file}"))  # named on purpose


def test_a_hub_models_config_is_enough(hub, tmp_path, call):
    files = tiny.tree(tiny.make_model(tmp_path / "model"))
    hub.create_repo("org/eg3d", {"config.json": files["config.json"], "model.safetensors": b"not pulled"})
    done = call("--repo", "org/eg3d", "--json")
    assert done.code == 0
    assert sum(n["required"] for n in json.loads(done.out)["networks"]) == 4
    hub.create_repo("org/other", {"README.md": b"nothing"})
    assert call("--repo", "org/other").code == 2
    assert call("--repo", "org/absent").code == 4
    assert call("--repo", tmp_path / "nowhere").code == 2


def test_unusable_names_are_usage_errors(tmp_path, call):
    assert call("--recipe", "unheard-of").code == 2
    with pytest.raises(InputError, match="known: vggface2"):
        examine(recipe=recipe(tmp_path, identity_loss="lpips-vgg"))


def test_token_and_key_are_seen_but_not_shown(tmp_path, call, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("GUIDE_HUB_KEY", "k" * 40)
    shown, machine = call(), call("--json")
    assert "token found" in shown.out
    assert "with a key" in shown.out
    assert SECRET not in shown.out + machine.out
    assert "kkk" not in shown.out + machine.out
    found = json.loads(machine.out)
    assert found["token"] is True
    assert found["state"] == {"folder": str(tmp_path / "guide_hub_state"), "exists": False, "key": True}
    assert found["device"]["threads"] == torch.get_num_threads()
    monkeypatch.setenv("GUIDE_HUB_KEY", "short")
    assert call().code == 0
    refused = call("--repo", tiny.make_model(tmp_path / "model"))
    assert refused.code == 3
    assert "GUIDE_HUB_KEY is too short" in refused.err
