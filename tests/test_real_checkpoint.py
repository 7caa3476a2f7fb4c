"""The acceptance script for the real checkpoint: end to end on the golden pickle, and how it fails."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from guide_hub.recipe import load_recipe

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "real_checkpoint"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_checkpoint", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_recipe_has_the_published_networks():
    recipe, guide = load_recipe(FOLDER / "recipe.yaml"), load_recipe("guide")
    assert (recipe.networks.identity_loss, recipe.networks.identity_judge) == ("irse50", "curricularface")
    assert (recipe.networks.inversion, recipe.inversion.backend) == ("goae", "encoder")
    assert (recipe.optim, recipe.target, recipe.adjacency) == (guide.optim, guide.target, guide.adjacency)


def test_the_verdict(script, capsys):
    published = {"ID": 0.0183, "ID_others": 0.2797, "FID_pre": 7.497, "dFID_real": None}
    assert not script.show(published, smoke=False)
    assert capsys.readouterr().out.count("as published") == 3
    assert script.show({**published, "ID_others": 0.34}, smoke=False)
    assert capsys.readouterr().out.count("WORSE") == 1


def test_a_step_that_fails_ends_it(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n.")
    words = ["--smoke", "--pickle", tmp_path / "evil.pkl", "--out", tmp_path / "out"]
    command = [sys.executable, FOLDER / "run.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "evil.pkl: asks for os.system" in done.stderr
    assert done.stderr.endswith("guide-hub convert ended with 2\n")


@pytest.mark.slow
def test_smoke(shared, tmp_path):
    pickled = shared / "golden" / "pickles" / "eg3d_tiny2x_cuda_storage.pkl"
    command = [sys.executable, FOLDER / "run.py", "--smoke", "--pickle", pickled, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the figures mean nothing" in done.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["smoke"]
    assert result["convert"]["w_avg"].startswith("measured")
    assert result["erase"]["status"] == "erased"
    assert -1 <= result["figures"]["ID"] <= 1
    assert result["figures"]["FID_pre"] >= 0
    again = subprocess.run(command, capture_output=True, text=True, check=True)  # evaluates, nothing else
    assert "guide-hub erase" not in again.stderr
    assert json.loads((tmp_path / "result.json").read_text())["figures"] == result["figures"]
