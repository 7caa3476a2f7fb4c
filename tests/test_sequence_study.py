"""examples/sequence_study: orders, and tables from stored rows."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "sequence_study"
OURS = ("run", "lab", "modes", "table")


@pytest.fixture
def study(monkeypatch):
    """The module `run`, with nothing of it or of its path left afterwards."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("run")
    for name in OURS:
        sys.modules.pop(name, None)


def row(k: int, held_out: list[float], **more) -> dict:
    verified = [float(v > 0.5) for v in held_out]
    return {
        "k": k, "erasure_cpu_s": 10.0 * k, "erasure_is_whole": True, "peak_gib": 1.5,
        "source": [0.0] * k, "source_verified": [0.0] * k,
        "held_out": held_out, "held_out_verified": verified,
        "retained": {"verified": 0.975, "lpips": 0.02},
        **more,
    }  # fmt: skip


MARK = {
    "neighbours": {"people": 5, "verified": 0.9},
    "lookalikes": {"people": 5, "verified": 0.875},
    "collateral": {"people": 400, "expected": 0.002, "alike": 3, "lost": 2, "lost_alike": 1},
}


def test_an_order_shuffles_the_first_twenty_among_themselves(study):
    assert study.order(0) == list(range(50))
    for seed in (1, 2):
        people = study.order(seed)
        assert people != study.order(0)
        assert sorted(people[:20]) == list(range(20))
        assert sorted(people) == list(range(50))


def test_every_mode_of_the_recipe_is_compared(study):
    from guide_hub.modes import MODES
    from guide_hub.recipe import load_recipe

    made = {make(load_recipe("heads-fast")).sequence.mode for make in study.MODES.values()}
    assert made == set(MODES)


def test_a_gpu_s_rows_lie_apart(study, tmp_path):
    """The same people by the same recipe end in other bytes there."""
    from guide_hub.recipe import load_recipe

    lab = SimpleNamespace(recipe=load_recipe("heads-fast"), sha256="0" * 64, device=torch.device("cpu"))
    here = study.Study(lab, "replay", 0, 10, tmp_path)
    lab.device = torch.device("cuda")
    there = study.Study(lab, "joint", 2, 10, tmp_path)
    assert (here.file.name, there.file.name) == ("replay-seed0.json", "joint-10-seed2-cuda.json")
    assert study.Study(lab, "replay", 0, 10, tmp_path).checkpoint.folder != here.checkpoint.folder


def test_the_table_says_who_came_back_and_by_how_much(study, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    rows = [row(1, [0.2], **MARK), row(2, [0.7, 0.1], **MARK)]
    run = {"mode": "chain", "inputs": {"seed": 0}, "rows": rows}
    (results / "chain-seed0.json").write_text(json.dumps(run))
    study.write_results(results, tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    (line,) = [
        one for one in text.split("## N = 2")[1].splitlines() if one.startswith("| chain | cpu | 0 | 0.0%")
    ]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:6] == ["0.0% (0)", "50.0% (1)", "+0.50"]
    assert cells[9] == "87.5%"
    assert cells[11] == "10, 20"
    assert "| chain | 0 | 2 | 0.20% | 0.75% | 0.50% | 1 of 3 |" in text
    assert (tmp_path / "matrix.png").stat().st_size > 0


def test_a_row_of_which_only_the_cost_is_known(study, tmp_path):
    """Between two rows that are measured (`--every`): it counts for the cost, and for nothing else."""
    results = tmp_path / "results"
    results.mkdir()
    unmeasured = {"k": 2, "person": 1, "steps": 120, "erasure_cpu_s": 50.0, "erasure_s": 30.0}
    rows = [
        row(1, [0.2], erasure_s=10.0, **MARK),
        unmeasured | {"erasure_is_whole": True},
        row(3, [0.3, 0.1, 0.1], erasure_s=14.0, **MARK),
    ]
    run = {"mode": "replay", "inputs": {"seed": 0}, "rows": rows}
    (results / "replay-seed0.json").write_text(json.dumps(run))
    study.write_results(results, tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## N = 2" not in text
    (line,) = [
        one for one in text.split("## N = 3")[1].splitlines() if one.startswith("| replay | cpu | 0 |")
    ]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert (cells[5], cells[11]) == ("+0.10", "10, 22")


@pytest.mark.parametrize(
    ("k", "last", "measured"), [(9, 50, 10), (10, 50, 1), (13, 50, 14), (19, 50, 20), (11, 12, 12)]
)
def test_rows_after_the_first_may_have_gaps(study, tmp_path, monkeypatch, k, last, measured):
    from guide_hub.recipe import load_recipe

    asked = []
    lab = SimpleNamespace(
        recipe=load_recipe("heads-fast"), sha256="0" * 64, device=torch.device("cpu"),
        person=lambda index, _: asked.append(index),
    )  # fmt: skip
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    run = study.Study(lab, "replay", 0, last, tmp_path, 7, SimpleNamespace(count=2))
    monkeypatch.setattr(run, "row", lambda n, *_: {"source": [0.0] * n})
    threads = torch.get_num_threads()
    for every in (7, 1000):  # a measured row stays
        run.every = every
        asked.clear()
        run.measure(k, torch.nn.Linear(1, 1))
        (row,) = run.rows
        assert (row["k"], row["threads"], row["processes"]) == (k + 1, threads, 2)
        assert ("source" in row) == (measured == k + 1)
        assert len(asked) == measured or every == 1000
    assert torch.get_num_threads() == threads
