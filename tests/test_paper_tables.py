"""examples/paper_tables: the grid's cells, and tables from stored ones."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from guide_hub.recipe import list_recipes

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "paper_tables"


@pytest.fixture
def tables(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("grid", "tables"):
        sys.modules.pop(name, None)
    module = importlib.import_module("tables")
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    yield module
    for name in ("grid", "tables"):
        sys.modules.pop(name, None)


def cell_json(tables, cell, figure: float) -> dict:
    ids = {"id": {"value": figure}, "id_others": {"value": figure + 1}, "id_avg": {"value": figure + 2}}
    return {
        "inputs": tables.inputs(cell),
        "distance": {"mean": 0.7, "max": 0.9}, "render": ids,
        "verified": {"id": 0.0, "id_others": 0.5},
        "drift": {"fid": 10 * figure}, "drift_same_noise": {"fid": 9 * figure, "kid": 0.001},
        "fid_real_change": {"value": 0.25}, "seconds": {"erasure": 100, "measuring": 80},
    }  # fmt: skip


def test_the_grid_has_every_scenario_identity_and_ablation(tables):
    cells = tables.cells()
    assert len(set(cells)) == len(cells)
    assert {c.recipe for c in cells} <= set(list_recipes())
    for recipe in ("heads", "heads-baseline"):
        assert {(c.scenario, c.identity) for c in cells if c.recipe == recipe} == {
            (s, i) for s in ("random", "ind", "ood") for i in range(5)
        }
    ablations = {r for r in list_recipes() if r.startswith("heads-")} - {
        "heads-baseline",
        "heads-fast",
        "heads-few",
        "heads-many",
    }
    for recipe in ablations:
        assert {(c.scenario, c.identity) for c in cells if c.recipe == recipe} == {
            ("ood", i) for i in range(3)
        }


def test_tables_say_what_is_there_and_where_guide_is_not_below(tables, tmp_path):
    pytest.importorskip("matplotlib")
    for cell in tables.cells():
        if cell.identity == 1:
            continue  # still missing
        better = cell.recipe != "heads-baseline" and cell.scenario != "ind"
        value = cell_json(tables, cell, (0.1 if better else 0.2) + 0.01 * cell.identity)
        (tmp_path / f"{cell.name}.json").write_text(json.dumps(value))
    stale = cell_json(tables, tables.cells()[0], 9.0)
    stale["inputs"]["erasure_digest"] = "of an older recipe"
    (tmp_path / f"{tables.cells()[0].name}.json").write_text(json.dumps(stale))
    drift = {"fid": 0.5, "kid": 0.0}
    floors = {
        "samples": 500, "noise_floor": drift, "sampling_floor": drift, "fid_real": 3.0, "threshold": 0.786
    }  # fmt: skip
    (tmp_path / "floors.json").write_text(json.dumps(floors))
    tables.write_tables()
    text = (tmp_path / "RESULTS.md").read_text()
    there = sum(c.identity != 1 for c in tables.cells()) - 1
    assert f"{there} of {len(tables.cells())} cells are there" in text
    assert "| OOD, GUIDE | 4 | 0.123 ± 0.027 |" in text  # 0.10, 0.12, 0.13, 0.14: t-interval of four
    assert "| OOD | ID_others | -0.100 ± 0.000 | yes |" in text
    assert "| InD | ID_others | 0.000 ± 0.000 | **no** |" in text
    assert "| OOD, 2 | 0.90 | 1.120 | 0.50 | 1.220 |" in text
    assert "9.000" not in text  # the stale cell
    assert {p.name for p in tmp_path.glob("*.png")} == {"d.png", "alpha_max.png", "losses.png"}


def test_stored_results_are_figures_alone(tables):
    """What is committed holds no latent, embedding or path, only what RESULTS.md can show."""
    for file in (FOLDER / "results").glob("*.json"):
        value = json.loads(file.read_text())
        assert len(file.read_text()) < 8000
        assert not any(isinstance(v, list) for v in value.values())
        assert "/" not in json.dumps(value)
