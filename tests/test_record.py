"""The record: its golden bytes, its schema, its chain, the commitments and the sums."""

import copy
import datetime
import hashlib
import hmac
import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from guide_hub import record as rec
from guide_hub.errors import InputError
from guide_hub.record.record import schema

GOLDEN = Path(__file__).parent / "golden" / "erasure_record.v1.json"
KEY = bytes(range(32))
PHOTO = hashlib.sha256(b"a photo").hexdigest()


def metrics(**changes):
    given = {
        "before": 0.71,
        "after": 0.02,
        "now": 0.03,
        "threshold": 0.3,
        "others": rec.Held(0.65, 0.21, 0.3),
        "id_guide": 0.018,
        "verified_after": 0.0,
        "verified_others_after": 0.05,
        "retained": rec.Retained(100, 0.98, 0.081234567),
    }
    return rec.Metrics(**(given | changes))


def erasure(identity="subject-a", request="2026-0042", **changes):
    given = {
        "request_id": request,
        "identity_id": identity,
        "commitment": rec.commit(KEY, request, identity, [PHOTO]),
        "image_count": 2,
        "regime": "gdpr",
        "completed_on": datetime.date(2026, 8, 20),
        "metrics": metrics(),
        "result": "PASSED",
    }
    return rec.Erasure(**(given | changes))


def build(**changes):
    given = {
        "subject": {"model.safetensors": "1" * 64, "config.json": "2" * 64},
        "base": rec.Base("hf://org/eg3d", "3" * 64, "4" * 40),
        "recipe_digest": "5" * 64,
        "recipe_name": "guide",
        "erasures": [erasure(), erasure("subject-b", metrics=rec.Metrics(0.6, 0.1, 0.3, 0.1))],
        "seed": 0,
        "tool_version": "0.1.0",
        "environment": {"python": "3.11.9", "torch": "2.14.1+cpu", "device": "cpu"},
        "retained": rec.Retained(100, 0.97, 0.09),
    }
    return rec.build_record(**(given | changes))


def chained():
    """A record that continues `build`'s."""
    return build(
        base=rec.Base("hf://org/eg3d", "1" * 64, "6" * 40),
        subject={"model.safetensors": "7" * 64, "config.json": "2" * 64},
        erasures=[erasure("subject-c", "2026-0043", regime="ccpa")],
        previous=rec.to_bytes(build()),
    )


def many():
    """A record with all that is said of many people, one after another."""
    return build(
        teacher="pulled",
        previous=rec.to_bytes(build()),
        erasures=[erasure(f"subject-{k}", "2026-0043") for k in range(12)],
        reemergence=rec.Reemergence(13, 0.0432101, 0.25, True, 0.01),
        collateral=rec.Collateral(
            14,
            1e-3,
            1 - 0.999**14,
            100,
            13,
            rec.Share(0.0, 0.0, 0.036995),
            rec.Share(0.02, 0.005502, 0.070012),
            rec.AtRate(0.01 / 14, 0.3123, 0.0, 0.97, 0.090909),
        ),
    )


def purged():
    return rec.parse_record(rec.with_prior_revisions(rec.to_bytes(chained()), "purged"))


@pytest.mark.parametrize(
    ("name", "make"),
    [("", build), (".chained", chained), (".purged", purged), (".many", many)],
    ids=["one", "two", "purged", "many"],
)
def test_golden_bytes(name, make):
    """Files of version 1 stay readable for ever, and building them again gives the same bytes."""
    golden = GOLDEN.with_name(f"erasure_record.v1{name}.json")
    assert rec.to_bytes(make()) == golden.read_bytes()
    assert rec.read_record(golden) == make()
    jsonschema.validate(json.loads(golden.read_bytes()), schema())


def test_golden_chain():
    one, two, gone = (GOLDEN.with_name(f"erasure_record.v1{n}.json") for n in ("", ".chained", ".purged"))
    for newer in (two, gone):
        assert rec.check_link(rec.read_record(newer), one.read_bytes()) == []
    commitment = rec.read_record(one)["predicate"]["erasures"][0]["commitment"]
    assert rec.matches(commitment, KEY, "2026-0042", "subject-a", [PHOTO])


def test_a_purge_amends_the_record_and_is_no_link():
    data = rec.to_bytes(chained())
    amended = rec.with_prior_revisions(data, "purged")
    before, after = rec.parse_record(data), rec.parse_record(amended)
    assert after["predicate"].pop("priorRevisions") == "purged"
    assert before["predicate"].pop("priorRevisions") == "reachable"
    assert after == before  # the link to the older record included
    assert rec.with_prior_revisions(amended, "reachable") == data
    assert rec.sha256(amended) in rec.amended_digests(data)
    assert rec.amended_digests(amended) == rec.amended_digests(data)
    assert rec.sha256(rec.to_bytes(build())) not in rec.amended_digests(data)
    third = build(previous=amended, base=rec.Base("local", "7" * 64), erasures=[erasure("subject-d")])
    assert rec.check_link(third, amended) == []
    assert rec.check_link(third, data) != []  # the next one continues what lies in the repository
    with pytest.raises(InputError):
        rec.with_prior_revisions(b"{}", "purged")
    with pytest.raises(InputError):
        rec.parse_record(rec.with_prior_revisions(data, "gone"))


def test_it_is_an_intoto_statement():
    record = build()
    assert record["_type"] == "https://in-toto.io/Statement/v1"
    assert record["predicateType"] == "urn:guide-hub:erasure-record:v1"
    assert [s["name"] for s in record["subject"]] == ["config.json", "model.safetensors"]
    assert [e["sequence"] for e in record["predicate"]["erasures"]] == [1, 2]
    assert "idOthers" not in record["predicate"]["erasures"][1]["metrics"]
    jsonschema.Draft202012Validator.check_schema(schema())


def test_order_of_keys_changes_no_byte():
    record = build()
    turned = json.loads(json.dumps(record, sort_keys=True))
    assert rec.to_bytes(turned) == rec.to_bytes(record)


def test_optional_fields():
    day = datetime.date(2026, 8, 3)
    (entry,) = build(erasures=[erasure(ground="art-17-1-b", received_on=day)])["predicate"]["erasures"]
    assert (entry["ground"], entry["receivedOn"]) == ("art-17-1-b", "2026-08-03")
    local = build(base=rec.Base("local", "3" * 64))["predicate"]["base"]
    assert local == {"uri": "local", "digest": {"sha256": "3" * 64}}
    assert build(base=rec.Base("builtin:synthetic-heads", "3" * 64))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_value_that_is_not_finite(value):
    for bad in (metrics(after=value), metrics(retained=rec.Retained(1, 1.0, value)), metrics(now=value)):
        with pytest.raises(ValueError, match="not finite"):
            build(erasures=[erasure(metrics=bad)])
    record = build()
    record["predicate"]["retained"]["lpipsMean"] = value
    with pytest.raises(ValueError, match="JSON compliant"):
        rec.to_bytes(record)


@pytest.mark.parametrize(
    "changes",
    [
        {"base": rec.Base("/home/jane/eg3d", "3" * 64)},
        {"base": rec.Base("hf://org/eg3d", "3" * 64)},
        {"base": rec.Base("hf://org/eg3d", "3" * 64, "main")},
        {"environment": {"python": "3.11", "torch": "2.4", "device": "cpu", "hostname": "jane-pc"}},
        {"subject": {"photos/jane.png": "1" * 64}},
        {"subject": {}},
        {"erasures": []},
        {"erasures": [erasure(commitment=PHOTO)]},
        {"erasures": [erasure(request_id="<script>")]},
        {"erasures": [erasure(request_id="2026-0042\n")]},
        {"erasures": [erasure(identity_id="Jane Doe")]},
        {"erasures": [erasure(result="OK")]},
        {"erasures": [erasure(metrics=metrics(before=1.5))]},
        {"limitations": ["approximate"]},
        {"recipe_name": "a | b"},
    ],
)
def test_nothing_else_goes_public(changes):
    with pytest.raises(ValueError, match="not a publishable record"):
        build(**changes)


def test_the_message_quotes_no_value():
    with pytest.raises(ValueError, match=r"breaks 'pattern'") as caught:
        build(erasures=[erasure(identity_id="Jane Doe")])
    assert "Jane" not in str(caught.value)


def test_a_second_run_continues_the_chain():
    old = rec.to_bytes(build())
    new = build(
        base=rec.Base("hf://org/eg3d", "1" * 64, "6" * 40),
        subject={"model.safetensors": "7" * 64, "config.json": "2" * 64},
        erasures=[erasure("subject-c", "2026-0043")],
        previous=old,
        remeasured={("2026-0042", "subject-a"): rec.Again(0.05, holds=True)},
    )
    assert new["predicate"]["previousRecord"]["digest"]["sha256"] == hashlib.sha256(old).hexdigest()
    first, second, third = new["predicate"]["erasures"]
    assert [e["sequence"] for e in (first, second, third)] == [1, 2, 3]
    assert first["metrics"]["id"]["after"] == 0.02
    assert first["metrics"]["id"]["now"] == 0.05
    assert second["metrics"]["id"]["now"] is None  # not measured again, and said so
    assert third["identityId"] == "subject-c"
    assert rec.overall(new) == "PASSED"
    assert rec.check_link(new, old) == []
    assert [e["identityId"] for e in rec.erasures_of(new, "2026-0042")] == ["subject-a", "subject-b"]
    assert rec.erasures_of(new, "2026-9999") == []


def test_an_erasure_that_came_back_fails():
    again = {("2026-0042", "subject-a"): rec.Again(0.31, holds=False)}
    new = build(previous=rec.to_bytes(build()), remeasured=again)
    assert new["predicate"]["erasures"][0]["result"] == "FAILED"
    assert rec.overall(new) == "FAILED"


def test_a_broken_chain_is_found():
    old = rec.to_bytes(build())
    new = build(base=rec.Base("local", "1" * 64), previous=old, erasures=[erasure("subject-c")])

    def complaints(change):
        changed = copy.deepcopy(new)
        change(changed["predicate"])
        return " ".join(p.message for p in rec.check_link(changed, old))

    assert complaints(lambda p: None) == ""
    assert "no previous record" in complaints(lambda p: p.pop("previousRecord"))
    assert "not the one" in complaints(lambda p: p["previousRecord"]["digest"].update(sha256="0" * 64))
    assert "base is not the model" in complaints(lambda p: p["base"]["digest"].update(sha256="0" * 64))
    assert "erasure 1" in complaints(lambda p: p["erasures"][0].update(commitment="hmac-sha256:" + "0" * 64))
    assert "erasure 2" in complaints(lambda p: p["erasures"][1]["metrics"]["id"].update(threshold=0.9))
    assert "erasure 1" in complaints(lambda p: p["erasures"].pop(0))
    assert "erasure 1" in complaints(lambda p: p["erasures"][0]["metrics"].update(verifiedAfter=0.5))
    assert "erasure 1" in complaints(lambda p: p["erasures"][0]["metrics"]["idOthers"].update(after=0.1))
    assert "erasure 1" in complaints(lambda p: p["erasures"][0].update(ground="art-17"))
    assert "erasure 1" in complaints(lambda p: p["erasures"][0].update(result="WARNED"))
    assert complaints(lambda p: p["erasures"][0].update(result="FAILED")) == ""  # it came back: said openly
    assert complaints(lambda p: p["erasures"][0]["metrics"]["id"].update(now=0.1)) == ""


def test_a_newer_record_can_be_read_but_not_carried_over():
    record = build()
    record["predicate"]["invocationId"] = "x"
    record["predicate"]["erasures"][0]["note"] = "x"
    data = rec.to_bytes(record)
    assert rec.parse_record(data) == record
    with pytest.raises(InputError, match="newer guide-hub"):
        build(previous=data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is not an erasure record"),
        (b"[]", r"\$ breaks 'type'"),
        (b"{}", r"breaks 'required'"),
        (b'{"a": 1, "a": 2}', "a key appears twice"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b"[" * 100_000, "is not an erasure record"),
        (b"\xff", "is not an erasure record"),
    ],
)
def test_what_is_no_record(tmp_path, data, expected):
    path = tmp_path / "erasure_record.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=expected):
        rec.read_record(tmp_path)


def test_records_with_wrong_fields():
    record = build()
    record["predicate"]["erasures"][1]["sequence"] = 7
    with pytest.raises(InputError, match="not numbered"):
        rec.parse_record(rec.to_bytes(record))
    record = build()
    record["predicate"]["erasures"][0]["requestId"] = "2026-0042\n"  # a pattern's `$` would let it pass
    with pytest.raises(InputError, match="control character"):
        rec.parse_record(rec.to_bytes(record))


def test_check_subject():
    record = build()
    assert rec.check_subject(record, {"model.safetensors": "1" * 64, "config.json": "2" * 64}) == []
    problems = rec.check_subject(record, {"model.safetensors": "0" * 64})
    assert [p.message for p in problems] == [
        "config.json is missing",
        "model.safetensors is not the file that the record is about",
    ]


# commitments


def test_commitment_is_what_the_specification_says():
    digests = ["bb" * 32, "aa" * 32]
    text = "\0".join(["guide-hub/v1", "2026-0042", "subject-a", "aa" * 32, "bb" * 32])
    expected = "hmac-sha256:" + hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()
    made = rec.commit(KEY, "2026-0042", "subject-a", digests)
    assert made == expected
    assert made == rec.commit(KEY, "2026-0042", "subject-a", [d.upper() for d in reversed(digests)])
    assert rec.matches(made, KEY, "2026-0042", "subject-a", digests)
    assert not rec.matches(made, bytes(32), "2026-0042", "subject-a", digests)
    assert not rec.matches(made, KEY, "2026-0042", "subject-b", digests)
    assert not rec.matches(made, KEY, "2026-0042", "subject-a", digests[:1])


def test_commitment_refuses_ambiguous_parts_and_short_keys():
    with pytest.raises(ValueError, match="NUL"):
        rec.commit(KEY, "a\0b", "c", [PHOTO])
    with pytest.raises(ValueError, match="32 bytes"):
        rec.commit(b"short", "a", "b", [PHOTO])


def test_key_file(tmp_path, monkeypatch):
    monkeypatch.delenv("GUIDE_HUB_KEY", raising=False)
    state = tmp_path / "state"
    with pytest.raises(InputError, match="there is no key"):
        rec.load_key(state, create=False)
    key = rec.load_key(state)
    assert len(key) == 32
    assert rec.load_key(state, create=False) == key
    if os.name == "posix":
        assert (state / "key").stat().st_mode & 0o777 == 0o600
        assert state.stat().st_mode & 0o077 == 0
        (state / "key").chmod(0o644)
        with pytest.raises(InputError, match="others can read the key file"):
            rec.load_key(state)
        (state / "key").chmod(0o600)
    (state / "key").write_text("00ff")
    with pytest.raises(InputError, match="damaged"):
        rec.load_key(state)


def test_key_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_KEY", KEY.hex())
    assert rec.load_key(tmp_path / "state") == KEY
    monkeypatch.setenv("GUIDE_HUB_KEY", "a long enough sentence that nobody guesses")
    assert rec.load_key(tmp_path) == b"a long enough sentence that nobody guesses"
    monkeypatch.setenv("GUIDE_HUB_KEY", "secret")
    with pytest.raises(InputError, match="too short") as caught:
        rec.load_key(tmp_path)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "state").exists()


def test_a_key_is_rotated(tmp_path, monkeypatch):
    """A new line on top: it makes commitments from now on, and the older key still checks the old ones."""
    monkeypatch.delenv("GUIDE_HUB_KEY", raising=False)
    assert rec.find_keys(tmp_path) == []
    old = rec.load_key(tmp_path)
    earlier = rec.commit(old, "2026-0042", "subject-a", [PHOTO])
    file = tmp_path / "key"
    file.write_text(f"{KEY.hex()}\n{file.read_text()}")
    assert rec.load_key(tmp_path) == rec.find_key(tmp_path) == KEY
    assert rec.find_keys(tmp_path) == [KEY, old]
    answers = [
        rec.matches(earlier, key, "2026-0042", "subject-a", [PHOTO]) for key in rec.find_keys(tmp_path)
    ]
    assert answers == [False, True]
    file.write_text(f"{KEY.hex()}\n00ff\n")
    with pytest.raises(InputError, match="damaged"):
        rec.find_keys(tmp_path)
    monkeypatch.setenv("GUIDE_HUB_KEY", f"a long enough sentence that nobody guesses\n{old.hex()}\n")
    assert rec.find_keys(tmp_path) == [b"a long enough sentence that nobody guesses", old]


def test_the_key_stays_out_of_what_is_published(tmp_path):
    rec.keep_apart(tmp_path / "state", tmp_path / "out")
    for state, out in (("out/state", "out"), ("out", "out"), ("state", ".")):
        with pytest.raises(InputError, match="overlaps the output"):
            rec.keep_apart(tmp_path / state, tmp_path / out)


# SHA256SUMS


@pytest.fixture
def output(tmp_path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "assets" / "retained.png").write_bytes(b"png")
    (tmp_path / ".gitattributes").write_bytes(b"")
    rec.write_sums(tmp_path)
    return tmp_path


def test_sums(output):
    png, config = hashlib.sha256(b"png").hexdigest(), hashlib.sha256(b"{}").hexdigest()
    assert (output / "SHA256SUMS").read_text() == f"{png}  assets/retained.png\n{config}  config.json\n"
    assert rec.check_sums(output) == []
    assert rec.read_sums(output) == rec.digests(output)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_sums_are_read_by_sha256sum(output):
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    subprocess.run(command, cwd=output, check=True, capture_output=True)
    (output / "config.json").write_bytes(b"[]")
    assert subprocess.run(command, cwd=output, check=False, capture_output=True).returncode == 1


def test_sums_that_do_not_hold(output):
    (output / "config.json").write_bytes(b"[]")
    (output / "assets" / "retained.png").unlink()
    (output / "more.bin").write_bytes(b"")
    assert [p.message for p in rec.check_sums(output)] == [  # more.bin is another file of the repository's
        "assets/retained.png is missing",
        "config.json has changed since SHA256SUMS was written",
    ]


@pytest.mark.parametrize("line", ["junk", "0" * 64 + "  ../../etc/passwd", "0" * 64 + "  /etc/passwd"])
def test_sums_that_are_none(output, line):
    (output / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(InputError, match="SHA256SUMS:1:1"):
        rec.check_sums(output)
    (output / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="missing"):
        rec.check_sums(output)


def test_a_rebuilt_model_says_what_was_withdrawn_and_no_more():
    def rebuilt(**more):
        day = datetime.date(2026, 3, 4)
        return build(rebuilt=rec.Rebuilt("9" * 64, "2026-0041", "subject-x", day, **more))["predicate"]

    assert rebuilt()["rebuilt"] == {
        "replacesRecord": {"digest": {"sha256": "9" * 64}},
        "withdrawn": {"requestId": "2026-0041", "identityId": "subject-x", "withdrawnOn": "2026-03-04"},
    }
    assert rebuilt(reason="wrong-person")["rebuilt"]["withdrawn"]["reason"] == "wrong-person"
    with pytest.raises(ValueError, match="breaks 'pattern'") as caught:
        rebuilt(reason="Jane was not meant")
    assert "Jane" not in str(caught.value)
    assert "rebuilt" not in build()["predicate"]
