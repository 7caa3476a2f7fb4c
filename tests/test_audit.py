"""`guide-hub audit`: what a repository still serves of erased people, told apart by hashes alone."""

import json

import pytest
import takedowns
from loopback_hub import READ_TOKEN, STRANGER_TOKEN, LoopbackHub
from takedowns import BASE, ONE, REPO, TWO, sha256

from guide_hub import audit as module
from guide_hub import record as records
from guide_hub.audit import Weights, audit
from guide_hub.errors import HubError, InputError

OLD = sha256(BASE["model.safetensors"])


def found(result: module.Audit, sha: str) -> Weights:
    (weights,) = [w for w in result.exposed if w.sha256 == sha]
    return weights


def places(weights: Weights) -> dict[str, str]:
    return {place.ref or place.kind: place.removal for place in weights.places}


def test_everything_that_still_shows_somebody(hub: LoopbackHub) -> None:
    story = takedowns.tell(hub)
    hub.repos[REPO].refs["refs/heads/old"] = story.commits[1]
    hub.wire.clear()
    result = audit(REPO)
    assert (result.status, result.head, result.erasures) == ("exposed", story.commits[2], [ONE, TWO])
    assert len(result.exposed) == 2

    base = found(result, OLD)
    assert (base.files, base.known, base.shows, base.stored) == (
        ("model.safetensors",), True, (ONE, TWO), True,
    )  # fmt: skip
    assert places(base) == {
        "refs/heads/main": "squash",
        "refs/heads/old": "squash",  # its tip does not have it
        "refs/tags/v1": "delete_tag",
        "refs/pr/1": "web",
    }
    assert all(place.commits == (story.commits[0],) for place in base.places)
    assert [p.at_tip for p in base.places if p.ref == "refs/tags/v1"] == [("model.safetensors",)]

    first = found(result, sha256(story.first["model.safetensors"]))
    assert first.shows == (TWO,)  # the earlier person is gone from it, the later is not
    assert places(first) == {
        "refs/heads/main": "squash",
        "refs/heads/old": "delete_branch",
        "refs/pr/1": "web",
    }
    assert (result.claims, result.claimed, result.pointers, result.unchecked) == ([], [], [], [])
    asked = b"\n".join(request.raw for request in hub.wire)
    assert not hub.requests("GET", "/_lfs/")  # no weights are downloaded
    assert b"resolve" in asked
    assert not hub.requests("POST", "/commit/|/branch/|/tag/|/super-squash/|/batch")


def test_exit_code_json_and_width(hub: LoopbackHub, call) -> None:
    takedowns.tell(hub)
    done = call("audit", REPO)
    assert done.code == 3
    assert max(map(len, done.out.splitlines())) <= 80
    for text in ("subject-b (req-2)", "tags/v1: its tip", "delete the tag", "guide-hub purge org/heads"):
        assert text in done.out
    as_json = call("audit", REPO, "--json")
    assert as_json.code == 3
    assert as_json.json.keys() == {
        "status", "repo", "head", "private", "doi", "record_sha256", "prior_revisions", "erasures", "exposed",
        "claims", "pointers", "claimed", "derived", "base", "unchecked", "complete", "checked",
    }  # fmt: skip
    entry = as_json.json["exposed"][0]
    assert entry.keys() == {"files", "sha256", "size", "known", "shows", "stored", "places"}
    assert entry["places"][0].keys() == {"kind", "ref", "at_tip", "commits", "removal"}
    assert {"request_id": "req-2", "identity_id": "subject-b"} in entry["shows"]


def test_clean_is_exit_0(hub: LoopbackHub, call) -> None:
    hub.create_repo(REPO, takedowns.erased(b"one" * 400, b"elsewhere", ONE, uri="local", revision=None))
    done = call("audit", REPO)
    assert (done.code, done.err) == (0, "")
    assert "clean, as far as this can see" in done.out
    assert call("audit", REPO, "--json").json["status"] == "clean"


@pytest.mark.parametrize("name", ["network.pkl", "ema/model.safetensors", "model.onnx", "old.pt"])
def test_other_weights_are_unknown_and_so_not_clean(hub: LoopbackHub, name: str) -> None:
    hub.create_repo(REPO, takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None))
    hub.commit(REPO, {name: b"who knows"})
    result = audit(REPO)
    (weights,) = result.exposed
    assert (weights.files, weights.known, weights.shows) == ((name,), False, (ONE,))
    assert places(weights) == {"refs/heads/main": "delete_file"}
    assert result.status == "exposed"


def test_weights_that_are_gone_from_every_ref_are_still_stored(hub: LoopbackHub) -> None:
    from huggingface_hub import HfApi

    takedowns.tell(hub)
    hub.delete_pr_ref(REPO, 1)
    HfApi().delete_tag(REPO, tag="v1")
    HfApi().super_squash_history(REPO)
    result = audit(REPO)
    assert {w.sha256 for w in result.exposed} >= {OLD}
    assert all(places(w) == {"storage": "delete_lfs_file"} for w in result.exposed)
    assert result.status == "exposed"


def test_commit_that_no_ref_leads_to(hub: LoopbackHub) -> None:
    """The record names its base by commit, and the Hub may have that for long after a squash."""
    from huggingface_hub import HfApi

    story = takedowns.tell(hub)
    hub.keeps_dangling = True
    hub.delete_pr_ref(REPO, 1)
    HfApi().delete_tag(REPO, tag="v1")
    HfApi().super_squash_history(REPO)
    first = found(audit(REPO), sha256(story.first["model.safetensors"]))
    assert places(first) == {"commit": "delete_lfs_file"}
    assert found(audit(REPO, also=story.commits), OLD).places[0].commits == (story.commits[0],)


def test_without_a_record_nothing_counts_as_erased(hub: LoopbackHub, call) -> None:
    hub.create_repo(REPO, BASE)
    result = audit(REPO)
    assert (result.status, result.record_sha256, result.erasures) == ("exposed", None, [])
    assert places(found(result, OLD)) == {"refs/heads/main": "erase"}
    done = call("audit", REPO)
    assert done.code == 3
    assert "no erasure record on main" in done.out
    assert "purge" not in done.out


def test_nothing_to_audit(hub: LoopbackHub) -> None:
    hub.create_repo(REPO, {"notes.txt": b"x"})
    with pytest.raises(InputError, match="neither weights nor an erasure record"):
        audit(REPO)
    with pytest.raises(HubError):
        audit("org/nothing")


# -- whose word counts -------------------------------------------------------------------------------------


def test_pull_request_can_not_vouch_for_what_main_serves(hub: LoopbackHub) -> None:
    """Anybody can open one, with a record that calls the base weights erased."""
    story = takedowns.tell(hub)
    lie = takedowns.erased(BASE["model.safetensors"], b"made up", ONE, TWO, uri="local", revision=None)
    hub.pull_request(REPO, lie, "Trust me", "stranger")
    result = audit(REPO)
    assert found(result, OLD).shows == (ONE, TWO)
    assert "refs/pr/2" in places(found(result, OLD))
    assert result.claimed == []
    assert result.head == story.commits[2]


def test_pull_request_can_not_vouch_for_what_another_serves(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    weights = b"everybody, once more" * 40
    hub.pull_request(REPO, {"model.safetensors": weights}, "Better weights", "stranger")
    lie = takedowns.erased(weights, b"made up", ONE, TWO, uri="local", revision=None)
    hub.pull_request(REPO, lie, "Trust me", "stranger")
    result = audit(REPO)
    assert result.claimed == []
    assert places(found(result, sha256(weights))) == {"refs/pr/2": "web", "refs/pr/3": "web"}


def test_open_request_of_the_next_erasure_is_told_apart(hub: LoopbackHub) -> None:
    first = takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None)
    base = hub.create_repo(REPO, first)
    second = takedowns.erased(
        b"two" * 400, first["model.safetensors"], TWO,
        revision=base, previous=first["erasure_record.json"],
    )  # fmt: skip
    hub.pull_request(REPO, second, "Erase the identities of request req-2")
    result = audit(REPO)
    assert result.status == "clean"
    (waiting,) = result.claimed
    assert waiting.sha256 == sha256(second["model.safetensors"])
    hub.merge(REPO, 1)
    assert found(audit(REPO), sha256(first["model.safetensors"])).shows == (TWO,)


def test_failed_erasure_does_not_count(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = takedowns.erasure
    monkeypatch.setattr(
        takedowns, "erasure", lambda r, i: honest(r, i, "FAILED" if i == TWO[1] else "PASSED")
    )
    files = takedowns.erased(b"one" * 400, b"x", ONE, TWO, uri="local", revision=None)
    hub.create_repo(REPO, files)
    assert found(audit(REPO), sha256(files["model.safetensors"])).shows == (TWO,)


def test_amended_record_is_the_same_link_of_the_chain(hub: LoopbackHub) -> None:
    """A purge rewrites what a record says of older revisions; its successor names either form."""
    first = takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None)
    base = hub.create_repo(REPO, first)
    amended = records.with_prior_revisions(first["erasure_record.json"], "purged")
    second = takedowns.erased(b"two" * 400, first["model.safetensors"], TWO, revision=base, previous=amended)
    hub.commit(REPO, second)
    assert found(audit(REPO), sha256(first["model.safetensors"])).shows == (TWO,)


# -- cards -------------------------------------------------------------------------------------------------


def test_card_that_claims_what_the_record_does_not(hub: LoopbackHub, call) -> None:
    files = takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None)
    hub.create_repo(REPO, files)
    card = files["README.md"].replace(b"subject-a", b"subject-z")
    tip = hub.commit(REPO, {"README.md": card})
    result = audit(REPO)
    (claim,) = result.claims
    assert (claim.ref, claim.commit) == ("refs/heads/main", tip)
    assert "Erasures" in claim.message
    done = call("audit", REPO)
    assert done.code == 3
    assert "Erasures" in done.out
    hub.commit(REPO, {"README.md": b"# my own words\n"})
    assert "not the one that guide-hub wrote" in audit(REPO).claims[0].message
    hub.commit(REPO, {"README.md": files["README.md"], "erasure_record.json": b"{}"})
    result = audit(REPO)
    assert "is not an erasure record" in result.claims[0].message
    assert result.record_sha256 is None


def test_card_that_claims_an_erasure_without_a_record(hub: LoopbackHub) -> None:
    hub.create_repo(REPO, {**BASE, "README.md": b"---\nlicense: mit\ntags: [guide-hub]\n---\n# Erased!\n"})
    assert [c.message for c in audit(REPO).claims] == [
        "the card is tagged as guide-hub's, and there is no record"
    ]


def test_record_that_claims_a_purge(hub: LoopbackHub) -> None:
    story = takedowns.tell(hub)
    record = records.with_prior_revisions(story.second["erasure_record.json"], "purged")
    card = records.rerender_card(story.second["README.md"].decode(), records.parse_record(record))
    hub.commit(REPO, {"erasure_record.json": record, "README.md": card.encode()})
    assert ["older revisions were removed, and some are not" in c.message for c in audit(REPO).claims] == [
        True
    ]


# -- around the repository ---------------------------------------------------------------------------------


def test_derived_models_are_listed_and_their_records_compared(hub: LoopbackHub, call) -> None:
    takedowns.tell(hub)
    front = b"---\nbase_model: org/heads\n---\n"
    hub.create_repo("other/plain", {"README.md": front})
    hub.create_repo("other/listed", {"README.md": b"---\nbase_model: [org/x, org/heads]\n---\n"})
    hub.create_repo("other/gated", {"README.md": front, "erasure_record.json": b"{}"}, gated=True)
    both = takedowns.erased(b"both", b"x", ONE, TWO, uri="local", revision=None)
    hub.create_repo("other/erased", {**both, "README.md": front})
    hub.create_repo("other/unrelated", {"README.md": b"# x\n"})
    result = audit(REPO)
    assert {(d.repo, d.has_record, d.missing) for d in result.derived} == {
        ("other/plain", False, (ONE, TWO)),
        ("other/listed", False, (ONE, TWO)),
        ("other/gated", None, (ONE, TWO)),
        ("other/erased", True, ()),
    }
    out = call("audit", REPO).out
    assert "derived: other/erased: its record names the same erasures" in out
    assert "derived: other/plain: no record" in out


def test_base_in_another_repository_is_named(hub: LoopbackHub) -> None:
    base = hub.create_repo("org/base", BASE)
    files = takedowns.erased(b"one" * 400, BASE["model.safetensors"], ONE, uri="hf://org/base", revision=base)
    hub.create_repo(REPO, files)
    result = audit(REPO)
    assert (result.status, result.base) == ("clean", {"repo": "org/base", "revision": base})
    del hub.repos["org/base"]
    assert audit(REPO).base is None


@pytest.mark.parametrize("token", [READ_TOKEN, STRANGER_TOKEN, ""])
def test_anybody_can_audit_all_but_the_storage(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    takedowns.tell(hub)
    monkeypatch.setenv("HF_TOKEN", token)
    result = audit(REPO)
    assert [w.stored for w in result.exposed] == [None, None]
    assert result.unchecked == ["the LFS storage, whose list takes a token with write access"]


def test_clean_takes_a_look_at_everything(hub: LoopbackHub, call, monkeypatch: pytest.MonkeyPatch) -> None:
    files = takedowns.erased(b"one" * 400, b"elsewhere", ONE, uri="local", revision=None)
    hub.create_repo(REPO, files)
    hub.pull_request(REPO, {"erasure_record.json": b"{}"}, "Nonsense", "stranger")
    assert audit(REPO).status == "clean"  # anybody can open one
    with monkeypatch.context() as third_party:
        third_party.setenv("HF_TOKEN", "")
        done = call("audit", REPO)
        assert done.code == 3
        assert "nothing found, but not everything was looked at" in done.out
        said = call("audit", REPO, "--json").json
        assert (said["status"], said["exposed"], said["complete"]) == ("incomplete", [], False)
        assert said["unchecked"] == ["the LFS storage, whose list takes a token with write access"]
    with monkeypatch.context() as partial:
        partial.setattr(hub.repos[REPO], "stored", {})
        assert audit(REPO).status == "incomplete"
    hub.commit(REPO, {"erasure_record.json": b"{}"})
    hub.commit(REPO, files)
    result = audit(REPO)
    assert (result.status, result.unchecked) == ("incomplete", ["1 record(s) in the history that are none"])


def test_storage_whose_list_is_not_complete_is_not_believed(hub: LoopbackHub) -> None:
    """Else everything that it leaves out would pass as deleted."""
    takedowns.tell(hub)
    hub.repos[REPO].stored.clear()
    result = audit(REPO)
    assert len(result.exposed) == 2
    assert result.pointers == []
    assert result.unchecked == ["the LFS storage, whose list is not complete"]


# -- large and busy ----------------------------------------------------------------------------------------


def test_listings_of_many_pages(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    hub.page = 2
    result = audit(REPO)
    assert (len(result.exposed), result.refs, result.commits) == (2, 3, 4)


def test_bounds_are_told_and_are_not_clean(hub: LoopbackHub, call, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create_repo(REPO, takedowns.erased(b"one" * 400, b"x", ONE, uri="local", revision=None))
    for n in range(6):
        hub.commit(REPO, {"notes.txt": b"%d" % n})
    monkeypatch.setattr(module, "MAX_COMMITS", 3)
    hub.wire.clear()
    result = audit(REPO)
    assert (result.status, result.commits, result.unchecked) == ("incomplete", 3, ["4 of 7 commits"])
    assert len(hub.requests("GET", "/tree/")) == 3
    assert call("audit", REPO).code == 3
    monkeypatch.setattr(module, "MAX_REFS", 1)
    hub.tag(REPO, "v1")
    assert audit(REPO).unchecked[0] == "1 of 2 refs"


@pytest.mark.parametrize("path", ["/commits/refs%2Fpr%2F2", "/tree/", "/resolve/"])
def test_ref_that_goes_away_meanwhile(hub: LoopbackHub, path: str) -> None:
    takedowns.tell(hub)
    hub.pull_request(REPO, {"erasure_record.json": b"{}"}, "Notes")
    hub.trouble("GET" if path != "/resolve/" else "HEAD", path, act=lambda: hub.delete_pr_ref(REPO, 2))
    result = audit(REPO)
    assert len(result.exposed) == 2
    assert result.complete == (path == "/resolve/")
    if path != "/resolve/":
        assert "went away meanwhile" in result.unchecked[0]


def test_busy_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    takedowns.tell(hub)
    for path in ("/api/models/org/heads$", "/refs", "/commits/", "/tree/", "/lfs-files", "/api/models\\?"):
        hub.trouble("GET", path, status=429, headers={"Retry-After": "1"})
    assert len(audit(REPO).exposed) == 2
    hub.trouble("GET", "/tree/", status=503, times=99)
    with pytest.raises(HubError, match="503"):
        audit(REPO)


def test_json_is_json(hub: LoopbackHub) -> None:
    takedowns.tell(hub)
    assert json.loads(json.dumps(audit(REPO).to_dict()))["checked"] == {"refs": 3, "commits": 4}
