"""Erasing again next month: the ledger brings the people of earlier runs back into the work, no further."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_erasure as tiny
import torch
import yaml

from guide_hub import earlier, people, pipeline, record
from guide_hub import hub as hub_module
from guide_hub.checkpoint import Checkpoint
from guide_hub.delivery import push_folder
from guide_hub.errors import InputError, RefusedError
from guide_hub.faces import crops
from guide_hub.interrupt import Stopped
from guide_hub.ledger import Ledger
from guide_hub.modes.replay import Replay
from guide_hub.rebuild import rebuild
from guide_hub.verify import verify

REPO, WEIGHTS = "org/eg3d", "model.safetensors"
A, B, C = ("req-7", "subject-a"), ("req-8", "subject-b"), ("req-9", "subject-c")
PHOTOS = {A: ("IMG_2207.png", "IMG_2208.png"), B: ("holiday.png",), C: ("party.png",)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def model(home):
    return tiny.make_model(home / "model")


@pytest.fixture(scope="module", autouse=True)
def world(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(home / "weights")))
        patch.delenv("GUIDE_HUB_KEY", raising=False)
        patch.setattr(crops, "read_faces", tiny.whole_photos)
        patch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)
        patch.setattr(people, "check_grouping", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def recipe(home):
    return tiny.make_recipe(home / "recipe")


@pytest.fixture(scope="module")
def months(home, model, recipe):
    """A, then B from the model without A: states after each, folders and what was seen; read only."""
    state = home / "state"
    one = erase(model, A, home, recipe, state, home / "erased-1")
    shutil.copytree(state, home / "state-1")
    watch = tiny.Watch()
    two = erase(home / "erased-1", B, home, recipe, state, home / "erased-2", progress=watch)
    return SimpleNamespace(
        one=one, two=two, first=home / "erased-1", second=home / "erased-2", watch=watch,
        state_1=home / "state-1", state_2=state,
    )  # fmt: skip


@pytest.fixture
def state(months, tmp_path):
    """The state folder after the first month, to change."""
    shutil.copytree(months.state_1, tmp_path / "state")
    return tmp_path / "state"


def request(folder, person):
    return tiny.make_request(folder / person[0], person[0], {person[1]: PHOTOS[person]})


def erase(repo, person, folder, recipe, state, output, **options):
    options = {"device": "cpu", "recipe": recipe, "state": state, "output": output, **options}
    return pipeline.erase(str(repo), request(folder, person), **options)


def ledger(state, model):
    base = record.file_sha256(model / "model.safetensors")
    return Ledger(state, base, record.find_keys(state))


def entries(state, model):
    return ledger(state, model).entries()


def now(folder, k=0):
    return record.read_record(folder)["predicate"]["erasures"][k]["metrics"]["id"]["now"]


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# ----------------------------------------------------------------------------------------------------------
# The next month


def test_the_next_month_rehearses_the_first(months, model):
    replayed = {step: losses.replay > 0 for (_, step), losses in months.watch.losses.items()}
    assert replayed == dict.fromkeys(range(1, tiny.STEPS + 1), True)
    a, b = entries(months.state_2, model)
    assert [(e.request_id, e.identity_id) for e in (a, b)] == [A, B]
    assert (a.sequence, b.sequence) == (1, 2)
    assert (a.fitted, a.points.shape[0], a.embeddings.shape[0]) == (1, 1, 2)
    assert (b.fitted, b.points, b.embeddings.shape[0]) == (1, None, 1)
    assert a.judge == b.judge == earlier.judge_name("heads-b", a.judge.rpartition(":")[2])
    assert b.extra["model"] == record.file_sha256(months.second / "model.safetensors")


def test_a_surrogate_that_made_way_is_in_the_ledger(months, model, recipe, state, tmp_path, monkeypatch):
    end = Replay.end

    def moves(mode: Replay) -> None:
        end(mode)
        mode.earlier[:] = [dataclasses.replace(m, w_t=m.w_t + 1) for m in mode.earlier]

    monkeypatch.setattr(Replay, "end", moves)
    (before,) = entries(state, model)
    refused = tiny.make_recipe(tmp_path / "strict", erased_views_max=0.0)
    with pytest.raises(RefusedError):
        erase(months.first, B, tmp_path, refused, state, tmp_path / "refused")
    (same,) = entries(state, model)
    assert torch.equal(same.w_t, before.w_t)
    erase(months.first, B, tmp_path, recipe, state, tmp_path / "out")
    after, _ = entries(state, model)
    assert torch.equal(after.w_t, before.w_t + 1)
    assert torch.equal(after.w_u, before.w_u)
    assert (after.sequence, after.extra) == (before.sequence, before.extra)


def test_places_of_photos_reach_the_next_month_sealed(model, home, tmp_path):
    """Three photos: two find the person, each for itself as well; the third tests and is no place."""
    near = yaml.safe_load(Path(tiny.make_recipe(tmp_path)).read_text())
    near["adjacency"]["photos"] = True
    (tmp_path / "near.yaml").write_text(yaml.safe_dump(near))
    options = {"device": "cpu", "recipe": str(tmp_path / "near.yaml"), "state": tmp_path / "state"}
    photos = {"subject-a": ("one.png", "two.png", "three.png")}
    first = tiny.make_request(tmp_path / "first", "req-1", photos)
    pipeline.erase(str(model), first, output=tmp_path / "erased-1", **options)
    (entry,) = entries(tmp_path / "state", model)
    assert entry.extra[earlier.PHOTOS].shape == (2, *entry.w_u.shape[1:])
    (memory,) = earlier.memories([entry])
    assert torch.equal(memory.photos, entry.extra[earlier.PHOTOS])
    published = b"".join(p.read_bytes() for p in (tmp_path / "erased-1").rglob("*") if p.is_file())
    assert memory.photos[0, 0].numpy().tobytes() not in published
    second = tiny.make_request(tmp_path / "second", "req-2", {"subject-b": ("holiday.png",)})
    pipeline.erase(str(tmp_path / "erased-1"), second, output=tmp_path / "erased-2", **options)
    again, single = entries(tmp_path / "state", model)
    assert torch.equal(again.extra[earlier.PHOTOS], memory.photos)
    assert earlier.PHOTOS not in single.extra  # one photo has no place beside the person's
    rebuild(
        str(tmp_path / "erased-2"), "req-2/subject-b", output=tmp_path / "anew", base=str(model), **options
    )
    assert weights(tmp_path / "anew") == weights(tmp_path / "erased-1")  # by the same neighbours
    (kept,) = entries(tmp_path / "state", model)
    assert torch.equal(kept.extra[earlier.PHOTOS], memory.photos)


def test_the_first_is_measured_again_on_the_last_weights(months):
    (again,) = months.two.earlier
    assert (again.request_id, again.identity_id, again.sequence, again.result) == (*A, 1, "PASSED")
    assert now(months.second) == pytest.approx(again.now, abs=1e-6)
    assert again.now != months.one.erasures[0].now
    assert again.others_now is not None
    statement = record.read_record(months.second)
    assert record.check_link(statement, (months.first / "erasure_record.json").read_bytes()) == []


def test_the_ledger_measures_what_the_photos_would(months, model, recipe, tmp_path):
    """The first's `now` from the ledger, on weights on which the photos gave it."""
    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.views import yaw_cameras
    from guide_hub.faces.registry import load_identity
    from guide_hub.recipe import load_recipe

    student, options = EG3D.from_pretrained(months.first), load_recipe(recipe)
    known = earlier.recall(
        months.state_1, (months.first / "erasure_record.json").read_bytes(), "", options.digest(), 0
    )
    cameras = yaw_cameras(student, options.camera, options.gate.views)
    judge = load_identity("heads-b", torch.device("cpu"))
    sitter = earlier.sitter(known.known[0], judge, cameras)
    (again,) = earlier.reports(known, {1: sitter.seen(sitter.views(student))}, options.gate, {A: 1})
    (of_photos,) = months.one.erasures
    assert again.now == pytest.approx(of_photos.now, abs=1e-6)
    assert again.others_now == pytest.approx(of_photos.id_others.after, abs=1e-6)
    assert again.verified_now == of_photos.verified_after


def test_a_chain_of_folders_is_followed_by_the_ledger(months, model, recipe, tmp_path):
    """The record of the second names a folder, in which nobody finds the first's."""
    state = tmp_path / "state"
    shutil.copytree(months.state_2, state)
    report = erase(months.second, C, tmp_path, recipe, state, tmp_path / "third")
    assert [(e.request_id, e.identity_id) for e in report.earlier] == [A, B]
    assert [e.sequence for e in entries(state, model)] == [1, 2, 3]


def test_nothing_of_the_ledger_is_in_the_folders(months, model):
    public = b"\n".join(b"".join(tiny.tree(folder).values()) for folder in (months.first, months.second))
    for entry in entries(months.state_2, model):
        for tensor in (entry.w_u, entry.w_t, entry.points, entry.embeddings):
            if tensor is not None:
                data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
                assert not any(data[at : at + 16] in public for at in range(0, len(data) - 16, 64))


def test_a_dry_run_says_who_is_rehearsed(months, recipe, state, tmp_path):
    before = tiny.tree(state)
    planned = erase(months.first, B, tmp_path, recipe, state, tmp_path / "out", dry_run=True)
    assert (planned.plan["earlier_erasures"], planned.plan["rehearsed_erasures"]) == (1, 1)
    assert tiny.tree(state) == before


# ----------------------------------------------------------------------------------------------------------
# Without it


def test_a_lost_ledger_is_said_and_survived(months, model, recipe, state, tmp_path):
    shutil.rmtree(ledger(state, model).path)
    watch, said = tiny.Watch(), []
    watch.warn = said.append
    report = erase(months.first, B, tmp_path, recipe, state, tmp_path / "out", progress=watch)
    (warning,) = [text for text in said if "earlier erasure" in text]
    assert "1 earlier erasure is not in the ledger" in warning
    assert "not rehearsed" in warning
    assert "--state" in warning
    assert report.status == "erased"
    assert report.earlier == []
    assert now(tmp_path / "out") is None
    assert not any(losses.replay > 0 for losses in watch.losses.values())
    assert [(e.request_id, e.sequence) for e in entries(state, model)] == [("req-8", 2)]


def test_another_key_is_an_error_before_the_work(months, recipe, state, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_KEY", "ab" * 32)
    with pytest.raises(InputError, match="sealed under a key that is not here") as refused:
        erase(months.first, B, tmp_path, recipe, state, tmp_path / "out", progress=tiny.Watch(pytest.fail))
    assert all(p.remedy for p in refused.value.problems)
    assert not (tmp_path / "out").exists()


def test_an_open_folder_is_an_error_before_the_work(model, recipe, state, tmp_path):
    ledger(state, model).path.chmod(0o755)
    with pytest.raises(InputError, match="others can enter"):
        erase(model, B, tmp_path, recipe, state, tmp_path / "out", progress=tiny.Watch(pytest.fail))


def test_another_judge_measures_nobody(months, model, recipe, state, tmp_path):
    (entry,) = entries(state, model)
    ledger(state, model).add(dataclasses.replace(entry, judge="heads-b sha256:" + "0" * 64))
    watch, said = tiny.Watch(), []
    watch.warn = said.append
    report = erase(months.first, B, tmp_path, recipe, state, tmp_path / "out", progress=watch)
    assert report.earlier == []
    assert now(tmp_path / "out") is None
    assert any("1 of 1 earlier people are not measured again" in text for text in said)


def test_a_stopped_run_does_not_go_on_with_other_memories(months, model, recipe, state, tmp_path):
    import signal

    def stop(identity, step):
        if step == 1:
            signal.raise_signal(signal.SIGTERM)

    arguments = (months.first, B, tmp_path, recipe, state, tmp_path / "out")
    with pytest.raises(Stopped):
        erase(*arguments, progress=tiny.Watch(stop))
    again = tiny.Watch(lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped):
        erase(*arguments, progress=again)
    assert again.starts == [("subject-b", 1)]
    shutil.rmtree(ledger(state, model).path)
    watch = tiny.Watch()
    erase(*arguments, progress=watch)
    assert watch.starts == [("subject-b", 0)]


# ----------------------------------------------------------------------------------------------------------
# What is added


def test_a_failed_run_adds_nothing(model, home, tmp_path):
    strict = tiny.make_recipe(tmp_path / "strict", erased_views_max=0.0)
    with pytest.raises(RefusedError, match="still verified"):
        erase(model, A, tmp_path, strict, tmp_path / "state", tmp_path / "out")
    assert entries(tmp_path / "state", model) == []


def test_who_came_back_fails_the_run(hub, months, model, state, tmp_path, monkeypatch):
    """The first is still verified at the threshold of then; the second is gone at the one of now."""
    strict = tiny.make_recipe(tmp_path / "strict", erased_views_max=0.0)
    monkeypatch.setattr(people, "refuse_unshown", lambda *_: None)
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.NOBODY)
    hub.create_repo(REPO, tiny.tree(months.first))
    before = tiny.tree(ledger(state, model).path)
    with pytest.raises(
        RefusedError, match=r"req-7\.subject-a: an earlier erasure came back: verified in 100%"
    ):
        erase(REPO, B, tmp_path, strict, state, tmp_path / "out")
    results = [e["result"] for e in record.read_record(tmp_path / "out")["predicate"]["erasures"]]
    assert results == ["FAILED", "PASSED"]
    assert "Not every erasure meets its target" in (tmp_path / "out" / "README.md").read_text()
    assert hub.repos[REPO].pulls == []
    assert tiny.tree(ledger(state, model).path) == before


@pytest.mark.parametrize("moment", ["before the ledger", "before the push"])
def test_killed_on_the_way_adds_once(hub, model, recipe, tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    hub.create_repo(REPO, tiny.tree(model))
    arguments = (REPO, A, tmp_path, recipe, tmp_path / "state", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "clear", lambda _: None)
        patch.setattr(*(earlier, "add", die) if moment == "before the ledger" else (pipeline, "deliver", die))
        with pytest.raises(Killed):
            erase(*arguments)
    assert (tmp_path / "out").exists()
    assert len(entries(tmp_path / "state", model)) == (moment == "before the push")
    report = erase(*arguments)
    assert report.pushed["pr_url"]
    (entry,) = entries(tmp_path / "state", model)
    assert entry.extra["model"] == record.file_sha256(tmp_path / "out" / "model.safetensors")


def test_the_hub_s_chain_leads_to_the_original(hub, model, recipe, tmp_path):
    """By commits on main, three months; the ledger is the original's all along, after a purge too."""
    hub.create_repo(REPO, tiny.tree(model))
    state = tmp_path / "state"
    for n, person in enumerate((A, B)):
        erase(REPO, person, tmp_path, recipe, state, tmp_path / f"out-{n}", create_pr=False)
    pulled = hub.files(REPO)["erasure_record.json"]
    assert earlier.original(pulled).sha256 == record.file_sha256(model / "model.safetensors")
    report = erase(REPO, C, tmp_path, recipe, state, tmp_path / "third", create_pr=False)
    assert [e.identity_id for e in report.earlier] == ["subject-a", "subject-b"]
    assert len(entries(state, model)) == 3


# ----------------------------------------------------------------------------------------------------------
# Rebuild


def rebuilt(repo, without, recipe, state, output, **options):
    options = {"device": "cpu", "recipe": recipe, "state": state, "output": output, **options}
    return rebuild(str(repo), "/".join(without), **options)


@pytest.fixture(scope="module")
def both(home, model, recipe):
    """A and B in one run, with another seed; and B alone from the original, with the same."""
    state = home / "state-both"
    requests = [request(home / "both", person) for person in (A, B)]
    options = {"device": "cpu", "recipe": recipe, "seed": 5}
    pipeline.erase(str(model), requests, state=state, output=home / "both-erased", **options)
    alone = home / "alone"
    pipeline.erase(str(model), requests[1], state=home / "state-alone", output=alone, **options)
    return SimpleNamespace(folder=home / "both-erased", state=state, alone=alone)


@pytest.fixture
def both_state(both, tmp_path):
    shutil.copytree(both.state, tmp_path / "state")
    return tmp_path / "state"


def test_without_one_is_as_if_the_other_had_been_alone(both, both_state, model, recipe, tmp_path):
    report = rebuilt(
        both.folder, A, None, both_state, tmp_path / "out", base=str(model), reason="wrong-person"
    )
    assert weights(tmp_path / "out") == weights(both.alone)
    assert weights(tmp_path / "out") != weights(both.folder)
    assert (report.status, report.request_id, report.request_ids) == ("rebuilt", "req-7", ["req-8"])
    said, alone = (record.read_record(f)["predicate"] for f in (tmp_path / "out", both.alone))
    (figures,), (expected,) = said["erasures"], alone["erasures"]
    assert figures["metrics"] == expected["metrics"]
    assert figures["commitment"] == record.read_record(both.folder)["predicate"]["erasures"][1]["commitment"]
    assert (figures["sequence"], figures["requestId"], said["method"]["seed"]) == (1, "req-8", 5)
    assert said["base"] == {"uri": "local", "digest": {"sha256": record.file_sha256(model / WEIGHTS)}}
    assert "previousRecord" not in said
    replaced = record.file_sha256(both.folder / "erasure_record.json")
    assert said["rebuilt"]["replacesRecord"]["digest"]["sha256"] == replaced
    withdrawn = said["rebuilt"]["withdrawn"]
    assert (withdrawn["requestId"], withdrawn["identityId"], withdrawn["reason"]) == (*A, "wrong-person")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"**Withdrawn** on {withdrawn['withdrawnOn']}: identity `subject-a` of request `req-7`" in card
    assert verify(hub_module.resolve(str(tmp_path / "out"))).failed == []
    (entry,) = entries(both_state, model)
    assert (entry.request_id, entry.sequence, entry.seed) == ("req-8", 1, 5)
    assert entry.extra["model"] == record.file_sha256(tmp_path / "out" / WEIGHTS)
    assert list((both_state / "runs").iterdir()) == []


def test_the_next_erasure_continues_a_rebuilt_model(both, both_state, model, recipe, tmp_path):
    rebuilt(both.folder, A, recipe, both_state, tmp_path / "out", base=str(model))
    report = erase(tmp_path / "out", C, tmp_path, recipe, both_state, tmp_path / "next")
    assert [(e.request_id, e.identity_id) for e in report.earlier] == [B]
    assert [e.sequence for e in entries(both_state, model)] == [1, 2]


def test_two_seeds_are_two_sequences(months, model, recipe, state, tmp_path, monkeypatch):
    """A and B were of runs of their own; killed after A, the rebuild goes on with B."""
    second, third = tmp_path / "second", tmp_path / "third"
    erase(months.first, B, tmp_path, recipe, state, second, seed=3)
    erase(second, C, tmp_path, recipe, state, third)
    watch = tiny.Watch()
    rebuilt(third, C, recipe, state, tmp_path / "whole", base=str(model), progress=watch, push=False)
    assert watch.starts == [("req-7.subject-a", 0), ("req-8.subject-b", 0)]
    assert [e.seed for e in entries(state, model)] == [0, 3]
    assert all(watch.losses["req-8.subject-b", step].replay > 0 for step in range(1, tiny.STEPS + 1))


def test_a_killed_rebuild_goes_on_to_the_same_bytes(both, both_state, model, recipe, tmp_path):
    import signal

    def stop(identity, step):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    arguments = (both.folder, A, recipe, both_state, tmp_path / "out")
    with pytest.raises(Stopped):
        rebuilt(*arguments, base=str(model), progress=tiny.Watch(stop))
    assert len(entries(both_state, model)) == 2
    watch = tiny.Watch()
    rebuilt(*arguments, base=str(model), progress=watch)
    assert watch.starts == [("req-8.subject-b", 2)]
    assert weights(tmp_path / "out") == weights(both.alone)


@pytest.mark.parametrize("who", ["missing", "without a person"])
def test_missing_entries_are_named(both, both_state, model, recipe, tmp_path, who):
    book = ledger(both_state, model)
    if who == "missing":
        book.forget(*B)
    else:
        (_, entry) = book.entries()
        nobody = {"w_u": None, "w_t": None, "points": None, "embeddings": None}
        book.add(dataclasses.replace(entry, **nobody))
    with pytest.raises(InputError, match="req-8/subject-b") as refused:
        rebuilt(both.folder, A, recipe, both_state, tmp_path / "out", base=str(model))
    assert all(p.remedy for p in refused.value.problems)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"without": ("req-7", "Jane Doe")}, "is not REQUEST/IDENTITY"),
        ({"without": C}, "req-9/subject-c is not on the model's record"),
        ({"reason": "because Jane asked"}, "--reason is no code"),
        ({"base": None}, "a folder, which the record cannot find"),
        ({"base": "both"}, "not the original"),
        ({"recipe": "heads"}, "req-8/subject-b was erased by another recipe than heads"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(both, both_state, model, recipe, tmp_path, change, said):
    if change.get("base") == "both":
        change = {"base": str(both.folder)}
    given = {"without": A, "recipe": recipe, "base": str(model), **change}
    with pytest.raises(InputError, match=said):
        rebuilt(both.folder, given.pop("without"), given.pop("recipe"), both_state, tmp_path / "out", **given)
    assert len(entries(both_state, model)) == 2


def test_the_only_erasure_leads_back_to_the_original(months, model, recipe, state, tmp_path):
    with pytest.raises(InputError, match="the only erasure on record"):
        rebuilt(months.first, A, recipe, state, tmp_path / "out", base=str(model))


def test_a_rebuild_that_misses_its_target_forgets_nobody(both, both_state, model, home, tmp_path):
    strict = tiny.make_recipe(tmp_path / "strict", erased_views_max=0.0)
    from guide_hub.recipe import load_recipe

    digest = load_recipe(strict).digest()
    book = ledger(both_state, model)
    for entry in book.entries():
        book.add(dataclasses.replace(entry, extra={**entry.extra, "recipe_sha256": digest}))
    before = tiny.tree(book.path)
    with pytest.raises(RefusedError, match="still verified"):
        rebuilt(both.folder, A, strict, both_state, tmp_path / "out", base=str(model))
    assert tiny.tree(book.path) == before


def test_on_the_hub(hub, call, model, recipe, tmp_path, monkeypatch):
    """Base and erased model in one repository: pull request, its checks, merge, and nothing left to do."""
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))
    hub.create_repo(REPO, tiny.tree(model))
    for n, person in enumerate((A, B)):
        erase(REPO, person, tmp_path, recipe, tmp_path / "state", tmp_path / f"out-{n}", create_pr=False)
    arguments = ["rebuild", "--repo", REPO, "--without", "req-7/subject-a", "--device", "cpu", "-q"]
    arguments += ["--output", tmp_path / "out"]
    planned = call(*arguments, "--dry-run")
    assert "without: req-7/subject-a" in planned.out
    assert not (tmp_path / "out").exists()
    done = call(*arguments, "--json")
    assert (done.code, done.json["status"]) == (0, "rebuilt"), done.err
    (pull,) = hub.repos[REPO].pulls
    assert pull.title == "Withdraw an erasure of request req-7"
    assert [e.identity_id for e in entries(tmp_path / "state", model)] == ["subject-b"]
    checked = verify(hub_module.resolve(REPO, "refs/pr/1"))
    assert checked.failed == []
    assert {c.name: c.status for c in checked.checks}["chain"] == "passed"
    assert call("audit", REPO, "--json").json["status"]
    hub.merge(REPO, 1)
    assert verify(hub_module.resolve(REPO)).failed == []
    again = call(*arguments, "--json")
    assert (again.code, again.json["status"]) == (0, "already_withdrawn")
    report = erase(REPO, A, tmp_path, recipe, tmp_path / "state", tmp_path / "again", create_pr=False)
    assert [(e.request_id, e.sequence) for e in report.erasures] == [("req-7", 2)]
    assert [e.identity_id for e in report.earlier] == ["subject-b"]
    assert verify(hub_module.resolve(REPO)).failed == []


@pytest.mark.parametrize("moment", ["folder", "push"])
def test_an_entry_leaves_after_the_push_alone(hub, model, recipe, tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    state = tmp_path / "state"
    hub.create_repo(REPO, tiny.tree(model))
    for n, person in enumerate((A, B)):
        erase(REPO, person, tmp_path, recipe, state, tmp_path / f"out-{n}", create_pr=False)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "clear", lambda _: None)
        patch.setattr(*((pipeline, "deliver", die) if moment == "folder" else (Ledger, "forget", die)))
        with pytest.raises(Killed):
            rebuilt(REPO, A, recipe, state, tmp_path / "out")
    assert {e.identity_id for e in entries(state, model)} == {"subject-a", "subject-b"}
    (other,) = [e for e in entries(state, model) if e.identity_id == "subject-b"]
    ledger(state, model).add(dataclasses.replace(other, w_t=other.w_t + 1))  # it moved
    rebuilt(REPO, A, recipe, state, tmp_path / "out")
    assert len(hub.repos[REPO].pulls) == 1
    assert [e.identity_id for e in entries(state, model)] == ["subject-b"]


def test_a_finished_folder_is_pushed_later(hub, model, recipe, tmp_path):
    state = tmp_path / "state"
    hub.create_repo(REPO, tiny.tree(model))
    for n, person in enumerate((A, B)):
        erase(REPO, person, tmp_path, recipe, state, tmp_path / f"out-{n}", create_pr=False)
    rebuilt(REPO, A, recipe, state, tmp_path / "out", push=False)
    options = {"delete_other_weights": False, "replace_record": False, "supersede": False}
    pushed = push_folder(tmp_path / "out", REPO, create_pr=None, **options)
    assert pushed.pr_url
    hub.merge(REPO, 1)
    assert hub.files(REPO)[WEIGHTS] == weights(tmp_path / "out")
