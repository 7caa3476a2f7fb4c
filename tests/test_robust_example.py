"""examples/robust: what is screened, and the table from stored cells."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import tiny_attacks as small

from guide_hub.attacks import reinversion
from guide_hub.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "robust"
OURS = ("options", "table")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield [importlib.import_module(name) for name in OURS]
    for name in OURS:
        sys.modules.pop(name, None)


def test_every_defence_of_the_recipe_is_screened(example):
    options, _ = example
    recipes = {name: options.recipe_of(name) for name in options.OPTIONS}
    assert len({recipe.digest() for recipe in recipes.values()}) == len(recipes)
    used = {field for recipe in recipes.values() for field, value in vars(recipe.robust).items()
            if value != getattr(Recipe().robust, field)}  # fmt: skip
    assert {"mine_every", "repel", "decoys"} <= used
    assert {recipe.target.kind for recipe in recipes.values()} == {"ufo", "mixture"}
    assert {recipe.adjacency.towards for recipe in recipes.values()} == {"people", "kin", "wplus"}


def test_the_table_has_a_row_an_option_and_search(example, tmp_path):
    _, table = example

    def cell(person: int, search: str, found: float) -> dict:
        attack = {"verified_after": found, "verified_before": 1.0, "cosine_best_after": 0.9, "recovery": 0.95,
                  "recovery_beyond_strangers": None, "cosine_best_unbounded": 0.92}  # fmt: skip
        return {
            "person": person, "search": search, "steps": 40, "erasure_cpu_s": 60.0, "held_out_verified": 0.0,
            "retained": {"verified": 0.98, "lpips": 0.02}, "reinversion": attack,
        }  # fmt: skip

    cells = [cell(0, "quick", 1.0), cell(1, "quick", 0.5), cell(0, "full", 0.25)]
    (tmp_path / "mine.json").write_text(json.dumps({"text": "mined", "cells": cells}))
    table.write_table(tmp_path, tmp_path / "RESULTS.md", ["heads", "mine"])
    rows = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[2:5] for row in rows] == [["2", "quick", "75%"], ["1", "full", "25%"]]


def test_the_known_answers_print_figures_that_the_search_gives(monkeypatch):
    names = ("known_answers", "lab", "options")
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        known = importlib.import_module("known_answers")
    finally:
        for name in names:
            sys.modules.pop(name, None)
    figures = reinversion.run(small.case(), budget=small.LEAST).figures
    assert {*known.ROWS.values()} <= {"passed", *figures}
    assert known.QUICK.strangers > 0
