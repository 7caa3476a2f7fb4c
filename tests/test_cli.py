"""The command line: exit codes, `--json`, and the commands around `erase`."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
import tiny_erasure as tiny
from loopback_hub import HubFault
from PIL import Image

from guide_hub import cli, pipeline, record
from guide_hub.eg3d import EG3D
from guide_hub.faces import crops
from guide_hub.recipe import list_recipes, load_recipe, recipe_text

REPO = "org/eg3d"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("tiny")
    tiny.make_weights(home / "weights")
    return home


@pytest.fixture(scope="module")
def model(home):
    folder = tiny.make_model(home / "model")
    tiny.calibrated(folder, tiny.EVERYBODY)
    return folder


@pytest.fixture(autouse=True)
def _world(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(home / "weights"))
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)


@pytest.fixture
def job(tmp_path):
    """The options of a short erasure of one person."""
    request = tiny.make_request(tmp_path / "request", people={"subject-a": ("IMG_2207.png",)})
    return [
        "--request",
        request,
        "--recipe",
        tiny.make_recipe(tmp_path),
        "--device",
        "cpu",
        "--output",
        "erased",
    ]


@pytest.fixture(scope="module")
def finished(home, model):
    """An output folder of `model`; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(home / "weights"))
        patch.setattr(crops, "read_faces", tiny.whole_photos)
        request = tiny.make_request(home / "request", people={"subject-a": ("IMG_2207.png",)})
        options = {"recipe": tiny.make_recipe(home), "output": home / "erased", "state": home / "state"}
        pipeline.erase(str(model), request, device="cpu", **options)  # threshold: the model's own
    return home / "erased"


def copied(folder, to):
    for name, data in tiny.tree(folder).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


# ----------------------------------------------------------------------------------------------------------
# erase


def test_erase_json_is_the_report(call, model, job, tmp_path):
    done = call("erase", "--repo", model, *job, "--json", "-q")
    assert done.code == 0
    assert done.err.splitlines() == [done.err.strip()]  # quiet, but for the request's warning, once
    assert done.err.startswith("warning: ")
    assert "the answer was due" in done.err
    assert set(done.json) == {
        "status", "request_id", "request_ids", "base", "inversions", "erasures", "earlier", "retained",
        "output", "pushed", "errors", "reemergence", "collateral", "teacher",
    }  # fmt: skip
    assert (done.json["teacher"], done.json["reemergence"]) == ("original", None)
    assert done.json["collateral"]["n"] == 1
    (erasure,) = done.json["erasures"]
    metrics = record.read_record(tmp_path / "erased")["predicate"]["erasures"][0]["metrics"]
    assert erasure["id"]["after"] == pytest.approx(metrics["id"]["after"], abs=1e-6)
    assert (done.json["status"], erasure["result"], done.json["errors"]) == ("erased", "PASSED", [])
    again = call("erase", "--repo", "erased", *job, "--json", "-q")
    assert (again.code, again.json["status"]) == (0, "already_erased")


def test_erase_for_people(call, model, job):
    done = call("erase", "--repo", model, *job)
    assert done.code == 0
    assert "subject-a" in done.out
    assert "PASSED" in done.out
    assert "erasing subject-a" in done.err
    assert "IMG_2207" not in done.out + done.err


def test_dry_run_prints_the_plan(call, model, job, tmp_path):
    done = call("erase", "--repo", model, *job, "--dry-run")
    assert done.code == 0
    assert f"steps: {tiny.STEPS}" in done.out
    assert not (tmp_path / "erased").exists()
    planned = call("erase", "--repo", model, *job, "--dry-run", "--json").json
    assert (planned["status"], planned["plan"]["recipe"]) == ("planned", "tiny")


@pytest.mark.parametrize(
    ("given", "spin"),
    [
        ({}, "2000"), ({"OMP_WAIT_POLICY": "passive"}, "2000"), ({"GOMP_SPINCOUNT": "0"}, "0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)  # fmt: skip
def test_waiting_threads_spin_for_a_little_unless_told_otherwise(given, spin, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(sys, "argv", ["guide-hub", "--version"])
    cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spin
    assert os.environ["OMP_WAIT_POLICY"] == given.get("OMP_WAIT_POLICY", "PASSIVE")


def test_missed_target_is_exit_3(call, hub, model, job, tmp_path):
    hub.create_repo(REPO, tiny.tree(model))
    job[3] = tiny.make_recipe(tmp_path, erased_views_max=0.0)
    done = call("erase", "--repo", REPO, *job, "--json", "-q")
    assert (done.code, done.json["status"]) == (3, "failed")
    assert done.json["erasures"][0]["result"] == "FAILED"
    assert "still verified" in done.json["errors"][0]["message"]
    pushed = call("push", "erased", "--to", REPO, "--json")
    assert (pushed.code, pushed.json["status"]) == (3, "error")
    assert call("verify", "erased").code == 3
    assert hub.repos[REPO].pulls == []
    assert "erasure_record.json" not in hub.files(REPO)


def test_missed_target_is_shown_to_people(call, model, job, tmp_path):
    job[3] = tiny.make_recipe(tmp_path, erased_views_max=0.0)
    done = call("erase", "--repo", model, *job, "-q")
    assert done.code == 3
    assert "subject-a" in done.out
    assert "FAILED" in done.out
    assert "written to erased" in done.out
    assert "still verified" in done.err


def test_no_match_is_exit_3(call, model, job, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.NOBODY)
    done = call("erase", "--repo", model, *job, "--json", "-q")
    assert (done.code, done.json["status"]) == (3, "no_match")
    assert not (tmp_path / "erased").exists()


def test_bad_request_is_exit_2_with_its_place(call, model, job, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("schema: guide-hub/request/v1\nrequest_id: req-1\nrequester_verified: true\n")
    job[1] = bad
    done = call("erase", "--repo", model, *job, "--json")
    assert (done.code, done.json["status"]) == (2, "error")
    messages = [e["message"] for e in done.json["errors"]]
    assert any("identities" in m for m in messages)
    assert all(e["file"] == str(bad) and e["line"] for e in done.json["errors"])


@pytest.mark.parametrize(
    "arguments", [["erase"], ["nonsense"], ["erase", "--nonsense"], ["erase", "--repo", "x", "--request"]]
)
def test_usage_is_exit_2(call, arguments):
    done = call(*arguments)
    assert done.code == 2
    assert done.err.startswith("guide-hub: ")


def test_full_output_folder_is_exit_2(call, model, job, tmp_path):
    (tmp_path / "erased").mkdir()
    (tmp_path / "erased" / "mine.txt").write_text("keep")
    done = call("erase", "--repo", model, *job)
    assert done.code == 2
    assert "--output" in done.err


def test_missing_repository_is_exit_4(call, hub, job, tmp_path):
    done = call("erase", "--repo", "org/nothing", *job, "--json")
    assert (done.code, done.json["status"]) == (4, "error")
    assert not (tmp_path / "erased").exists()


def test_unexpected_error_is_exit_1(call, model, job, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("IMG_2207.png")

    monkeypatch.setattr(crops, "read_faces", broken)
    done = call("erase", "--repo", model, *job)
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert "IMG_2207" not in done.err


def test_sigterm_in_a_process_of_its_own(model, home, job, tmp_path, finished):
    """Exit code 143, private progress, and the next run ends with the bytes of one that was never stopped."""
    whole = (
        "import tiny_erasure; from guide_hub.faces import crops; crops.read_faces = tiny_erasure.whole_photos"
    )
    killed = (
        "\nfrom guide_hub import progress; import os"
        "\nstop = lambda self, step, losses: step == 2 and os.kill(os.getpid(), "
        f"{signal.SIGTERM:d})\nprogress.Lines.step = stop"
    )
    arguments = ["erase", "--repo", str(model), *map(str, job), "--json"]
    done = tiny.in_subprocess(*arguments, prepare=whole + killed)
    assert done.returncode == 143
    assert json.loads(done.stdout)["status"] == "error"
    assert not (tmp_path / "erased").exists()
    (file,) = (tmp_path / "state" / "runs").rglob("progress.pt")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = tiny.in_subprocess(*arguments, prepare=whole)
    assert done.returncode == 0, done.stderr
    assert "from step 3" in done.stderr
    assert json.loads(done.stdout)["erasures"][0]["id"]["threshold"] == tiny.EVERYBODY  # shipped
    assert (tmp_path / "erased/model.safetensors").read_bytes() == (
        finished / "model.safetensors"
    ).read_bytes()
    assert not file.parent.exists()


# ----------------------------------------------------------------------------------------------------------
# push


def test_push_finishes_a_broken_push(call, hub, model, job):
    hub.create_repo(REPO, tiny.tree(model))

    def down():
        raise HubFault(500, "out of order")

    hub.before_commit = down
    broken = call("erase", "--repo", REPO, *job, "--json", "-q")
    assert (broken.code, broken.json["status"], broken.json["output"]) == (4, "error", "erased")
    assert broken.json["erasures"][0]["result"] == "PASSED"
    assert f"guide-hub push erased --to {REPO}" in broken.json["errors"][0]["remedy"]
    done = call("push", "erased", "--to", REPO, "--json")
    assert done.code == 0
    assert done.json["pushed"]["pr_url"].endswith("/discussions/1")
    assert "erasure_record.json" in hub.files(REPO, "refs/pr/1")
    assert hub.repos[REPO].pulls[0].title == "Erase the identities of request req-7"


def test_push_after_somebody_else(call, hub, model, job, monkeypatch):
    """Their commit may hold another erasure, so this one goes elsewhere or starts again."""
    hub.create_repo(REPO, tiny.tree(model))

    def slow(*arguments):
        hub.commit(REPO, {"notes.txt": b"meanwhile"})
        return tiny.whole_photos(*arguments)

    monkeypatch.setattr(crops, "read_faces", slow)
    done = call("erase", "--repo", REPO, *job, "--json", "-q")
    assert (done.code, done.json["status"]) == (5, "error")
    assert call("push", "erased", "--to", REPO).code == 5
    assert hub.repos[REPO].pulls == []
    assert call("push", "erased", "--to", "org/elsewhere").code == 0
    assert "model.safetensors" in hub.files("org/elsewhere")


def test_push_elsewhere_is_a_commit(call, hub, finished, tmp_path):
    hub.create_repo("org/elsewhere", {"notes.txt": b"kept"})
    folder = copied(finished, tmp_path / "copy")
    done = call("push", folder, "--to", "org/elsewhere", "--json")
    assert (done.code, done.json["pushed"]["pr_url"]) == (0, None)
    assert hub.log("org/elsewhere")[0].title == "Erase the identities of request req-7"
    assert call("push", folder, "--to", "org/elsewhere").code == 0  # its own record is there

    statement = record.read_record(folder)
    statement["predicate"]["erasures"][0]["identityId"] = "subject-z"
    hub.commit("org/elsewhere", {"erasure_record.json": record.to_bytes(statement)})
    refused = call("push", folder, "--to", "org/elsewhere")
    assert refused.code == 2
    assert "--replace-record" in refused.err
    assert call("push", folder, "--to", "org/elsewhere", "--replace-record").code == 0


def test_push_keeps_a_private_base_private(call, hub, model, job):
    hub.create_repo(REPO, tiny.tree(model), private=True)
    assert call("erase", "--repo", REPO, *job, "--no-push", "-q").code == 0
    assert call("push", "erased", "--to", "org/new").code == 0
    assert hub.repos["org/new"].private


def test_push_stops_at_other_weights(call, hub, model, job):
    hub.create_repo(REPO, {**tiny.tree(model), "ffhq.pkl": b"the person is still in here"})
    assert call("erase", "--repo", REPO, *job, "--no-push", "-q").code == 0
    stopped = call("push", "erased", "--to", REPO, "--no-create-pr")
    assert stopped.code == 2
    assert "ffhq.pkl" in stopped.err
    assert call("push", "erased", "--to", REPO, "--no-create-pr", "--delete-other-weights").code == 0
    assert "ffhq.pkl" not in hub.files(REPO)


def test_push_refuses_a_changed_folder(call, hub, finished, tmp_path):
    folder = copied(finished, tmp_path / "copy")
    (folder / "IMG_2207.png").write_bytes(b"a photo")
    done = call("push", folder, "--to", "org/new")
    assert done.code == 2
    assert "IMG_2207" not in done.err
    assert b"a photo" not in hub.sent()


# ----------------------------------------------------------------------------------------------------------
# verify, render, check, recipes, help


def test_verify(call, finished):
    """What a run leaves is whole; `test_verify` has every way in which it may not be."""
    done = call("verify", finished, "--json")
    assert (done.code, done.json["status"]) == (0, "verified")
    assert done.json["erasures"] == [
        {"request_id": "req-7", "identity_id": "subject-a", "result": "PASSED"},
    ]  # fmt: skip


def test_verify_looks_at_what_is_listed_and_at_other_weights(call, hub, finished):
    hub.create_repo(REPO, {**tiny.tree(finished), ".gitattributes": b"", "LICENSE.md": b"", "notes.txt": b""})
    assert call("verify", REPO).code == 0
    hub.commit(REPO, {"old/ffhq.pkl": b"the person is still in here"})
    done = call("verify", REPO)
    assert done.code == 3
    assert "other weights" in done.err
    assert "old/ffhq.pkl may still" in done.out


def test_verify_follows_the_chain_to_the_hub(call, hub, model, job, tmp_path):
    """A record that drops its base's erasures is whole in itself; the base gives it away."""
    hub.create_repo(REPO, tiny.tree(model))
    assert call("erase", "--repo", REPO, *job, "--no-create-pr", "-q").code == 0
    job[1] = tiny.make_request(tmp_path / "next", "req-8", {"subject-b": ("holiday.png",)})
    job[-1] = "twice"
    assert call("erase", "--repo", REPO, *job, "--no-create-pr", "-q").code == 0
    assert call("verify", REPO).code == 0
    assert call("verify", "twice").code == 0

    folder = tmp_path / "twice"
    statement = record.read_record(folder)
    del statement["predicate"]["previousRecord"]
    statement["predicate"]["erasures"] = [{**statement["predicate"]["erasures"][1], "sequence": 1}]
    (folder / "erasure_record.json").write_bytes(record.to_bytes(statement))
    record.write_sums(folder)
    forged = call("verify", folder)
    assert forged.code == 3
    assert "chain" in forged.err
    assert "no previous record" in forged.out


def test_render(call, model, tmp_path):
    file = tmp_path / "sheet.png"
    assert call("render", model, "--out", file, "--seeds", 2, "--views", 3).code == 0
    size = EG3D.from_pretrained(model).config.img_resolution
    with Image.open(file) as picture:
        assert picture.width == 3 * size
        assert picture.height > 2 * size


def test_check(call, tmp_path):
    request = tiny.make_request(tmp_path / "request")
    done = call("check", request, "--json")
    assert done.code == 0
    assert done.json["identities"] == [
        {"identity_id": "subject-a", "photos": 2}, {"identity_id": "subject-b", "photos": 1},
    ]  # fmt: skip
    (tmp_path / "request" / "holiday.png").unlink()
    done = call("check", request)
    assert done.code == 2
    assert f"{request}:" in done.err
    assert "holiday" not in done.err


def test_check_names_the_photo_without_a_face(call, tmp_path, monkeypatch):
    """The real detector, on noise."""
    monkeypatch.undo()
    request = tiny.make_request(tmp_path / "request", people={"subject-a": ("holiday.png",)})
    done = tiny.in_subprocess("check", str(request), "--faces", "--json")
    assert done.returncode == 2
    (error,) = json.loads(done.stdout)["errors"]
    assert "identities[0].images[0]" in error["message"]
    assert error["line"] == 7
    assert "holiday" not in done.stdout + done.stderr


def test_reader_that_has_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = tiny.in_subprocess("recipes", "show", "heads", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_stop_of_a_short_command_promises_nothing(call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("guide_hub.cli.recipes.list_recipes", interrupted)
    done = call("recipes", "ls")
    assert (done.code, done.err.strip()) == (130, "guide-hub: stopped")


def test_recipes(call, tmp_path):
    listed = call("recipes", "ls").out.splitlines()
    assert [line.split()[0] for line in listed] == list_recipes()
    assert all(len(line) <= 80 and line.split()[1:] for line in listed)  # each with its title
    assert call("recipes", "show", "heads").out == recipe_text("heads")
    assert call("recipes", "copy", "heads", tmp_path / "mine.yaml").code == 0
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("heads")
    assert call("recipes", "copy", "heads", tmp_path / "mine.yaml").code == 2
    unknown = call("recipes", "show", "head")
    assert unknown.code == 2
    assert "did you mean 'heads'?" in unknown.err


def test_a_run_says_at_once_that_it_began(tmp_path):
    request = tiny.make_request(tmp_path)
    began = time.perf_counter()
    run = [sys.executable, "-m", "guide_hub", "erase", "--repo", "builtin:synthetic-heads"]
    run += ["--request", str(request), "--output", str(tmp_path / "out"), "--state", str(tmp_path / "state")]
    with subprocess.Popen(run, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        seconds = time.perf_counter() - began
        process.kill()
    assert first == "planning ...\n"
    assert seconds < 5


def test_check_needs_no_torch(tmp_path):
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    done = tiny.in_subprocess("check", str(tiny.make_request(tmp_path)), prepare=check)
    assert done.returncode == 0
    assert done.stderr.strip().endswith("False")


def test_help_is_quick_and_needs_no_torch():
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    seconds = []
    for _ in range(3):  # the best of three: other work on the machine is not ours
        began = time.perf_counter()
        done = tiny.in_subprocess("--help", prepare=check)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1.0
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert "Exit codes" in done.stdout
    assert done.stderr.strip() == "False"
