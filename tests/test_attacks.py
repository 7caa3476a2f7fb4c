"""Attacks on an erased model: what they find where the person is, where they never were, and who is told."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import pytest
import tiny_attacks as small
import tiny_erasure as tiny
import torch
from safetensors.torch import load_file, save_file

from guide_hub import pipeline, record
from guide_hub.attacks import registry, reinversion, relearning
from guide_hub.attacks.case import make_case, secrets_of, target_of
from guide_hub.attacks.likely import Likely
from guide_hub.attacks.neighbourhood import around, line
from guide_hub.attacks.registry import ATTACKS, chosen
from guide_hub.attacks.reinversion import verdict
from guide_hub.attacks.sight import person
from guide_hub.attacks.suite import run_all
from guide_hub.errors import RefusedError
from guide_hub.faces import crops
from guide_hub.latents import LatentSpace, norm_of
from guide_hub.record.attacked import SHOWN, WHAT
from guide_hub.record.record import schema
from guide_hub.request import Identity, Photo

OTHER = 2  # the seed of a model that never had the person
LINES = {"draws": 0.8, "reflection": 0.7, "reinversion": 0.5}  # thresholds that random pictures can reach
BLIND = ("leaks", "drift")  # they judge no person


def found(name, case, budget=small.LEAST):
    (finding,) = run_all(case, [name], budget)
    return finding


@pytest.fixture(scope="module")
def other():
    return small.model(OTHER)


# ----------------------------------------------------------------------------
# The attacks


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in (*BLIND, "retention", "beacon")])
def test_where_nobody_was_erased_every_attack_finds_the_person(name):
    finding = found(name, small.case(threshold=LINES.get(name, 0.99)))
    assert finding.passed is False
    assert finding.attack == name
    assert finding.seconds > 0


@pytest.mark.parametrize("name", ["views", "neighbourhood", "draws", "reflection", "beacon"])
def test_where_the_person_never_was_nothing_is_found(name, other):
    assert found(name, small.case(other, LINES.get(name, 0.99))).passed is True


def test_what_cannot_be_told_is_not_passed(other):
    assert found("beacon", small.case()).passed is None  # nothing differs: there is nothing to find
    assert found("draws", small.case(other, 0.99)).passed is None  # chance showed nobody before either
    assert found("reinversion", small.case(other, 0.9999)).passed is None  # nor did the search
    assert found("leaks", small.case()).passed is None  # no folder
    assert found("relearning", small.case(other, 0.9999)).passed is None  # two steps teach nobody


def test_those_who_stay(other):
    assert found("retention", small.case()).passed is True
    assert found("retention", small.case(other)).passed is False


def test_drift_is_told_beside_its_floor(other):
    figures = found("drift", small.case(other)).figures
    assert figures["kid"] > 100 * abs(figures["kid_floor"])


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "leaks"])
def test_findings_repeat_and_may_be_published(name, other):
    once, again = (found(name, small.case(other)) for _ in range(2))
    assert once.figures == again.figures
    told = once.to_dict()
    assert told.keys() == {"attack", "passed", "rule", "figures"}
    assert all(v is None or math.isfinite(v) for v in once.figures.values())
    json.dumps(told, allow_nan=False)
    for curve in once.curves:
        assert all(len(line) == len(curve.x) for line in curve.lines.values())
    for rows in once.pictures.values():
        assert rows.ndim == 4
        assert -1.001 <= float(rows.min()) <= float(rows.max()) <= 1.001


def test_no_weights_are_touched(other):
    """The last attack fine-tunes, a copy."""
    case = small.case(other)
    before = {k: v.clone() for k, v in case.erased.state_dict().items()}
    for name in ("reinversion", "beacon", "relearning"):
        found(name, case)
    assert all(torch.equal(v, before[k]) for k, v in case.erased.state_dict().items())
    assert not any(p.requires_grad for model in (case.source, case.erased) for p in model.parameters())


@pytest.mark.parametrize(
    ("own", "passed", "steps"),
    [([0, 0.6], False, 1), ([0, 0, 0.6], True, 2), ([0, 0, 0, 0], True, None), ([0.6], False, 0)],
)
def test_one_photo_is_held_against_the_quickest_of_all_others(own, passed, steps, other, monkeypatch):
    """Controls that take 3 steps, 2 and more than there are; the next person's are the same."""
    taught = iter([own, [0, 0, 0, 0.6], [0, 0, 0.6], [0, 0, 0, 0], own])
    monkeypatch.setattr(relearning, "tune", lambda *_: next(taught))
    monkeypatch.setattr(relearning, "benign_verified", lambda *_: 0.0)
    budget = dataclasses.replace(small.LEAST, tuning_steps=3, tuning_controls=3)
    case = small.case(other, 0.5)
    for _ in range(2):
        finding = relearning.run(case, budget=budget)
        assert finding.passed is passed
        assert finding.figures["steps_erased"] == steps
        assert (finding.figures["steps_quickest_control"], finding.figures["steps_median_control"]) == (2, 3)
        (curve,) = finding.curves
        assert curve.lines["the quickest control"] == [0, 0, 0.6, None]
        assert curve.lines["the median control"] == [0, 0, 0, 0.6]
    assert next(taught, None) is None


def test_where_nobody_is_learnt_nothing_is_told():
    """Steps to the person, to the quickest other, views verified after fine-tuning on others."""
    assert relearning.verdict(None, None, 0.0)[0] is None
    assert relearning.verdict(None, None, 0.2)[0] is False
    assert relearning.verdict(None, 3, 0.0)[0] is True
    assert relearning.verdict(3, None, 0.0)[0] is False
    assert relearning.verdict(3, 3, 0.0)[0] is True
    assert relearning.verdict(3, 3, 0.2)[0] is False


def test_the_balls_have_their_radii(other):
    case = small.case(other)
    space, w_u = LatentSpace(case.source), case.ws[:1]
    places = around(case, small.LEAST)
    length = case.recipe.adjacency.alpha_max * space.median_offset()
    for name in ("ball w 1.00", "ball wplus 1.00"):
        assert norm_of(places[name] - w_u, "whole").flatten().tolist() == pytest.approx(
            [length] * 2, rel=1e-4
        )
    assert torch.allclose(places["ball w 1.00"] - w_u, (places["ball w 1.00"] - w_u)[:, :1], atol=1e-4)
    mixed = (places["mixed mid"] != w_u).any(2)[0]
    assert 0 < int(mixed.sum()) < w_u.shape[1]


def test_the_line_goes_over_the_mean_face():
    w_u, w_avg, w_t = (torch.full((1, 2, 3), x) for x in (1.0, 0.0, -2.0))
    assert line(w_u, w_avg, w_t, 5)[:, 0, 0].tolist() == [1, 0.5, 0, -1, -2]
    assert line(w_u, w_avg, None, 3)[:, 0, 0].tolist() == [1, 0.5, 0]


@pytest.fixture
def likely():
    return Likely(LatentSpace(small.model()), 2.0)


def scaled(likely, far, seed=8):
    """A row [1, 1, w_dim] in a random direction at `far` typical distances."""
    space = LatentSpace(small.model())
    offset = space.random(1, torch.Generator().manual_seed(seed))[:, :1] - likely.mean
    return (likely.mean + offset * far / likely.distance(likely.mean + offset)).float()


def test_a_random_latent_is_likely_and_a_far_one_is_not(likely):
    space = LatentSpace(small.model())
    w = space.random(50, torch.Generator().manual_seed(8))
    assert float(likely.unlikeliness(w).median()) == pytest.approx(1, abs=0.3)
    assert float(likely.unlikeliness(space.w_avg + 5 * (w - space.w_avg)).median()) > 4


def test_what_lies_outside_comes_back_to_the_surface_and_nothing_else_moves(likely):
    ws = torch.cat([scaled(likely, far, seed) for seed, far in enumerate((0.5, 1.9, 2.5, 40))], 1)
    found = likely.clamp(ws)
    assert found.dtype == ws.dtype
    assert torch.equal(found[:, :2], ws[:, :2])
    assert likely.distance(found)[0].tolist() == pytest.approx([0.5, 1.9, 2, 2], rel=1e-4)
    line = torch.cosine_similarity(found - likely.mean, ws - likely.mean, dim=2)
    assert line[0].tolist() == pytest.approx([1] * 4, abs=1e-6)
    assert torch.allclose(likely.clamp(found), found, atol=1e-6)


def test_the_coordinates_are_those_of_w_in_standard_deviations(likely):
    ws = torch.cat([scaled(likely, far) for far in (0.5, 1.5, 9)], 1)
    v = likely.inward(ws)
    assert torch.allclose(likely.outward(v), ws, atol=1e-4)
    assert torch.allclose(likely.outward(likely.bound(v)), likely.clamp(ws), atol=1e-4)
    length = v.norm(dim=2)[0]
    assert (length / length[0]).tolist() == pytest.approx([1, 3, 18], rel=1e-3)


@pytest.mark.parametrize("far", [0.5, 60])
def test_every_find_is_likely_wherever_the_search_began(far, other, likely, monkeypatch):
    """Also with steps that would leave the ball at once, in W and in W+."""
    case = small.case(other)
    inversion = dataclasses.replace(case.recipe.inversion, lr=5.0)
    recipe = dataclasses.replace(case.recipe, inversion=inversion)
    start = scaled(likely, far).expand_as(case.ws[:1])
    case = dataclasses.replace(case, recipe=recipe, ws=torch.cat([start, case.ws[1:]]))
    monkeypatch.setattr(reinversion, "_better", lambda *tried: torch.ones(len(tried[-1]), dtype=int))
    for w_steps, wplus_steps in ((3, 0), (2, 2), (0, 0)):
        budget = dataclasses.replace(small.LEAST, w_steps=w_steps, wplus_steps=wplus_steps)
        real = person(case)
        found = reinversion.search(case, case.erased, likely, case.photos[:1], start, real, budget)
        far_out = likely.distance(found.ws)
        assert float(far_out.max()) <= likely.limit * 1.001
        if w_steps:
            assert float(far_out.max()) == pytest.approx(likely.limit, rel=1e-3)  # the bound was met
            free = reinversion.go_on(case, case.erased, case.photos[:1], found, real, budget)
            assert wplus_steps == 0 or float(likely.distance(free.ws).max()) > likely.limit * 1.1


def test_of_each_search_the_better_end_is_kept_with_its_camera(other, likely, monkeypatch):
    """Starts on the person, at the mean face and on somebody else; each search leaves w_avg, w_u, w_avg."""
    case, space = small.case(), LatentSpace(small.model())
    w_u, w_avg, somebody = case.ws[:1], space.w_avg, space.random(1, torch.Generator().manual_seed(8))
    ends, turned = torch.cat([w_avg, w_u, w_avg]), torch.arange(9.0).view(3, 3) + 1
    poses = torch.zeros(1, 3)
    monkeypatch.setattr(reinversion, "_starts", lambda *_: ([w_u, w_avg, somebody], poses))
    monkeypatch.setattr(reinversion, "refine", lambda *_: (ends, turned))
    found = reinversion.search(
        case, case.source, Likely(space, 100.0), case.photos[:1], w_u, person(case), small.LEAST
    )
    assert torch.allclose(found.ws[:2], w_u.expand(2, -1, -1), atol=1e-5)
    assert found.pose[:2].tolist() == [[0, 0, 0], turned[1].tolist()]
    assert found.cosine.mean(1).argmin() == 2
    for k, start in enumerate((w_u, w_avg, somebody)):
        alone = reinversion._better(case, case.source, case.photos[:1], start, ends[k : k + 1])
        kept = (start, ends[k : k + 1])[int(alone)]
        assert torch.allclose(found.ws[k : k + 1], kept, atol=1e-5)


def test_what_is_found_beyond_the_bound_judges_nothing(other, monkeypatch):
    case = small.case(other, LINES["reinversion"])
    before = found("reinversion", case)

    def everybody(case, model, photo, found, real, budget):
        return dataclasses.replace(found, cosine=torch.ones_like(found.cosine[:1]))

    monkeypatch.setattr(reinversion, "go_on", everybody)
    after = found("reinversion", dataclasses.replace(case, memo={}))
    assert (after.passed, after.rule) == (before.passed, before.rule)
    changed = {name for name, value in after.figures.items() if value != before.figures[name]}
    assert after.figures["verified_unbounded"] == after.figures["verified_strangers_unbounded"] == 1
    assert all(name.endswith("_unbounded") for name in changed)


def test_a_find_is_judged_beside_those_of_strangers():
    """verified, recovery beyond strangers, strangers verified."""
    assert verdict(1.0, 1.0, 0.0)[0] is False  # nobody erased
    assert verdict(1.0, 1.0, 1.0)[0] is False  # more of the person than of strangers
    assert verdict(0.0, 0.2, 0.0)[0] is True  # never there
    assert verdict(0.0, 0.6, 0.0)[0] is False  # nearly the person
    assert verdict(0.5, 0.2, 0.0)[0] is False
    passed, rule = verdict(1.0, 0.2, 1.0)  # anybody is found
    assert passed is None
    assert "strangers" in rule


def test_strangers_are_searched_once_for_all_people(other, monkeypatch):
    case, searched = small.case(other), []
    search = reinversion.search
    monkeypatch.setattr(reinversion, "search", lambda *a: searched.append(1) or search(*a))
    first, second = found("reinversion", case), found("reinversion", dataclasses.replace(case))
    assert first.figures == second.figures
    once = small.LEAST.controls + small.LEAST.strangers
    assert len(searched) == 2 * 2 * small.LEAST.photos + once


def test_the_target_is_known_without_the_run(other):
    case = small.case(other)
    made = make_case(
        case.source, other, case.recipe, case.networks, case.ws, case.photos, 1, case.threshold
    )  # fmt: skip
    space = LatentSpace(case.source)
    assert torch.equal(made.w_t, target_of(case.recipe, space, case.ws[:1]))
    cosine = torch.cosine_similarity(
        (made.w_t - space.w_avg).flatten(), (case.ws[0] - space.w_avg).flatten(), 0
    )
    assert float(cosine) == pytest.approx(-1, abs=1e-4)
    random = dataclasses.replace(case.recipe, target=dataclasses.replace(case.recipe.target, kind="random"))
    assert target_of(random, space, case.ws[:1]) is None


# ----------------------------------------------------------------------------
# Leaks


@pytest.fixture
def published(tmp_path, other):
    folder = tmp_path / "out"
    other.save_pretrained(folder)
    (folder / "README.md").write_text("# A model\n\n| a | b |\n|---|---|\n| 0.1 | 0.2 |\n")
    (folder / "erasure_record.json").write_text('{"figures": {"cosine": 0.1, "share": 0.2}}')
    return folder


SECRETS = (b"IMG_2207.png", bytes(range(48)))


@pytest.mark.parametrize("size", [None, 0, 3, 100, 5000])
def test_a_photo_is_looked_for_whatever_is_left_of_its_file(size, tmp_path):
    path = tmp_path / "IMG_2207.png"
    data = bytes(k * 7 % 251 for k in range(size or 0))
    if size is not None:
        path.write_bytes(data)
    digest = "ab" * 32
    secrets = secrets_of(Identity("subject-a", (Photo("a", path, digest, (9, 9)),)))
    assert secrets[:3] == (b"IMG_2207.png", digest.encode(), bytes.fromhex(digest))
    assert len(secrets) - 3 == {100: 2, 5000: 3}.get(size, 0)
    assert all(piece in data for piece in secrets[3:])


def leaks(folder, other):
    return found("leaks", small.case(other, folder=folder, secrets=SECRETS))


def test_the_place_of_a_single_photo_is_found(published, other):
    """What a fit of one photo alone found is no less the person's than what all of them found."""
    place = torch.randn(1, *small.case(other).ws.shape[1:], generator=torch.Generator().manual_seed(9))
    (published / "notes.bin").write_bytes(place[0, 0].numpy().tobytes())
    told = dataclasses.replace(small.case(other, folder=published, secrets=SECRETS), apart=place)
    assert found("leaks", told).figures["numbers"] > 0
    assert "numbers" not in leaks(published, other).figures


def test_a_clean_folder_passes(published, other):
    finding = leaks(published, other)
    assert finding.passed is True, finding.figures
    assert finding.figures["faults"] == 0


def plant_tensor(folder, case):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "w_u": case.ws[0].contiguous()}, folder / "model.safetensors", {"format": "pt"})


def plant_half(folder, case):
    """Inside a tensor that belongs there, in half the bits."""
    tensors = load_file(folder / "model.safetensors")
    name = max(tensors, key=lambda n: tensors[n].numel())
    flat = tensors[name].half().flatten()
    flat[7 : 7 + case.ws.shape[2]] = case.ws[0, 0].half()
    tensors[name] = flat.view_as(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def plant_embedding(folder, case):
    (folder / "recipe.yaml").write_bytes(case.networks.identity_judge(case.photos)[0].numpy().tobytes())


def plant_metadata(folder, case):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "note": "hello"})


def plant_list(folder, case):
    (folder / "erasure_record.json").write_text(json.dumps({"w": case.ws[0, 0].tolist()}))


def plant_name(folder, case):
    (folder / "README.md").write_text("# From photos/IMG_2207.png\n")


def plant_photo(folder, case):
    (folder / "LICENSE").write_bytes(b"MIT" + SECRETS[1])


def plant_picture(folder, case):
    (folder / "README.md").write_bytes(b"# A model\n\x89PNG\r\n\x1a\n")


def plant_file(folder, case):
    (folder / "latents.pt").write_bytes(b"1")


PLANTS = {
    plant_tensor: "tensors", plant_half: "numbers", plant_embedding: "numbers", plant_metadata: "metadata",
    plant_list: "lists_of_numbers", plant_name: "photos_or_names", plant_photo: "photos_or_names",
    plant_picture: "pictures", plant_file: "foreign_files",
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_what_is_planted_is_found(plant, published, other):
    plant(published, small.case(other))
    finding = leaks(published, other)
    assert finding.passed is False
    assert finding.figures[PLANTS[plant]] >= 1
    assert "IMG_2207" not in finding.rule + repr(finding.figures)


# ----------------------------------------------------------------------------
# Names, record, commands


def test_groups_and_names():
    assert chosen(["quick"]) == registry.quick_names()
    assert chosen(["all", "views"]) == list(ATTACKS)
    assert chosen(["reinversion", "views", "views"]) == ["views", "reinversion"]


def test_the_names_need_no_torch():
    code = "import sys, guide_hub.attacks.registry, guide_hub.cli.verify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_record_and_card_know_the_same_attacks():
    recorded = [n for n in registry.quick_names() if n != "leaks"]
    assert schema()["$defs"]["attack"]["properties"]["attack"]["enum"] == recorded
    assert [*SHOWN] == [*WHAT] == recorded


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(tmp_path / "weights")))
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    for place in ("erasure", "budget"):
        monkeypatch.setattr(f"guide_hub.attacks.{place}.QUICK", small.LEAST)
    tiny.calibrated(tiny.make_model(tmp_path / "model"), tiny.EVERYBODY)
    return tmp_path


def erase(world, **gate):
    request = tiny.make_request(world / "request", people={"subject-a": ("IMG_2207.png", "IMG_2208.png")})
    recipe = tiny.make_recipe(world / "recipe", **{"attacks": "quick", **gate})
    return pipeline.erase(str(world / "model"), request, device="cpu", recipe=recipe, output=world / "out")


def test_a_gating_attack_refuses_the_push(world):
    with pytest.raises(RefusedError, match="the attack views finds the person") as refused:
        erase(world)
    (figures,) = refused.value.report.erasures
    assert figures.result == "FAILED"
    assert {a["attack"]: a["passed"] for a in figures.attacks}["views"] is False
    assert record.overall(record.read_record(world / "out")) == "FAILED"


def test_others_are_recorded_as_failed(world, monkeypatch):
    for name, entry in ATTACKS.items():
        monkeypatch.setitem(ATTACKS, name, dataclasses.replace(entry, gates=False))
    report = erase(world)
    assert report.status == "erased"
    statement = record.read_record(world / "out")
    (entry,) = statement["predicate"]["erasures"]
    said = {a["attack"]: a["passed"] for a in entry["attacks"]}
    assert said["views"] is said["neighbourhood"] is said["reflection"] is False
    card = (world / "out" / "README.md").read_text()
    assert card.count("**did not hold**") == sum(passed is False for passed in said.values())
    assert "T5" in card
    assert not record.card_faults(card, statement)
    assert report.to_dict()["erasures"][0]["attacks"] == [
        {**a, "figures": pytest.approx(a["figures"])} for a in entry["attacks"]
    ]
    assert "IMG_2207" not in json.dumps(statement)


def test_a_folder_that_leaks_is_never_there(world, monkeypatch):
    for name, entry in ATTACKS.items():
        monkeypatch.setitem(ATTACKS, name, dataclasses.replace(entry, gates=False))
    card = world / "model" / "README.md"
    card.write_text(card.read_text() + "\nFrom IMG_2207.png\n")
    shutil.rmtree(world / "state", ignore_errors=True)
    monkeypatch.setattr(record, "render_card", lambda *_: card.read_text())
    with pytest.raises(RefusedError, match="holds something of the person"):
        erase(world)
    assert not (world / "out").exists()


def test_verify_attacks(call, world):
    request = world / "request" / "req-7.yaml"
    erase(world, attacks="none")
    arguments = ("verify", world / "out", "--attack", "views", "--attack", "leaks")
    assert call(*arguments).code == 2
    more = ("--request", request, "--base", world / "model", "--budget", "quick", "-q", "--device", "cpu")
    done = call(*arguments, *more, "--json")
    assert done.code == 3
    status = {check["name"]: check["status"] for check in done.json["checks"]}
    assert status["views subject-a"] == "failed"  # at a threshold that everybody reaches
    assert status["leaks subject-a"] == "passed"
    assert [(a["identity_id"], a["attack"]) for a in done.json["attacks"]] == [
        ("subject-a", "views"), ("subject-a", "leaks"),
    ]  # fmt: skip
    assert "IMG_2207" not in done.out + done.err
    assert call("verify", world / "out", "--attack", "nothing", "--request", request).code == 2
