"""The plan: what is known, checked and printed before any work, without torch where the recipe is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import takedowns
from loopback_hub import JOB_TOKEN, READ_TOKEN, STRANGER_TOKEN, LoopbackHub
from PIL import Image
from takedowns import BASE, ONE, REPO, TWO

from guide_hub import record as records
from guide_hub import timing
from guide_hub.errors import ConflictError, HubError, InputError
from guide_hub.plan import Options, Plan, describe, make_plan


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "IMG_2207.png")
    text = "schema: guide-hub/request/v1\nrequest_id: req-2\nreceived: 2026-01-02\nrequester_verified: true\n"
    text += "identities:\n  - id: subject-b\n    images: [IMG_2207.png]\n"
    (tmp_path / "takedown.yaml").write_text(text)
    return tmp_path / "takedown.yaml"


@pytest.fixture
def plan(request_file: Path, tmp_path: Path):
    """make_plan with a named recipe and folders of this test's own."""

    def plan(repo: str = REPO, **options) -> Plan:
        here = {"recipe": "heads", "output": tmp_path / "erased", "state": tmp_path / "state"}
        return make_plan(repo, request_file, Options(**{**here, **options}))

    return plan


def test_what_a_plan_says(hub: LoopbackHub, plan) -> None:
    base = hub.create_repo(REPO, {**BASE, "network.pkl": b"a pickle"})
    with pytest.raises(InputError, match=r"network\.pkl"):
        plan()
    made = plan(delete_other_weights=True)
    said = describe(made)
    assert said["identities"] == [{"request_id": "req-2", "identity_id": "subject-b", "photos": 1}]
    assert said["steps"] == made.recipe.optim.iterations
    assert (said["push_to"], said["head"], said["create_pr"]) == (REPO, base, True)
    assert said["access"] == "commits and pull requests"
    assert said["licence"] == {"license": "mit"}
    assert (said["other_weights"], said["delete_other_weights"]) == (["network.pkl"], True)
    assert (said["earlier_erasures"], said["previous_record"]) == (0, None)
    assert said["time"] is None
    files = {f["name"]: f["bytes"] for f in said["files"]}
    assert files["model.safetensors"] == len(BASE["model.safetensors"])
    assert files["README.md"] is None
    assert files.keys() == {
        "config.json", "model.safetensors", "README.md", "erasure_record.json", "recipe.yaml", "LICENSE",
        "SHA256SUMS", "assets/retained.png",
    }  # fmt: skip
    assert not made.output.exists()
    assert len(hub.log(REPO)) == 1
    json.dumps(said)


def test_chain_that_is_continued(hub: LoopbackHub, plan) -> None:
    first = takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None)
    hub.create_repo(REPO, first)
    said = describe(plan())
    assert said["earlier_erasures"] == 1
    assert said["previous_record"] == takedowns.sha256(first["erasure_record.json"])


def test_what_is_done_already_is_not_done_again(hub: LoopbackHub, plan) -> None:
    two = takedowns.erased(b"two" * 400, b"x", ("req-2", "subject-b"), uri="local", revision=None)
    hub.create_repo(REPO, BASE)
    hub.pull_request(REPO, two, "Erase the identities of request req-2", "stranger")
    assert not plan().finished  # somebody else's: it could hold anything
    hub.pull_request(REPO, two, "Erase the identities of request req-2")
    waiting = plan()
    assert (waiting.finished, waiting.pr_url) == (True, f"{hub.endpoint}/org/heads/discussions/2")
    hub.merge(REPO, 2)
    done = plan()
    assert (done.finished, done.pr_url) == (True, None)


def test_job_knows_its_pull_request_by_the_record(
    hub: LoopbackHub, plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted publisher's token can't be asked who it is."""
    monkeypatch.setenv("HF_TOKEN", JOB_TOKEN)
    head, person = hub.create_repo("org/eg3d", BASE), ("req-2", "subject-b")
    other = takedowns.erased(b"x" * 400, b"x", person, uri="hf://org/eg3d", revision="0" * 40)
    hub.pull_request("org/eg3d", other, "Erase the identities of request req-2", "org-publisher")
    assert not plan("org/eg3d").finished  # made from another commit
    own = takedowns.erased(b"two" * 400, b"x", person, uri="hf://org/eg3d", revision=head)
    hub.pull_request("org/eg3d", own, "Something else", "org-publisher")
    assert not plan("org/eg3d").finished
    hub.pull_request("org/eg3d", own, "Erase the identities of request req-2", "org-publisher")
    assert plan("org/eg3d").pr_url == f"{hub.endpoint}/org/eg3d/discussions/3"


def test_pull_requests_without_a_good_record_stop_nothing(
    hub: LoopbackHub, plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create_repo(REPO, BASE)
    title, person = "Erase the identities of request req-2", ("req-2", "subject-b")
    hub.pull_request(REPO, {"erasure_record.json": b"{"}, title)
    with monkeypatch.context() as failing:
        honest = takedowns.erasure
        failing.setattr(takedowns, "erasure", lambda r, i: honest(r, i, "FAILED"))
        hub.pull_request(
            REPO, takedowns.erased(b"two" * 400, b"x", person, uri="local", revision=None), title
        )
    assert not plan().finished
    hub.pull_request(REPO, takedowns.erased(b"three" * 400, b"x", person, uri="local", revision=None), title)
    assert plan().pr_url == f"{hub.endpoint}/org/heads/discussions/3"


def test_target_with_the_same_record_after_a_purge(hub: LoopbackHub, plan) -> None:
    """A purge rewrites what a record says of older revisions: it is of the same erasures."""
    files = takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None)
    hub.create_repo(REPO, files)
    amended = records.with_prior_revisions(files["erasure_record.json"], "purged")
    hub.create_repo("org/copy", {**files, "erasure_record.json": amended})
    assert not plan(push_to="org/copy").finished
    other = takedowns.erased(b"two" * 400, b"x", TWO, uri="local", revision=None)
    hub.commit("org/copy", other)
    with pytest.raises(InputError, match="records erasures that this model does not have"):
        plan(push_to="org/copy")


@pytest.mark.parametrize(
    ("target", "token", "access"),
    [
        ("org/new", None, "new repository"),
        (REPO, STRANGER_TOKEN, "pull requests alone"),
        (None, None, None),
    ],
)
def test_access(hub: LoopbackHub, plan, monkeypatch: pytest.MonkeyPatch, target, token, access) -> None:
    hub.create_repo(REPO, BASE)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    made = plan(push_to=target) if target else plan(push=False)
    assert describe(made)["access"] == access


def test_time_is_from_an_earlier_run_or_unknown(hub: LoopbackHub, plan, tmp_path: Path) -> None:
    hub.create_repo(REPO, BASE)
    made = plan()
    with timing.timed(tmp_path / "state", made.timing_key, "cpu", 4):
        pass
    known = json.loads((tmp_path / "state" / "timings.json").read_text())
    known[made.timing_key]["seconds"] = {"cpu": 0.5, "cuda": 0.01}
    (tmp_path / "state" / "timings.json").write_text(json.dumps(known))
    steps = made.steps
    expected = {"device": "cpu", "seconds_per_step": 0.5, "seconds": round(steps / 2)}
    assert describe(plan())["time"] == expected
    assert describe(plan(device="cuda"))["time"] == {
        "device": "cuda", "seconds_per_step": 0.01, "seconds": round(steps / 100),
    }  # fmt: skip
    assert describe(plan(device="mps"))["time"] is None
    assert describe(plan(recipe="guide"))["time"] is None  # another recipe takes another time
    for broken in ("", "[]", '{"x": 1}', '{"x": {"seconds": 1}}'):
        (tmp_path / "state" / "timings.json").write_text(broken)
        assert describe(plan())["time"] is None


def test_run_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), timing.timed(tmp_path, "x", "cpu", 4):
        raise KeyError
    with timing.timed(tmp_path, "x", "cpu", 0):  # resumed: how many steps it took is not known
        pass
    assert timing.recall(tmp_path, "x", "auto") is None


def test_supersede_is_checked_before_the_work(
    hub: LoopbackHub, plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create_repo(REPO, BASE)
    assert describe(plan(push_to="org/new", supersede=True))["supersede"] == REPO
    with pytest.raises(InputError, match="goes to the base itself"):
        plan(supersede=True)
    with pytest.raises(InputError, match="needs a base model on the Hub"):
        plan(push=False, supersede=True)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(HubError, match="read-only"):
        plan(push_to="org/new", supersede=True)


def test_head_that_is_not_what_was_pulled(hub: LoopbackHub, plan) -> None:
    old = hub.create_repo(REPO, BASE)
    hub.commit(REPO, {"notes.txt": b"x"})
    with pytest.raises(InputError, match="another commit than the main branch"):
        plan(revision=old)
    hub.trouble("GET", "/whoami", act=lambda: hub.commit(REPO, {"notes.txt": b"y"}))
    with pytest.raises(ConflictError):
        plan()


def test_busy_hub(hub: LoopbackHub, plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.create_repo(REPO, BASE)
    for path in ("/api/models/org/heads$", "/whoami", "/auth-check", "/discussions"):
        hub.trouble("GET", path, status=503)
    assert not plan().finished


def test_named_recipe_needs_no_torch(hub: LoopbackHub, request_file: Path, tmp_path: Path) -> None:
    hub.create_repo(REPO, BASE)
    arguments = [REPO, str(request_file), str(tmp_path / "erased"), str(tmp_path / "state")]
    code = (
        "import sys\nfrom guide_hub.plan import Options, describe, make_plan\n"
        "repo, request, output, state = sys.argv[1:]\n"
        "describe(make_plan(repo, request, Options(recipe='heads', output=output, state=state)))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
