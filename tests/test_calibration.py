"""Thresholds: their intervals, and that a model is measured once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_erasure as tiny
import torch

from guide_hub import pipeline
from guide_hub.eg3d import EG3D
from guide_hub.evaluation import calibration
from guide_hub.evaluation.calibration import interval_at, shipped, threshold_at
from guide_hub.faces.registry import load_identity
from guide_hub.progress import Silent
from guide_hub.recipe import load_recipe

NAME = "heads-b"


def strangers(n, seed, views=2, width=8):
    """Unit embeddings [n, views, width] of people who are all alike by chance."""
    people = torch.randn(n, 1, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(people.expand(-1, views, -1), dim=-1)


def test_the_interval_holds_the_threshold_and_narrows():
    truth = threshold_at(strangers(1500, 0, views=1), 1e-2)[0]
    widths = {}
    for n in (60, 180):
        intervals = [interval_at(strangers(n, seed), 1e-2) for seed in range(1, 11)]
        inside = sum(low <= truth <= high for low, high in intervals)
        assert inside >= 7  # 95 % of 10 are 9.5
        widths[n] = sum(high - low for low, high in intervals) / len(intervals)
    assert widths[60] > 1.5 * widths[180]


def test_people_and_not_pairs_are_drawn_again():
    """A hundred views of the same people tell no more than two."""
    few, many = (interval_at(strangers(60, 1, views=v), 1e-2) for v in (2, 6))
    assert many[1] - many[0] == pytest.approx(few[1] - few[0], rel=0.2)


def test_a_model_is_calibrated_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(tmp_path / "weights")))
    model, recipe = EG3D.from_pretrained(str(tiny.make_model(tmp_path / "model"))), load_recipe("heads")
    judge, source = load_identity(NAME), SimpleNamespace(folder=tmp_path / "model")
    seen = []
    monkeypatch.setattr(calibration, "embed_views", lambda *_: seen.append(1) or strangers(400, 1, 3))

    def find(digest, state):
        return pipeline.find_threshold(source, digest, model, judge, NAME, recipe, Silent(), state)

    first = find("a" * 64, tmp_path / "state")
    assert find("a" * 64, tmp_path / "state") == first
    assert len(seen) == 1
    find("b" * 64, tmp_path / "state")  # other weights
    find("a" * 64, None)  # nowhere to keep it
    assert len(seen) == 3
    kept = [shipped(tmp_path / "state", "a" * 64, NAME, far, recipe.camera) for far in (1e-3, 1e-4)]
    assert all(c.low <= c.threshold <= c.high for c in kept)
    assert kept[0].threshold < kept[1].threshold
    assert shipped(tmp_path / "state", "c" * 64, NAME, 1e-3, recipe.camera) is None
