"""Many people, one after another: who comes back, whom else it touches, and by which teacher."""
# ruff: noqa: F811  # fixtures of test_sequence_ledger

from __future__ import annotations

import dataclasses
import json
import shutil
import signal

import pytest
import tiny_erasure as tiny
import torch
from test_sequence_ledger import (  # noqa: F401  # the fixtures
    PHOTOS,
    REPO,
    A,
    B,
    C,
    entries,
    home,
    ledger,
    model,
    recipe,
    weights,
    world,
)

from guide_hub import earlier, pipeline, record
from guide_hub import hub as hub_module
from guide_hub.errors import InputError
from guide_hub.evaluation import collateral
from guide_hub.evaluation.identity import Likeness, Seen
from guide_hub.evaluation.reemergence import Cell, Matrix, Reemergence
from guide_hub.interrupt import Stopped
from guide_hub.plan import steps
from guide_hub.recipe import Sequential, load_recipe
from guide_hub.record.card import rerender_card
from guide_hub.verify import verify

EVERYBODY = (A, B, C)


def by_mode(home, mode):
    """The tiny recipe in another mode; to the mean face, since who comes second would be moved away."""
    plain = load_recipe(tiny.make_recipe(home / mode))
    changed = dataclasses.replace(
        plain, sequence=Sequential(mode=mode), target=dataclasses.replace(plain.target, kind="average")
    )
    file = home / mode / "mode.yaml"
    file.write_text(changed.to_yaml(), encoding="utf-8")
    return str(file)


def erase(repo, who, folder, recipe, state, output, **options):
    requests = [tiny.make_request(folder / p[0], p[0], {p[1]: PHOTOS[p]}) for p in who]
    options = {"device": "cpu", "recipe": recipe, "state": state, "output": output, **options}
    return pipeline.erase(str(repo), requests, **options)


@pytest.fixture(scope="module")
def three(home, model, recipe):
    """Three people in one run, with a private report; read only."""
    folder = home / "three"
    report = erase(
        model, EVERYBODY, folder, recipe, folder / "state", folder / "erased", report=folder / "report"
    )
    return folder, report


def matrix_of(folder):
    return json.loads((folder / "report" / "reemergence.json").read_text())


def cosines(found):
    return [[cell and cell["cosine"] for cell in step["people"]] for step in found["steps"]]


def without_seconds(found):
    for step in found["steps"]:
        assert step["retained"].pop("seconds") > 0
    return found


def predicate(folder):
    return record.read_record(folder)["predicate"]


# ----------------------------------------------------------------------------------------------------------
# The matrix


def test_every_step_measures_everybody_before_it(three, tmp_path):
    folder, report = three
    found = matrix_of(folder)
    cells = cosines(found)
    assert [step["step"] for step in found["steps"]] == [1, 2, 3]
    assert [[value is not None for value in row] for row in cells] == [
        [True, False, False], [True, True, False], [True, True, True],
    ]  # fmt: skip
    said = predicate(folder / "erased")
    for j, erasure in enumerate(said["erasures"]):
        assert cells[j][j] == pytest.approx(erasure["metrics"]["id"]["after"], abs=1e-6)
        assert cells[2][j] == pytest.approx(erasure["metrics"]["id"]["now"], abs=1e-6)
    rises = [max(cells[k][j] for k in range(j + 1, 3)) - cells[j][j] for j in range(2)]
    assert said["reemergence"]["rise"] == pytest.approx(max(rises), abs=1e-6)
    assert (said["reemergence"]["n"], said["reemergence"]["everyStep"]) == (2, True)
    assert report.reemergence.rise == pytest.approx(max(rises))
    held_out = [[cell and cell["others"] for cell in step["people"]] for step in found["steps"]]
    assert held_out[2][0] == pytest.approx(report.erasures[0].id_others.after)
    assert held_out[2][1:] == [None, None]
    assert all(step["retained"]["n"] == 3 for step in found["steps"])
    assert found["steps"][2]["retained"]["lpips_mean"] == pytest.approx(report.retained.lpips_mean)
    assert all(step["retained"]["seconds"] > 0 for step in found["steps"])
    assert (folder / "report" / "reemergence.png").read_bytes().startswith(b"\x89PNG")
    for name in ("reemergence.json", "reemergence.png"):
        assert (folder / "report" / name).stat().st_mode & 0o077 == 0
    assert verify(hub_module.resolve(str(folder / "erased"))).failed == []


def test_without_a_report_the_ends_alone_are_measured(three, model, recipe, tmp_path):
    folder, _ = three
    erase(model, EVERYBODY, tmp_path, recipe, tmp_path / "state", tmp_path / "erased")
    assert weights(tmp_path / "erased") == weights(folder / "erased")
    found = predicate(tmp_path / "erased")["reemergence"]
    cells = cosines(matrix_of(folder))
    assert not (tmp_path / "report").exists()
    assert found["everyStep"] is False
    assert found["rise"] == pytest.approx(max(cells[2][j] - cells[j][j] for j in range(2)), abs=1e-6)


@pytest.mark.parametrize("where", [("req-8.subject-b", 2), ("req-9.subject-c", 1)])
def test_a_killed_run_ends_in_the_same_matrix(three, model, recipe, tmp_path, where):
    def stop(identity, step):
        if (identity, step) == where:
            signal.raise_signal(signal.SIGTERM)

    arguments = (model, EVERYBODY, tmp_path, recipe, tmp_path / "state", tmp_path / "erased")
    options = {"report": tmp_path / "report"}
    with pytest.raises(Stopped):
        erase(*arguments, progress=tiny.Watch(stop), **options)
    watch = tiny.Watch()
    erase(*arguments, progress=watch, **options)
    assert watch.starts[0] == where
    folder, _ = three
    assert without_seconds(matrix_of(tmp_path)) == without_seconds(matrix_of(folder))
    assert weights(tmp_path / "erased") == weights(folder / "erased")
    assert predicate(tmp_path / "erased")["reemergence"] == predicate(folder / "erased")["reemergence"]


def test_earlier_runs_are_rows_and_columns(model, recipe, tmp_path):
    """A and B in the first month, C in the next: one matrix, of which the ledger keeps the first rows."""
    state, first = tmp_path / "state", tmp_path / "first"
    erase(model, (A, B), tmp_path, recipe, state, first, report=tmp_path / "report-1")
    then = json.loads((tmp_path / "report-1" / "reemergence.json").read_text())
    report = erase(
        first, (C,), tmp_path, recipe, state, tmp_path / "second", report=tmp_path / "report",
        base=str(model),
    )  # fmt: skip
    found = matrix_of(tmp_path)
    assert [p["identity_id"] for p in found["people"]] == ["subject-a", "subject-b", "subject-c"]
    assert [p["own_step"] for p in found["people"]] == [1, 2, 3]
    assert [step["people"][:2] for step in found["steps"][:2]] == [step["people"] for step in then["steps"]]
    assert [cell["cosine"] for cell in found["steps"][2]["people"][:2]] == [e.now for e in report.earlier]
    assert report.reemergence.every_step
    assert report.reemergence.n == 2


def test_of_a_lost_ledger_nobody_comes_back_on_record(model, recipe, tmp_path):
    state, first = tmp_path / "state", tmp_path / "first"
    erase(model, (A,), tmp_path, recipe, state, first)
    shutil.rmtree(ledger(state, model).path)
    report = erase(first, (B,), tmp_path, recipe, state, tmp_path / "second")
    assert report.reemergence is None
    assert "reemergence" not in predicate(tmp_path / "second")
    assert (report.collateral.n, report.collateral.known) == (2, 1)


@pytest.mark.parametrize(
    ("options", "measured"),
    [({}, False), ({"report": "report"}, True), ({"every_step": True}, True),
     ({"report": "report", "every_step": False}, False)],
)  # fmt: skip
def test_what_is_measured_is_planned(model, recipe, tmp_path, options, measured):
    options = {key: tmp_path / v if key == "report" else v for key, v in options.items()}
    planned = erase(model, (A,), tmp_path, recipe, tmp_path / "s", tmp_path / "o", dry_run=True, **options)
    assert planned.plan["every_step"] is measured


def test_the_largest_rise():
    matrix = Matrix([("r", name) for name in "abc"], steps={1: 1, 2: 2, 3: 3})
    matrix.cells = {
        (1, 1): Cell(0.1, 0.0, 0.2, 0.0), (2, 1): Cell(0.4, 0.5, 0.25, 0.0), (3, 1): Cell(0.2, 0.0, 0.1, 0.0),
        (2, 2): Cell(0.3, 0.0), (3, 2): Cell(0.35, 0.25), (3, 3): Cell(0.0, 0.0),
    }  # fmt: skip
    assert matrix.reemergence() == Reemergence(
        2, pytest.approx(0.3), pytest.approx(0.05), 0.5, every_step=True
    )
    del matrix.cells[2, 1]
    found = matrix.reemergence()
    assert (found.rise, found.every_step) == (pytest.approx(0.1), False)
    together = Matrix([("r", name) for name in "abc"], steps={1: 3, 2: 3, 3: 3})
    together.cells = {(3, j): Cell(0.1, 0.0) for j in (1, 2, 3)}
    assert together.reemergence() is None


def test_a_row_goes_through_json_and_leaves_the_withdrawn_out():
    matrix = Matrix([("r", "a"), ("r", "b")], steps={1: 1, 2: 2})
    matrix.cells = {(1, 1): Cell(0.5, 0.0), (2, 1): Cell(0.1, 0.0, 0.3, 0.5), (2, 2): Cell(0.2, 1.0)}
    row = json.loads(json.dumps(matrix.row(2)))
    other = Matrix([("r", "b")], steps={1: 1})
    other.add_row(1, row)
    assert other.cells == {(1, 1): Cell(0.2, 1.0)}
    assert Cell.of(Seen(Likeness(0.1, 0.2), Likeness(0.3, 0.4))) == Cell(0.1, 0.2, 0.3, 0.4)


# ----------------------------------------------------------------------------------------------------------
# The teacher


def said_of_teacher(folder):
    return predicate(folder)["method"]["teacher"]


def test_joint_month_by_month_is_as_if_it_had_been_one_run(hub, home, model, tmp_path):
    """From the original, with the earlier ones in again: the number of runs is no matter."""
    joint = by_mode(home, "joint")
    hub.create_repo(REPO, tiny.tree(model))
    state = tmp_path / "state"
    erase(REPO, (A,), tmp_path, joint, state, tmp_path / "first", create_pr=False)
    second = erase(REPO, (B,), tmp_path, joint, state, tmp_path / "second", create_pr=False)
    erase(model, (A, B), tmp_path, joint, tmp_path / "other", tmp_path / "once")
    assert weights(tmp_path / "second") == weights(tmp_path / "once")
    assert said_of_teacher(tmp_path / "second") == said_of_teacher(tmp_path / "once") == "original"
    assert second.teacher == "original"
    assert [e.extra["step"] for e in entries(state, model)] == [1, 2]
    assert [e.extra["step"] for e in entries(tmp_path / "other", model)] == [2, 2]
    assert verify(hub_module.resolve(REPO)).failed == []


@pytest.fixture(scope="module")
def first(home, model, recipe):
    """Without A, from a folder: nobody can see from the record where the original is."""
    erase(model, (A,), home / "first", recipe, home / "first" / "state", home / "first" / "erased")
    return home / "first"


def again(first, model, recipe, tmp_path, output="second", **options):
    state = tmp_path / f"state-{output}"
    shutil.copytree(first / "state", state)
    if options.pop("forget", False):
        shutil.rmtree(ledger(state, model).path)
    watch, warnings = tiny.Watch(), []
    watch.warn = warnings.append
    erase(first / "erased", (B,), tmp_path, recipe, state, tmp_path / output, progress=watch, **options)
    return tmp_path / output, warnings


def test_an_original_that_cannot_be_had_is_said(first, model, recipe, tmp_path):
    pulled, warned = again(first, model, recipe, tmp_path)
    taught, silent = again(first, model, recipe, tmp_path, "third", base=str(model))
    assert (said_of_teacher(pulled), said_of_teacher(taught)) == ("pulled", "original")
    (warning,) = [text for text in warned if "the teacher" in text]
    assert "a folder, which the record cannot find" in warning
    assert "--base" in warning
    assert not any("the teacher" in text for text in silent)
    assert weights(pulled) != weights(taught)
    assert "could not be had" in (pulled / "README.md").read_text()
    assert "the model from before the first erasure |" in (taught / "README.md").read_text()
    for folder in (pulled, taught):
        assert verify(hub_module.resolve(str(folder))).failed == []


def test_the_original_would_bring_back_who_is_lost(first, model, recipe, tmp_path):
    folder, warned = again(first, model, recipe, tmp_path, forget=True, base=str(model))
    assert said_of_teacher(folder) == "pulled"
    assert any("it would bring back who is not in the ledger" in text for text in warned)


def test_another_model_is_no_original(first, model, recipe, tmp_path):
    with pytest.raises(InputError, match="not the original") as refused:
        again(first, model, recipe, tmp_path, base=str(first / "erased"))
    assert all(p.remedy for p in refused.value.problems)


def test_an_original_has_no_original(model, recipe, tmp_path):
    with pytest.raises(InputError, match="its own original"):
        erase(model, (A,), tmp_path, recipe, tmp_path / "s", tmp_path / "o", dry_run=True, base=str(model))


def test_a_purged_original_is_survived(hub, model, recipe, tmp_path, monkeypatch):
    hub.create_repo(REPO, tiny.tree(model))
    erase(REPO, (A,), tmp_path, recipe, tmp_path / "state", tmp_path / "first", create_pr=False)

    def gone(base):
        raise hub_module.HubError("the revision is gone")

    monkeypatch.setattr(earlier, "pull", gone)
    report = erase(REPO, (B,), tmp_path, recipe, tmp_path / "state", tmp_path / "second", create_pr=False)
    assert (report.status, report.teacher) == ("erased", "pulled")
    assert [e.identity_id for e in report.earlier] == ["subject-a"]


@pytest.mark.parametrize(
    ("mode", "people_steps"),
    [("replay", 200), ("joint", 150), ("merge", 300), ("sugar", 220)],
)
def test_steps_count_who_is_done_again(mode, people_steps):
    heads = load_recipe("heads")
    recipe = dataclasses.replace(
        heads,
        optim=dataclasses.replace(heads.optim, iterations=100),
        sequence=Sequential(mode=mode, surrogate_steps=10),
    )
    latent = torch.zeros(1, 2, 3)
    entry = earlier.Entry("r", "a", 1, 0, "recipe", "replay", "judge", 0.3, 1, w_u=latent, w_t=latent)
    assert steps(recipe, 2, [entry]) == people_steps
    if mode == "merge":
        done = dataclasses.replace(entry, mode="merge", basis={"p": latent})
        assert steps(recipe, 2, [done]) == steps(recipe, 2, [entry], original=False) == 200
    cooled = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, cooldown=7))
    stages = {"joint": 1, "merge": 3}.get(mode, 2)
    assert steps(cooled, 2, [entry]) == people_steps + 7 * stages


# ----------------------------------------------------------------------------------------------------------
# Collateral


def test_the_law():
    assert collateral.expected(1, 1e-3) == pytest.approx(1e-3)
    assert collateral.expected(10, 1e-3) < 0.01 < collateral.expected(11, 1e-3)
    assert collateral.expected(1000, 1e-3) == pytest.approx(1 - 0.999**1000)
    assert collateral.expected(200, collateral.recommended_far(200)) == pytest.approx(0.01, abs=1e-4)


def test_collateral_counts_people():
    """Of ten: two look like the erased one from the front, one of whom is no more themselves."""
    axis = torch.eye(3)
    photos = torch.stack([axis[0], axis[0]])
    before = axis[1].repeat(10, 3, 1)
    before[:2, 1] = axis[0]
    after = before.clone()
    after[0, 1] = axis[2]
    after[5, 0] = axis[2]  # not frontal
    found = collateral.measure(7, 1e-3, 0.5, [photos], before, after)
    assert (found.n, found.known, found.expected) == (7, 1, pytest.approx(collateral.expected(7, 1e-3)))
    assert (found.alike.value, found.changed.value) == (0.2, 0.1)
    assert (found.alike.low, found.alike.high) == pytest.approx((0.0567, 0.5098), abs=1e-4)  # Wilson
    assert found.changed.n == 10
    assert collateral.measure(7, 1e-3, 0.5, [], before, after).alike is None


def test_collateral_is_on_record(three):
    folder, report = three
    found = predicate(folder / "erased")["collateral"]
    assert (found["n"], found["far"], found["people"], found["known"]) == (3, 1e-3, 3, 3)
    assert found["expected"] == pytest.approx(collateral.expected(3, 1e-3), abs=1e-6)
    assert found["alike"]["value"] == 1.0  # everybody is anybody at this threshold
    assert found["changed"]["value"] == 0.0
    assert "recommended" not in found  # three people's pairs cannot show it
    assert report.to_dict()["collateral"]["alike"]["value"] == 1.0


def test_what_can_be_seen_is_reported_at_the_rate_of_one_per_cent(model, recipe, tmp_path):
    """With more random people their pairs show 0.01 / N."""
    few = load_recipe(recipe)
    many = dataclasses.replace(few, gate=dataclasses.replace(few.gate, retained_people=32))
    (tmp_path / "many.yaml").write_text(many.to_yaml(), encoding="utf-8")
    erase(model, (B,), tmp_path, str(tmp_path / "many.yaml"), tmp_path / "state", tmp_path / "erased")
    at = predicate(tmp_path / "erased")["collateral"]["recommended"]
    assert at["far"] == 0.01
    assert -1 < at["threshold"] < 1
    assert {"erasedVerifiedMax", "retainedVerified"} <= at.keys()
    assert "othersVerifiedMax" not in at  # one photo


def test_verify_knows_the_law(three, tmp_path):
    shutil.copytree(three[0] / "erased", tmp_path / "erased")
    statement = record.read_record(tmp_path / "erased")
    statement["predicate"]["collateral"]["expected"] = 0.0001
    (tmp_path / "erased" / "erasure_record.json").write_bytes(record.to_bytes(statement))
    readme = tmp_path / "erased" / "README.md"
    readme.write_text(rerender_card(readme.read_text(), statement))
    record.write_sums(tmp_path / "erased")
    (check,) = verify(hub_module.resolve(str(tmp_path / "erased"))).failed
    assert (check.name, check.detail) == ("results", "the collateral on record is not that of 3 erasures")
