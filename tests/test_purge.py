"""`guide-hub purge`: the plan, what it removes and keeps, and that a killed one can be run again."""

import hashlib

import pytest
import takedowns
from loopback_hub import READ_TOKEN, LoopbackHub
from takedowns import BASE, ONE, REPO, sha256

from guide_hub import purge as module
from guide_hub import record as records
from guide_hub.audit import audit
from guide_hub.errors import ConflictError, HubError, InputError, RefusedError
from guide_hub.purge import carry_out, make_plan


def purge(repo: str = REPO) -> module.Outcome:
    found = audit(repo)
    return carry_out(make_plan(found), found)


def check_consistent(hub: LoopbackHub, state: str, but: tuple[str, ...] = ()) -> None:
    """Sums, subject, card and record of main agree, as `guide-hub verify` would have it."""
    files = hub.files(REPO)
    lines = [line.split("  ") for line in files["SHA256SUMS"].decode().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sums == {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n in sums}
    assert files.keys() - sums.keys() <= {"SHA256SUMS", "notes.txt", *but}
    record = records.parse_record(files["erasure_record.json"])
    assert record["predicate"]["priorRevisions"] == state
    assert records.check_subject(record, sums) == []
    assert records.card_faults(files["README.md"].decode(), record) == []


def test_plan_is_exact_and_changes_nothing(hub: LoopbackHub, call) -> None:
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/old"] = story.commits[0]
    hub.pull_request(REPO, {"notes.txt": b"a reviewer's"}, "Notes")
    hub.wire.clear()
    plan = make_plan(audit(REPO))
    assert (plan.delete_files, plan.delete_tags, plan.delete_branches, plan.squash) == (
        (),
        ("v1",),
        ("old",),
        ("main",),
    )
    assert {d.sha256 for d in plan.delete_lfs} == {
        sha256(BASE["model.safetensors"]), sha256(story.first["model.safetensors"]),
    }  # fmt: skip
    assert [text.split(":")[0] for text in plan.web] == ["refs/pr/1", "refs/pr/2"]
    assert any("1 open pull request(s)" in text for text in plan.warnings)
    done = call("purge", REPO)
    assert done.code == 3
    assert "nothing was done" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    as_json = call("purge", REPO, "--json")
    assert (as_json.code, as_json.json["status"]) == (3, "planned")
    assert as_json.json["plan"]["delete_tags"] == ["v1"]
    assert {r.method for r in hub.wire} <= {"GET", "HEAD", "POST"}
    assert not hub.requests("POST", "/commit/|super-squash|lfs-files|/tag/|/branch/")
    assert hub.head(REPO) == story.commits[2]


def test_purge_leaves_the_erased_model_and_nothing_older(hub: LoopbackHub, call) -> None:
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/old"] = story.commits[0]
    hub.commit(REPO, {"notes.txt": b"kept"})
    done = call("purge", REPO, "--yes", "--json")
    assert (done.code, done.json["status"]) == (0, "purged")
    assert done.json["record"] == {"prior_revisions": "purged", "commit": hub.head(REPO)}
    assert done.json["audit"]["status"] == "clean"
    assert hub.repos[REPO].refs.keys() == {"refs/heads/main", "refs/pr/1"}
    served = hub.files(REPO)
    assert served["model.safetensors"] == story.second["model.safetensors"]
    assert served["notes.txt"] == b"kept"
    check_consistent(hub, "purged")
    assert len(hub.log(REPO)) == 2  # the squashed one and the record's
    for commit in story.commits:
        assert hub.repos[REPO].at(commit) is None or "model.safetensors" not in hub.files(REPO, commit)
    stored = {e["filename"] for e in hub.repos[REPO].stored.values()}
    assert stored == {"model.safetensors", "assets/retained.png"}
    assert call("audit", REPO).code == 0
    again = call("purge", REPO, "--yes", "--json")
    assert (again.code, again.json["status"]) == (0, "nothing_to_do")


def test_next_erasure_continues_the_amended_record(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    purge()
    served = hub.files(REPO)
    third = takedowns.erased(
        b"three" * 400, served["model.safetensors"], ("req-3", "subject-c"), revision=hub.head(REPO),
        previous=served["erasure_record.json"], card=served["README.md"].decode(),
    )  # fmt: skip
    assert (
        records.check_link(records.parse_record(third["erasure_record.json"]), served["erasure_record.json"])
        == []
    )
    hub.commit(REPO, third)
    result = audit(REPO)
    assert [w.shows for w in result.exposed] == [(("req-3", "subject-c"),)]
    purge()
    assert audit(REPO).status == "clean"


@pytest.mark.parametrize("lfs", [True, False])
def test_other_weights_on_main_go_and_the_rest_stays(hub: LoopbackHub, lfs: bool) -> None:
    takedowns.tell(hub)
    name = "network.pkl" if lfs else "tiny.onnx"
    hub.commit(REPO, {name: b"who knows"})
    plan = make_plan(audit(REPO))
    assert plan.delete_files == (name,)
    outcome = purge()
    assert (outcome.after.status, outcome.prior_revisions) == ("clean", "purged")
    assert name not in hub.files(REPO)
    check_consistent(hub, "purged")


def test_what_only_the_web_can_remove_is_left_and_said(hub: LoopbackHub, call) -> None:
    """A file of a pull request that is not in LFS: nothing but its page can take it away."""
    takedowns.tell(hub)
    hub.pull_request(REPO, {"tiny.onnx": b"who knows"}, "Add a file", "stranger")
    done = call("purge", REPO, "--yes", "--json")
    assert (done.code, done.json["status"]) == (3, "remains")
    assert done.json["record"]["prior_revisions"] == "reachable"
    (left,) = done.json["audit"]["exposed"]
    assert (left["files"], left["places"][0]["removal"]) == (["tiny.onnx"], "web")
    check_consistent(hub, "reachable")
    again = call("purge", REPO, "--yes")
    assert again.code == 3
    assert "refs/pr/2" in again.out
    hub.delete_pr_ref(REPO, 2)
    done = call("purge", REPO, "--yes", "--json")  # only the record is left to do
    assert (done.code, done.json["record"]["prior_revisions"]) == (0, "purged")
    check_consistent(hub, "purged")


STEPS = [
    ("DELETE", "/tag/v1"),
    ("DELETE", "/branch/old"),
    ("POST", "/commit/main"),  # deletes the other weights
    ("POST", "/super-squash/main"),
    ("POST", "/lfs-files/batch"),
]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("done", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("step", range(len(STEPS) + 1))
def test_killed_purge_goes_on(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, step: int, done: bool
) -> None:
    """Before or after any step: the record never says more than is so, the erased model is always there."""
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/old"] = story.commits[0]
    hub.commit(REPO, {"network.pkl": b"who knows"})
    names = [
        "delete_tag",
        "delete_branch",
        "create_commit",
        "super_squash_history",
        "permanently_delete_lfs_files",
    ]
    patched = (module, "_record") if step == len(names) else (module.HfApi, names[step])
    real = getattr(*patched)

    def killed(*arguments, **options):
        if done:
            real(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*patched, killed)
        with pytest.raises(Killed):
            purge()
    assert hub.files(REPO)["model.safetensors"] == story.second["model.safetensors"]
    check_consistent(hub, "purged" if done and step == len(names) else "reachable", but=("network.pkl",))
    outcome = purge()
    assert (outcome.after.status, outcome.prior_revisions) == ("clean", "purged")
    check_consistent(hub, "purged")
    assert hub.files(REPO)["model.safetensors"] == story.second["model.safetensors"]


def test_somebody_pushes_meanwhile(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    found = audit(REPO)
    plan = make_plan(found)
    tip = hub.commit(REPO, {"notes.txt": b"meanwhile"})
    with pytest.raises(ConflictError) as caught:
        carry_out(plan, found)
    assert caught.value.exit_code == 5
    assert hub.head(REPO) == tip
    assert "refs/tags/v1" in hub.repos[REPO].refs
    found = audit(REPO)
    hub.trouble("DELETE", "/tag/", act=lambda: hub.commit(REPO, {"notes.txt": b"again"}))
    with pytest.raises(ConflictError):
        carry_out(make_plan(found), found)
    assert len(hub.log(REPO)) > 1  # not squashed over somebody's commit
    assert purge().after.status == "clean"
    assert hub.files(REPO)["notes.txt"] == b"again"


def test_branch_whose_tip_is_fine_is_squashed(hub: LoopbackHub, call) -> None:
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/dev"] = story.commits[2]
    hub.commit(REPO, {"notes.txt": b"work of a week"}, ref="refs/heads/dev")
    plan = make_plan(audit(REPO))
    assert (plan.squash, plan.delete_branches) == (("dev", "main"), ())
    done = call("purge", REPO, "--yes", "--json")
    assert (done.code, done.json["status"]) == (0, "purged")
    assert len(hub.log(REPO, "dev")) == 1
    served = hub.files(REPO, "dev")
    assert served["notes.txt"] == b"work of a week"
    assert served["model.safetensors"] == story.second["model.safetensors"]


@pytest.mark.parametrize("early", [True, False], ids=["before", "during"])
@pytest.mark.parametrize("ref", ["refs/heads/dev", "refs/heads/old", "refs/tags/v1"])
def test_branch_or_tag_moves_meanwhile(hub: LoopbackHub, ref: str, early: bool) -> None:
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/dev"] = story.commits[2]
    hub.repos[REPO].refs["refs/heads/old"] = story.commits[0]
    hub.tag(REPO, "a", story.commits[0])  # goes first
    found = audit(REPO)

    def move() -> None:
        hub.commit(REPO, {"notes.txt": b"meanwhile"}, ref=ref)

    if early:
        move()
    else:
        hub.trouble("DELETE", "/tag/a", act=move)
    with pytest.raises(ConflictError):
        carry_out(make_plan(found), found)
    assert hub.files(REPO, ref)["notes.txt"] == b"meanwhile"
    assert ("refs/tags/a" in hub.repos[REPO].refs) is early  # at first nothing is done at all
    assert purge().after.status == "clean"


# -- audits that did not see everything --------------------------------------------------------------------


def test_what_was_not_seen_is_not_deleted(hub: LoopbackHub, call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch beyond the bound: its weights look as if the LFS storage alone had them."""
    story = takedowns.tell(hub)
    unseen = b"somebody's good work" * 40
    hub.repos[REPO].refs["refs/heads/work"] = story.commits[2]
    hub.commit(REPO, {"model.safetensors": unseen}, ref="refs/heads/work")
    hub.commit(REPO, {"network.pkl": b"who knows"})
    monkeypatch.setattr("guide_hub.audit.MAX_REFS", 1)
    plan = make_plan(audit(REPO))
    assert {d.sha256 for d in plan.delete_lfs} == {
        sha256(BASE["model.safetensors"]), sha256(story.first["model.safetensors"]),
    }  # fmt: skip
    assert (plan.delete_files, plan.squash) == (("network.pkl",), ("main",))
    assert "2 file(s) stay in the LFS storage" in plan.warnings[0]
    done = call("purge", REPO, "--yes", "--json")
    assert (done.code, done.json["status"]) == (3, "remains")
    assert hub.files(REPO, "work")["model.safetensors"] == unseen
    assert {sha256(unseen), sha256(b"who knows")} <= hub.repos[REPO].stored.keys()
    tip = hub.head(REPO)
    again = call("purge", REPO, "--yes")
    assert again.code == 3
    assert "stay in the LFS storage" in " ".join(again.out.split())
    assert call("purge", REPO, "--yes", "--json").json["status"] == "nothing_to_do"
    assert hub.head(REPO) == tip


def test_main_that_is_too_long_is_squashed_once(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo(REPO, takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None))
    for n in range(6):
        hub.commit(REPO, {"notes.txt": b"%d" % n})
    hub.tag(REPO, "v2")
    with monkeypatch.context() as bound:
        bound.setattr("guide_hub.audit.MAX_REFS", 1)
        assert not make_plan(audit(REPO)).removes  # to squash would not help
    monkeypatch.setattr("guide_hub.audit.MAX_COMMITS", 3)
    assert make_plan(audit(REPO)).squash == ("main",)
    purge()
    assert len(hub.log(REPO)) <= 2
    assert not make_plan(audit(REPO)).removes


def test_refusals(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo(REPO, BASE)
    with pytest.raises(InputError, match="no erasure record"):
        make_plan(audit(REPO))
    hub.commit(REPO, takedowns.erased(b"one" * 400, BASE["model.safetensors"], ONE))
    hub.commit(REPO, {"model.safetensors": BASE["model.safetensors"]})  # a revert of the weights alone
    with pytest.raises(RefusedError, match="not the one that its record is about"):
        make_plan(audit(REPO))
    tip = hub.head(REPO)
    hub.commit(REPO, {"model.safetensors": b"one" * 400})
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    found = audit(REPO)
    with pytest.raises(HubError, match="read-only"):
        carry_out(make_plan(found), found)
    assert hub.log(REPO)[1].oid == tip


def test_card_that_is_not_ours_can_not_record_the_outcome(hub: LoopbackHub, call) -> None:
    takedowns.tell(hub)
    hub.commit(REPO, {"README.md": b"---\nlicense: mit\n---\n# my own words\n"})
    assert "card" in (make_plan(audit(REPO)).unrecorded or "")
    done = call("purge", REPO, "--yes", "--json")
    assert done.code == 3  # the card is a false claim, the weights are gone
    assert done.json["audit"]["exposed"] == []
    assert done.json["record"]["commit"] is None
    assert hub.files(REPO)["README.md"].endswith(b"# my own words\n")


def test_files_of_an_unknown_kind_are_named(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopback_hub.LFS_SUFFIXES", (".safetensors", ".png", ".blob"))
    takedowns.tell(hub)
    hub.commit(REPO, {"network.blob": b"who knows", "old.tar": b"an archive"})
    plan = make_plan(audit(REPO))
    assert plan.delete_files == ("network.blob", "old.tar")
    assert "taken for weights by size alone, check them: network.blob" in plan.warnings


def test_doi_is_mentioned(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    hub.repos[REPO].tags.append("doi:10.57967/hf/0001")
    assert any("DOI" in text for text in make_plan(audit(REPO)).warnings)


def test_busy_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    takedowns.tell(hub)
    for method, path in [*STEPS, ("GET", "/lfs-files"), ("GET", "/refs")]:
        if "commit" not in path:
            hub.trouble(method, path, status=503)
    hub.trouble("DELETE", "/tag/v1", lost=True)  # done, and gone when it is asked again
    assert purge().after.status == "clean"
