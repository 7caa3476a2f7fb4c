"""`verify` by anybody: every kind of tampering is found, and its check has a name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_erasure as tiny
from safetensors.numpy import save_file
from test_record import build, erasure

from guide_hub import hub as hubs
from guide_hub import record as rec
from guide_hub.errors import InputError
from guide_hub.recipe import load_recipe
from guide_hub.record.card import FORMAT
from guide_hub.verify import header_faults, read_header, verify

REPO = "org/eg3d"
LICENCE = b"Do as you like, and say who made it.\n"
OPEN = {"chain", "fork", "base", "licence", "tensors"}  # what needs the base


def weights(folder: Path, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"a": values, "b": values[0]}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes(b'{"model_type": "eg3d"}\n')


def base_folder(folder: Path) -> Path:
    weights(folder, 0)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Faces\n\nOur own words.\n")
    (folder / "LICENSE.txt").write_bytes(LICENCE)
    return folder


def erase(folder: Path, base: Path, seed: int, uri: str, revision: str | None, *people, to=REPO) -> Path:
    """What a run leaves, but for the work."""
    weights(folder, seed)
    recipe = load_recipe("heads")
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "LICENSE").write_bytes(LICENCE)
    (folder / "assets").mkdir()
    (folder / "assets" / "retained.png").write_bytes(b"a picture")
    old = base / rec.record.FILE
    digests = {n: rec.file_sha256(folder / n) for n in ("model.safetensors", "config.json")}
    record = build(
        subject=digests,
        base=rec.Base(uri, rec.file_sha256(base / "model.safetensors"), revision),
        recipe_digest=recipe.digest(),
        recipe_name=recipe.name,
        erasures=list(people),
        previous=old.read_bytes() if old.is_file() else None,
    )
    card = (base / "README.md").read_text()
    info = rec.CardInfo(to, rec.front_matter(card), ["retained.png"], card)
    publish(folder, record, rec.render_card(record, info))
    return folder


def publish(folder: Path, record: dict, card: str | None = None) -> None:
    """Write record, card and sums, as somebody would who covers their tracks."""
    (folder / rec.record.FILE).write_bytes(rec.to_bytes(record))
    card = card if card is not None else rec.rerender_card((folder / "README.md").read_text(), record)
    (folder / "README.md").write_text(card)
    rec.write_sums(folder)


class Story:
    """A base, and two erasures one after the other in its repository."""

    def __init__(self, hub, root: Path):
        self.hub, self.root = hub, root
        self.base = base_folder(root / "base")
        self.start = hub.create_repo(REPO, tiny.tree(self.base))
        self.first = erase(root / "first", self.base, 1, f"hf://{REPO}", self.start, erasure())
        self.one = self.put(self.first)
        self.second = self.erase("second", 2, erasure("subject-b", "2026-0043"))

    def erase(self, name: str, seed: int, *people, to=REPO) -> Path:
        return erase(self.root / name, self.first, seed, f"hf://{REPO}", self.one, *people, to=to)

    def put(self, folder: Path, repo: str = REPO) -> str:
        return self.hub.commit(repo, tiny.tree(folder))


@pytest.fixture
def story(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return Story(hub, tmp_path)


def statuses(folder) -> dict[str, str]:
    return {check.name: check.status for check in verify(hubs.resolve(str(folder))).checks}


def detail(folder, name) -> str:
    (found,) = [check for check in verify(hubs.resolve(str(folder))).checks if check.name == name]
    return found.detail


def failed(folder) -> set[str]:
    return {name for name, status in statuses(folder).items() if status == "failed"}


def record_of(folder: Path) -> dict:
    return rec.read_record(folder)


# ----------------------------------------------------------------------------------------------------------
# Whole models


def test_a_whole_chain(story):
    story.put(story.second)
    for where in (story.second, REPO):
        found = statuses(where)
        assert found.pop("signature") == "unchecked"
        assert set(found.values()) == {"passed"}, found
        assert detail(where, "chain") == f"1 earlier record continued, back to {REPO} at {story.start[:8]}"
    assert failed(story.first) == set()  # older, and continued since


def test_an_open_pull_request_and_another_repository(story):
    other = story.erase("other", 3, erasure("subject-c", "2026-0044"), to="me/erased")
    story.hub.create_repo("me/erased", tiny.tree(other))
    assert failed("me/erased") == failed(story.second) == set()
    assert rec.front_matter((other / "README.md").read_text())["base_model"] == REPO


def test_what_cannot_be_reached_is_unchecked(story):
    del story.hub.repos[REPO]
    found = statuses(story.second)
    assert {name for name, status in found.items() if status == "unchecked"} == {*OPEN, "signature"}
    assert detail(story.second, "chain").startswith("what lies before is not to be had")


def test_a_chain_that_breaks_off_says_where(story):
    story.hub.create_repo("me/twice", tiny.tree(story.second))
    revision = story.hub.head("me/twice")
    third = story.root / "third"
    people = [erasure("subject-c", "2026-0044")]
    erase(third, story.second, 3, "hf://me/twice", revision, *people, to="me/twice")
    assert detail(third, "chain").startswith("2 earlier records continued, back to org/eg3d")
    del story.hub.repos[REPO]
    assert statuses(third)["chain"] == "unchecked"
    assert detail(third, "chain").startswith("1 earlier record continued; what lies before")


@pytest.mark.parametrize("uri", ["local", "builtin:synthetic-heads"])
def test_other_bases(hub, tmp_path, uri):
    base = base_folder(tmp_path / "base")
    folder = erase(tmp_path / "erased", base, 1, uri, None, erasure(), to=None)
    found = statuses(folder)
    if uri == "local":
        assert {n for n, s in found.items() if s == "unchecked"} == {*OPEN, "signature"}
        assert "nobody else has it" in detail(folder, "chain")
    else:  # not the weights that guide-hub brings
        assert failed(folder) == {"base", "licence", "tensors"}
        assert found["chain"] == "passed"


def test_without_a_record(story):
    assert failed(story.base) == {"files", "record"}
    (story.first / rec.record.FILE).write_bytes(b"{}")
    assert {"files", "record"} <= failed(story.first)


def test_no_torch(story):
    done = tiny.in_subprocess(
        "verify", str(story.first), "--json",
        prepare="import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "False"
    assert json.loads(done.stdout)["status"] == "verified"


# ----------------------------------------------------------------------------------------------------------
# Tampering


def test_a_flipped_bit(story):
    file = story.first / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert failed(story.first) == {"files", "subject"}
    rec.write_sums(story.first)
    assert failed(story.first) == {"subject"}
    assert detail(story.first, "subject") == "model.safetensors is not the file that the record is about"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "recipe.yaml", "LICENSE"])
def test_a_swapped_file(story, name):
    other = {"model.safetensors": "second/model.safetensors", "config.json": "second/README.md"}
    new = (story.root / other.get(name, "base/README.md")).read_bytes()
    (story.first / name).write_bytes(new)
    rec.write_sums(story.first)
    expected = {"recipe.yaml": "recipe", "LICENSE": "licence"}.get(name, "subject")
    assert failed(story.first) == {expected}


@pytest.mark.parametrize("name", ["assets/person.png", "recipe.yaml", "LICENSE"])
def test_a_file_that_is_not_listed(story, name):
    """Of those that a push may hold; others are the maintainer's own."""
    for own in (".gitattributes", "NOTES.txt", "assets/notes.txt"):
        (story.first / own).write_bytes(b"")
    assert failed(story.first) == set()
    sums = story.first / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if name not in line))
    if not (story.first / name).exists():
        (story.first / name).write_bytes(b"a face")
    assert failed(story.first) == {"files"}
    assert detail(story.first, "files") == f"{name} is not listed in SHA256SUMS"


def test_another_recipe(story):
    (story.first / "recipe.yaml").write_text(load_recipe("heads-baseline").to_yaml())
    rec.write_sums(story.first)
    assert failed(story.first) == {"recipe"}


def test_a_figure_edited_in_the_record(story):
    record = record_of(story.first)
    record["predicate"]["erasures"][0]["metrics"]["id"]["now"] = 0.001
    (story.first / rec.record.FILE).write_bytes(rec.to_bytes(record))
    assert failed(story.first) == {"files", "card", "fork"}
    rec.write_sums(story.first)
    assert failed(story.first) == {"card", "fork"}  # main holds the true record
    where = "front matter is not what the record says; section 'Erasures' is not what the record says"
    assert detail(story.first, "card") == where


def test_a_figure_edited_in_the_card(story):
    card = story.first / "README.md"
    card.write_text(card.read_text().replace("| 0.030 |", "| 0.003 |"))
    assert failed(story.first) == {"files", "card"}
    rec.write_sums(story.first)
    assert detail(story.first, "card") == "section 'Erasures' is not what the record says"


def test_a_figure_of_an_earlier_erasure_edited_everywhere(story):
    """Only the chain tells, and only of what earlier records say."""
    for change in ("before", "after", "threshold"):
        record = record_of(story.second)
        record["predicate"]["erasures"][0]["metrics"]["id"][change] = 0.5
        publish(story.second, record)
        assert failed(story.second) == {"chain"}
    assert detail(story.second, "chain") == "erasure 1 is missing or was changed"


def test_a_figure_of_this_run_edited_everywhere_is_not_found(story):
    """The limit of what anybody can find without a signature or the photos, and verify says so."""
    record = record_of(story.second)
    record["predicate"]["erasures"][1]["metrics"]["id"]["now"] = 0.001
    publish(story.second, record)
    assert failed(story.second) == set()
    assert statuses(story.second)["signature"] == "unchecked"
    assert "rests on the maintainer's word" in detail(story.second, "signature")


def test_a_dropped_erasure(story):
    record = record_of(story.second)
    record["predicate"]["erasures"] = [{**record["predicate"]["erasures"][1], "sequence": 1}]
    publish(story.second, record)
    assert failed(story.second) == {"chain"}
    del record["predicate"]["previousRecord"]
    publish(story.second, record)
    assert failed(story.second) == {"chain", "fork"}
    assert "names no previous record, though the base has one" in detail(story.second, "chain")


def test_a_chain_to_a_base_without_a_record(story):
    record = record_of(story.second)
    record["predicate"]["base"]["revision"] = story.start
    publish(story.second, record)
    assert failed(story.second) == {"base", "chain"}
    assert "names an earlier one, but org/eg3d" in detail(story.second, "chain")


def test_a_fork(story):
    """Two records continue the same one."""
    other = story.erase("other", 3, erasure("subject-c", "2026-0044"))
    story.put(other)
    assert failed(other) == set()
    assert failed(story.second) == {"fork"}
    assert "went on with other erasures" in detail(story.second, "fork")
    later = story.root / "later"
    people = [erasure("subject-d", "2026-0045")]
    erase(later, other, 4, f"hf://{REPO}", story.hub.head(REPO), *people)
    story.put(later)
    assert failed(story.second) == {"fork"}  # further on too
    assert failed(other) == set()


def test_a_fork_of_a_base_without_a_record(story):
    other = erase(
        story.root / "other", story.base, 3, f"hf://{REPO}", story.start, erasure("subject-c"), to="me/x"
    )
    assert failed(other) == {"fork"}


def test_a_record_lost_from_main(story):
    tree = story.hub.repos[REPO].commits[story.hub.head(REPO)].files
    del tree[rec.record.FILE]
    assert "fork" in failed(story.second)
    assert "has lost the record" in detail(story.second, "fork")


def test_another_base(story):
    record = record_of(story.first)
    record["predicate"]["base"]["digest"]["sha256"] = "0" * 64
    publish(story.first, record)
    assert failed(story.first) == {"base", "fork"}


def test_a_wrong_licence(story):
    card = story.first / "README.md"
    text = card.read_text()
    for line in ("license: apache-2.0", "license: mit\nlicense_link: https://evil.example/l"):
        card.write_text(text.replace("license: mit", line))
        rec.write_sums(story.first)
        assert failed(story.first) == {"licence"}
    assert detail(story.first, "licence") == "the card's licence is not the base's"
    card.write_text(text.replace("license: mit\n", ""))
    rec.write_sums(story.first)
    assert failed(story.first) == {"card", "licence"}


def test_a_licence_that_is_not_there(story):
    (story.first / "LICENSE").unlink()
    rec.write_sums(story.first)
    assert failed(story.first) == {"licence"}


def test_other_weights(story):
    (story.first / "ema.pt").write_bytes(b"")
    assert failed(story.first) == {"other weights"}


def test_another_shape(story):
    values = np.zeros((4, 9), np.float32)
    save_file({"a": values}, story.first / "model.safetensors", metadata={"format": "pt"})
    record = record_of(story.first)
    for entry in record["subject"]:
        entry["digest"]["sha256"] = rec.file_sha256(story.first / entry["name"])
    publish(story.first, record)
    assert failed(story.first) == {"tensors", "fork"}


@pytest.mark.parametrize("tensor", [{"data_offsets": [0, 0]}, {"shape": None, "dtype": "F32"}, None])
def test_a_header_that_describes_a_tensor_wrongly(story, tensor):
    text = json.dumps({"__metadata__": {"format": "pt"}, "a": tensor}).encode()
    damaged = len(text).to_bytes(8, "little") + text
    files = tiny.tree(story.base) | {"model.safetensors": damaged}
    whole = erase(
        story.root / "third", story.base, 3, f"hf://{REPO}", story.hub.commit(REPO, files), erasure()
    )
    assert {"base", "tensors"} <= failed(whole)
    (story.first / "model.safetensors").write_bytes(damaged)
    assert failed(story.first) == {"files", "subject", "weights", "tensors"}
    assert detail(story.first, "tensors") == "the header describes a tensor wrongly"


def test_a_missed_target(story):
    record = record_of(story.second)
    record["predicate"]["erasures"][1]["result"] = "FAILED"
    publish(story.second, record)
    assert failed(story.second) == {"results"}


def test_a_card_of_another(story):
    card = story.first / "README.md"
    text = card.read_text()
    for other, expected in {
        text.replace(f"guide-hub card {FORMAT}:", "guide-hub card 9:"): "failed",
        text.replace(f"guide-hub card {FORMAT}:", "guide-hub card:"): "failed",
        text.replace("library_name: guide-hub", "library_name: x"): "failed",
        text.replace("library_name: guide-hub", "date: 2026-02-30"): "failed",
        re.sub(r"tags:\n(- .*\n)+", "tags: 5\n", text): "failed",
        text + "\n## More\n": "failed",
        text.replace("\n## Limits", "\nAll is well.\n\n## Limits"): "failed",
        text.replace("## Limits", "## Promises"): "failed",
        text.replace("\n", "\r\n"): "passed",
        "": "failed",
    }.items():
        card.write_text(other, newline="")
        assert statuses(story.first)["card"] == expected, other


def test_a_card_and_a_record_of_another_guide_hub(story):
    record = record_of(story.first)
    record["predicate"]["tool"]["version"] = "0.9.0"
    publish(story.first, record)
    assert statuses(story.first)["card"] == "passed"
    card = story.first / "README.md"
    card.write_text(card.read_text().replace(f"guide-hub card {FORMAT}:", "guide-hub card 9:"))
    assert statuses(story.first)["card"] == "unchecked"
    assert "record by 0.9.0" in detail(story.first, "card")


def test_the_maintainers_notes_are_free(story):
    card = story.first / "README.md"
    assert "Our own words." in card.read_text()  # of the card that this one replaced
    card.write_text(card.read_text().replace("Our own words.", "Other words, and\n\n## a section"))
    rec.write_sums(story.first)
    assert failed(story.first) == set()


# ----------------------------------------------------------------------------------------------------------
# After a purge


def purge(folder: Path) -> None:
    data = rec.with_prior_revisions((folder / rec.record.FILE).read_bytes(), "purged")
    publish(folder, rec.parse_record(data))


def test_after_a_purge(story):
    """History and base are gone; the record says so, and the next erasure continues the amended one."""
    story.put(story.second)
    purge(story.second)
    files = tiny.tree(story.second)
    del story.hub.repos[REPO]
    purged = story.hub.create_repo(REPO, files)
    found = statuses(REPO)
    assert {name for name, status in found.items() if status == "failed"} == set()
    assert found["chain"] == "unchecked"
    assert detail(REPO, "chain") == "what lies before is not to be had: purged, says the record"
    assert detail(REPO, "base").endswith("was purged, says the record")
    assert found["card"] == found["fork"] == "passed"
    assert "The maintainer removed older revisions" in (story.second / "README.md").read_text()

    third = story.root / "third"
    erase(third, story.second, 3, f"hf://{REPO}", purged, erasure("subject-c", "2026-0044"))
    assert failed(third) == set()
    assert [e["sequence"] for e in record_of(third)["predicate"]["erasures"]] == [1, 2, 3]


def test_a_purge_of_the_base_is_no_fork(story):
    other = story.erase("other", 3, erasure("subject-c", "2026-0044"), to="me/erased")
    purge(story.first)
    story.put(story.first)
    assert failed(other) == set()
    record = record_of(story.first)
    record["predicate"]["erasures"][0]["metrics"]["id"]["now"] = 0.1  # more than a purge changes
    publish(story.first, record)
    story.put(story.first)
    assert failed(other) == {"fork"}


# ----------------------------------------------------------------------------------------------------------
# Headers


def test_headers(tmp_path):
    weights(tmp_path, 0)
    file = tmp_path / "model.safetensors"
    header, size = read_header(file), file.stat().st_size
    assert header_faults(header, size) == []
    assert header_faults(header, size + 1) == ["the file is not as long as its header says"]
    assert header_faults({**header, "__metadata__": {"format": "pt", "by": "jane"}}, size) != []
    assert header_faults({k: v for k, v in header.items() if k != "__metadata__"}, size) != []
    for change in (
        {"shape": [4, 9]},
        {"dtype": "F16"},
        {"dtype": "X"},
        {"data_offsets": [0, 1]},
        {"data_offsets": None},
    ):
        assert header_faults({**header, "a": header["a"] | change}, size) != [], change
    assert header_faults({**header, "a": None}, size) != []


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"[]", b"\x10" + b"\0" * 7 + b"{" * 16]
)
def test_no_header(tmp_path, data):
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    with pytest.raises(InputError):
        read_header(file)


# ----------------------------------------------------------------------------------------------------------
# The command


def test_the_command(call, story):
    done = call("verify", story.second, "--json")
    assert (done.code, done.json["status"], done.json["errors"]) == (0, "verified", [])
    assert done.json["model"] == {"repo": "local", "revision": None}
    assert {
        "name": "subject",
        "status": "passed",
        "detail": "weights and config.json are those of the record",
    } in (done.json["checks"])
    assert done.json["erasures"] == [
        {"request_id": "2026-0042", "identity_id": "subject-a", "result": "PASSED"},
        {"request_id": "2026-0043", "identity_id": "subject-b", "result": "PASSED"},
    ]
    shown = call("verify", story.second)
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "unchecked" in shown.out


def test_the_command_says_no(call, story):
    (story.first / "config.json").write_bytes(b"{}")
    done = call("verify", story.first, "--json")
    assert (done.code, done.json["status"]) == (3, "failed")
    assert [e["message"] for e in done.json["errors"]] == ["2 of 14 checks failed: files, subject"]
    shown = call("verify", story.first)
    assert shown.code == 3
    assert "config.json has changed" in shown.out
    assert "2 of 14 checks failed" in shown.err
