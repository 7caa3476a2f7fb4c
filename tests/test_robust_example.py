"""examples/robust: what is screened, and the table from stored cells."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import tiny_attacks as small
import torch

from guide_hub.attacks import reinversion
from guide_hub.attacks.budget import FULL, QUICK
from guide_hub.attacks.likely import Likely
from guide_hub.attacks.sight import front, pictures
from guide_hub.guide import Eraser
from guide_hub.latents import LatentSpace
from guide_hub.recipe import Recipe, Robust, load_recipe

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "robust"
TRIED = ("attackers", "bank", "cuts")
OURS = ("cells", "known_answers", "lab", "options", "table", *TRIED)  # other examples have some of these, too


@pytest.fixture
def example(monkeypatch):
    """The example's modules by name."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(FOLDER / "tried"), *sys.path])
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in OURS:
        sys.modules.pop(name, None)


def test_every_defence_of_the_recipe_is_screened(example):
    options = example("options")
    recipes = {name: options.recipe_of(name) for name in options.OPTIONS}
    assert len({recipe.digest() for recipe in recipes.values()}) == len(recipes)
    used = {field for recipe in recipes.values() for field, value in vars(recipe.robust).items()
            if value != getattr(Recipe().robust, field)}  # fmt: skip
    assert used >= {field.name for field in dataclasses.fields(Robust)} - {
        "mine_steps",
        "mined",
        "repel_above",
    }
    assert {recipe.target.kind for recipe in recipes.values()} == {"ufo", "mixture"}
    assert {recipe.adjacency.towards for recipe in recipes.values()} == {"people", "kin", "wplus"}


def test_the_table_has_a_row_an_option_and_search(example, tmp_path):
    table = example("table")

    def cell(person: int, search: str, found: float) -> dict:
        attack = {"verified_after": found, "verified_before": 1.0, "cosine_best_after": 0.9, "recovery": 0.95,
                  "recovery_beyond_strangers": None, "cosine_best_unbounded": 0.92,
                  "cosine_best_strangers": 0.7, "verified_strangers": 0.25}  # fmt: skip
        return {
            "person": person, "search": search, "steps": 40, "erasure_cpu_s": 60.0, "held_out_verified": 0.0,
            "retained": {"verified": 0.98, "lpips": 0.02}, "reinversion": attack,
        }  # fmt: skip

    cells = [cell(0, "short", 1.0), cell(1, "short", 0.5), cell(0, "full", 0.25)]
    (tmp_path / "mine.json").write_text(json.dumps({"text": "mined", "cells": cells}))
    (tmp_path / "repel.json").write_text(json.dumps({"text": "away", "cells": [cell(1, "short", 0.5)]}))
    table.write_table(tmp_path, tmp_path / "RESULTS.md", ["heads", "mine", "repel"])
    rows = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[2:5] for row in rows] == [
        ["1", "short", "50%"], ["1", "short", "50%"], ["2", "short", "75%"], ["1", "full", "25%"],
    ]  # fmt: skip
    assert all("| 0.70, 25% |" in row for row in rows)


def test_the_published_table_is_that_of_the_stored_cells(example, tmp_path):
    example("table").write_table(
        FOLDER / "results", tmp_path / "RESULTS.md", list(example("options").OPTIONS)
    )
    assert (tmp_path / "RESULTS.md").read_text() == (FOLDER / "RESULTS.md").read_text()


def test_figures_of_other_inputs_are_neither_taken_nor_written_over(example, tmp_path):
    options, cells = example("options"), example("cells")
    of, file = cells.inputs({"mine": "ab"}, short=cells.searched(options.SHORT)), tmp_path / "mine.json"
    assert cells.load(file, of) is None
    file.write_text(json.dumps({"inputs": of, "cells": [1]}))
    assert cells.load(file, of) == [1]
    longer = dataclasses.replace(options.SHORT, w_steps=51)
    with pytest.raises(SystemExit, match=r"mine\.json"):
        cells.load(file, cells.inputs({"mine": "ab"}, short=cells.searched(longer)))
    budgets = {"short": cells.searched(options.SHORT), "full": cells.searched(FULL)}
    for name in options.OPTIONS:
        mine = cells.inputs({name: options.recipe_of(name).digest()}, **budgets)
        assert len(cells.load(FOLDER / "results" / f"{name}.json", mine)) >= 3
    every = cells.inputs(
        {name: load_recipe(name).digest() for name in example("known_answers").RECIPES},
        quick=dataclasses.asdict(QUICK),
    )
    assert len(cells.load(FOLDER / "results" / "all-attacks.json", every)) == 6
    fine_tuning = cells.inputs(
        {"heads-fast": load_recipe("heads-fast").digest()}, full=dataclasses.asdict(FULL)
    )
    assert len(cells.load(FOLDER / "results" / "fine-tuning.json", fine_tuning)) == 10


def test_a_model_that_is_cut_sees_nothing_along_the_axes(example):
    cuts = example("cuts")
    model, w = small.model(), small.case().ws[0]
    made = cuts.Cuts(Likely(LatentSpace(model), 2.0), model.num_ws)
    made.add(w)
    moved = made.likely.outward(made.likely.inward(w) + 3 * made.axes[:, 0].float())
    c = front(small.case())

    def apart(model):
        seen = pictures(model, torch.stack([w, moved]), c)
        return float((seen[0] - seen[1]).abs().max())

    assert apart(model) > 0.05
    assert apart(made.fold(model)) < 1e-3


@pytest.fixture
def eraser():
    case = small.case()
    return Eraser(
        small.model(), case.source, case.recipe, case.networks.perceptual, case.networks.identity_loss
    )


def test_attackers_of_every_age_go_on(example, eraser):
    """In W first and then in W+; each begins anew in its turn."""
    attackers = example("attackers")
    assert example("bank").Trial is attackers.Trial
    erasure = eraser.target(small.case().ws[:1])
    those = attackers.Attackers(eraser, erasure, 4)
    assert those.age == [0, 30, 60, 90]
    starts = those.ws()
    assert len({tuple(w.flatten().tolist()) for w in starts}) == 4
    assert [v.shape[1] for v in those.v] == [1, 1, eraser.student.num_ws, eraser.student.num_ws]
    assert torch.equal(those.move(1), starts.detach())
    those.move(30)
    assert those.age == [31, 61, 91, 1]
    assert [v.shape[1] for v in those.v] == [1, eraser.student.num_ws, eraser.student.num_ws, 1]
    assert float(those.likely.distance(those.ws().detach()).max()) <= those.likely.limit * 1.001
    assert all(p.requires_grad for p in eraser.parameters)


def test_the_known_answers_print_figures_that_the_search_gives(example):
    known = example("known_answers")
    figures = reinversion.run(small.case(), budget=small.LEAST).figures
    assert {*known.ROWS.values()} <= {"passed", *figures}
    assert known.SHORT.strangers > 0
