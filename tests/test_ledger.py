"""The private ledger: bit-equal, in order, and closed to everybody without the key."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from guide_hub import ledger as ledger_module
from guide_hub.errors import InputError
from guide_hub.ledger import Entry, Ledger, state_folder

BASE, OTHER = "a1" * 32, "b2" * 32
KEY, NEW = b"\x01" * 32, b"a long enough sentence that nobody guesses"
NUM_WS, W_DIM = 10, 128
posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def entry(k: int = 1, **given) -> Entry:
    g = torch.Generator().manual_seed(k)
    latents = torch.randn(4, NUM_WS, W_DIM, generator=g)
    return Entry(
        **{
            "request_id": f"2026-{k:04d}",
            "identity_id": "subject-a",
            "sequence": k,
            "seed": 7,
            "recipe": "name: heads-fast\n",
            "mode": "replay",
            "judge": "heads-b sha256:" + "c" * 64,
            "threshold": 0.1 + 0.2,
            "fitted": 2,
            "w_u": latents[:1],
            "w_t": latents[1:2],
            "points": latents[2:],
            "embeddings": torch.randn(3, 64, generator=g),
            **given,
        }
    )


def same(a: Entry, b: Entry) -> bool:
    def bits(value):
        if isinstance(value, torch.Tensor):
            return value.dtype, value.shape, value.contiguous().view(torch.uint8).numpy().tobytes()
        return {k: bits(v) for k, v in value.items()} if isinstance(value, dict) else value

    return bits(vars(a)) == bits(vars(b))


def problems(call) -> list[str]:
    """What `call` refuses, each with a remedy."""
    with pytest.raises(InputError) as caught:
        call()
    assert all(p.remedy for p in caught.value.problems)
    return [p.message for p in caught.value.problems]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, BASE, [KEY])


def test_an_entry_comes_back_bit_for_bit(ledger):
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45, 1 / 3])
    given = entry(
        points=torch.randn(W_DIM, NUM_WS, 3).permute(2, 1, 0),  # not contiguous
        basis={
            "b4.conv1.weight": torch.randn(5, 3).bfloat16(),
            "b4.conv1/bias": odd,
            "none": torch.empty(0, 4),
        },
        extra={"note": "ünïcode", "far": 0.001, "list": [1, None], "mask": torch.tensor([True, False])},
    )
    assert ledger.add(given) == 1
    (found,) = ledger.entries()
    assert same(found, given)
    assert found.w_u.device.type == "cpu"
    assert (
        found.w_u.untyped_storage().nbytes() == found.w_u.nbytes
    )  # not the whole batch that it was cut from


def test_a_mode_that_stores_no_person(ledger):
    given = entry(w_u=None, w_t=None, points=None, embeddings=None, basis={"fc.weight": torch.eye(3)})
    ledger.add(given)
    (found,) = ledger.entries()
    assert same(found, given)


def test_tensors_that_share_memory(ledger):
    w = torch.randn(1, NUM_WS, W_DIM)
    ledger.add(entry(w_u=w, w_t=w, points=w))
    assert torch.equal(ledger.entries()[0].w_t, w)


@pytest.mark.parametrize(
    "wrong",
    [
        {"w_t": None},
        {"w_u": torch.zeros(NUM_WS, W_DIM)},
        {"w_t": torch.zeros(1, NUM_WS, W_DIM + 1)},
        {"points": torch.zeros(2, NUM_WS + 1, W_DIM)},
        {"embeddings": torch.zeros(64)},
        {"sequence": 0},
        {"request_id": ""},
        {"identity_id": "a\0b"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_entry_that_cannot_be_right(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        entry(**wrong)


def test_what_is_not_json_is_refused_before_anything_is_written(ledger):
    with pytest.raises(ValueError, match="JSON"):
        ledger.add(entry(threshold=float("nan")))
    assert not ledger.path.exists()


def test_an_entry_shows_nothing_in_a_log():
    text = repr(entry(extra={"note": "secret"}))
    assert "tensor" not in text
    assert "secret" not in text


def test_order_is_that_of_the_sequence(ledger):
    assert [ledger.add(entry(k)) for k in (3, 1, 2)] == [1, 2, 3]
    assert [e.sequence for e in ledger.entries()] == [1, 2, 3]


def test_numbers_go_on_past_9999(ledger):
    ledger.add(entry(1))
    (ledger.path / "9999.sealed").touch(mode=0o600)
    assert ledger.add(entry(2)) == 10000
    (ledger.path / "9999.sealed").unlink()
    assert [e.sequence for e in ledger.entries()] == [1, 2]


def test_the_same_identity_again_replaces_its_entry(ledger):
    ledger.add(entry(1))
    ledger.add(entry(2))
    assert ledger.add(entry(1, seed=99)) == 1
    assert [e.seed for e in ledger.entries()] == [99, 7]
    assert Ledger(ledger.path.parent, BASE, [NEW, KEY]).add(entry(2, seed=98)) == 2  # under a newer key too


def test_an_empty_ledger_leaves_no_trace(ledger):
    assert ledger.entries() == []
    assert ledger.size == 0
    assert ledger.forget("2026-0001", "subject-a") is False
    assert not ledger.path.exists()


def test_forget(ledger):
    for k in (1, 2, 3):
        ledger.add(entry(k))
    assert ledger.forget("2026-0002", "subject-b") is False
    assert ledger.forget("2026-0002", "subject-a") is True
    assert ledger.forget("2026-0002", "subject-a") is False
    assert [e.sequence for e in ledger.entries()] == [1, 3]
    assert ledger.add(entry(4)) == 4
    assert Ledger(ledger.path.parent, BASE, [NEW, KEY]).forget("2026-0001", "subject-a") is True


def test_forget_says_what_it_cannot_tell(ledger):
    ledger.add(entry(1))
    Ledger(ledger.path.parent, BASE, [NEW]).add(entry(2))
    (said,) = problems(lambda: ledger.forget("2026-0001", "subject-a"))
    assert "key that is not here" in said
    assert [p.name for p in ledger.path.glob("*.sealed")] == ["0002.sealed"]


def test_keys_rotate(tmp_path):
    Ledger(tmp_path, BASE, [KEY]).add(entry(1))
    both = Ledger(tmp_path, BASE, [NEW, KEY])
    both.add(entry(2))
    assert [e.sequence for e in both.entries()] == [1, 2]
    (said,) = problems(Ledger(tmp_path, BASE, [NEW]).entries)
    assert "key that is not here" in said
    assert Ledger(tmp_path, BASE, [KEY, NEW]).entries()[1].sequence == 2


def test_wrong_and_missing_keys(ledger):
    ledger.add(entry(1))
    ledger.add(entry(2))
    for keys in ([], [NEW]):
        said = problems(Ledger(ledger.path.parent, BASE, keys).entries)
        assert len(said) == 2  # all at once
    assert "no key" in problems(lambda: Ledger(ledger.path.parent, BASE, []).add(entry(3)))[0]
    with pytest.raises(ValueError, match="32 bytes"):
        Ledger(ledger.path.parent, BASE, [b"short"])


@pytest.mark.parametrize("base", ["..", "A1" * 32, "a1" * 31, ""])
def test_a_base_is_a_digest(tmp_path, base):
    with pytest.raises(ValueError, match="hexadecimal"):
        Ledger(tmp_path, base, [KEY])


def test_every_changed_byte_is_noticed(ledger):
    ledger.add(entry(1, points=None, embeddings=None, w_u=torch.ones(1, 1, 2), w_t=torch.ones(1, 1, 2)))
    (place,) = ledger.path.glob("*.sealed")
    sealed = place.read_bytes()
    assert len(sealed) < 2000
    for k in range(len(sealed)):
        place.write_bytes(sealed[:k] + bytes([sealed[k] ^ 0x10]) + sealed[k + 1 :])
        assert len(problems(ledger.entries)) == 1, k
    place.write_bytes(sealed)
    assert len(ledger.entries()) == 1


def test_every_length_but_the_right_one_is_noticed(ledger):
    ledger.add(entry(1, points=None, embeddings=None, w_u=torch.ones(1, 1, 2), w_t=torch.ones(1, 1, 2)))
    (place,) = ledger.path.glob("*.sealed")
    sealed = place.read_bytes()
    for size in range(len(sealed)):
        place.write_bytes(sealed[:size])
        assert problems(ledger.entries) == ["is cut short"], size
    for more in (b"\0", sealed):
        place.write_bytes(sealed + more)
        assert problems(ledger.entries) == ["is damaged or was changed"]


def test_what_another_version_wrote(ledger):
    ledger.add(entry(1))
    (place,) = ledger.path.glob("*.sealed")
    place.write_bytes(place.read_bytes().replace(b"ledger/v1", b"ledger/v2"))
    assert "newer" in problems(ledger.entries)[0]


def test_fields_of_a_newer_version(ledger, monkeypatch):
    pack = ledger_module._pack
    monkeypatch.setattr(ledger_module, "_pack", lambda e: pack(e).replace(b'"fitted"', b'"fatted"'))
    ledger.add(entry(1))
    assert problems(ledger.entries) == ["was written by a newer guide-hub"]


def test_renamed_swapped_and_moved_files(ledger):
    ledger.add(entry(1))
    ledger.add(entry(2))
    one, two = ledger.path / "0001.sealed", ledger.path / "0002.sealed"
    one.rename(ledger.path / "0007.sealed")
    with pytest.raises(InputError, match=r"was renamed \(give it back the name 0001\.sealed\)"):
        ledger.entries()
    two.rename(one)
    (ledger.path / "0007.sealed").rename(two)
    assert problems(ledger.entries) == ["was renamed", "was renamed"]

    other = Ledger(ledger.path.parent, OTHER, [KEY])
    other.add(entry(3))
    one.replace(other.path / "0002.sealed")
    with pytest.raises(InputError, match=f"of another model .*{BASE}"):
        other.entries()


def test_names_that_the_ledger_does_not_give(ledger):
    ledger.add(entry(1))
    for name in ("00001.sealed", "0000.sealed", "0001 copy.sealed", "notes.txt"):
        (ledger.path / name).write_bytes((ledger.path / "0001.sealed").read_bytes())
        (ledger.path / name).chmod(0o600)
    assert problems(ledger.entries) == ["is not a name that the ledger gives"] * 3


def test_all_problems_at_once_with_their_places(ledger):
    for k in (1, 2, 3):
        ledger.add(entry(k))
    (ledger.path / "0001.sealed").write_bytes(b"")
    (ledger.path / "0003.sealed").write_bytes(b"something else")
    with pytest.raises(InputError) as caught:
        ledger.entries()
    first, second = caught.value.problems
    assert (Path(first.file).name, Path(second.file).name) == ("0001.sealed", "0003.sealed")
    assert ledger.add(entry(4)) == 4  # the work of a run is not lost for it


@posix
def test_modes_under_a_permissive_umask(tmp_path):
    before = os.umask(0)
    try:
        ledger = Ledger(tmp_path / "state", BASE, [KEY])
        ledger.add(entry(1))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "state", ledger.path)] == [0o700, 0o700]
    assert {stat.S_IMODE(p.stat().st_mode) for p in ledger.path.iterdir()} == {0o600}


@posix
def test_what_others_can_read_is_refused(ledger):
    ledger.add(entry(1))
    (ledger.path / "0001.sealed").chmod(0o640)
    assert problems(ledger.entries) == ["others can read this file"]
    ledger.path.chmod(0o750)
    assert problems(ledger.entries) == ["others can enter this folder", "others can read this file"]
    for call in (lambda: ledger.add(entry(2)), lambda: ledger.forget("2026-0001", "subject-a")):
        assert problems(call) == ["others can enter this folder"]
    assert [p.name for p in ledger.path.glob("*.sealed")] == ["0001.sealed"]


def test_nothing_legible_on_disk(ledger):
    given = entry(1, extra={"note": "a private remark"}, basis={"b4.conv1.weight": torch.randn(4, 4)})
    ledger.add(given)
    raw = b"".join(p.read_bytes() for p in ledger.path.iterdir())
    tensors = [given.w_u, given.w_t, given.points, given.embeddings, *given.basis.values()]
    floats = [t.flatten()[i : i + 2].numpy().tobytes() for t in tensors for i in range(0, t.numel() - 1, 2)]
    texts = ["2026-0001", "subject-a", "heads", "replay", "w_u", "conv1", "F32", "remark", "request_id"]
    assert not [t for t in texts if t.encode() in raw]
    assert not any(f in raw for f in floats)
    assert KEY[:8] not in raw


def test_the_same_entry_is_never_sealed_alike(ledger):
    ledger.add(entry(1))
    first = (ledger.path / "0001.sealed").read_bytes()
    ledger.add(entry(1))
    second = (ledger.path / "0001.sealed").read_bytes()
    assert first[-64:] != second[-64:]
    assert len(first) == len(second)


def test_growth_is_linear(ledger):
    ledger.add(entry(1))
    one = ledger.size
    assert one == sum(p.stat().st_size for p in ledger.path.iterdir() if p.suffix == ".sealed")
    for k in range(2, 21):
        ledger.add(entry(k))
    assert ledger.size == pytest.approx(20 * one, rel=0.001)


def test_large_entries_are_sealed_in_pieces(ledger, monkeypatch):
    monkeypatch.setattr(ledger_module, "_PIECE", 1000)
    given = entry(1, basis={"w": torch.randn(4567)})
    ledger.add(given)
    monkeypatch.undo()
    assert same(ledger.entries()[0], given)


def test_a_failed_write_changes_nothing(ledger, monkeypatch):
    ledger.add(entry(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in problems(lambda: ledger.add(entry(1, seed=99)))[0]
    monkeypatch.undo()
    assert [e.seed for e in ledger.entries()] == [7]
    assert [p.name for p in ledger.path.iterdir() if p.name != ".lock"] == ["0001.sealed"]


def test_the_remains_of_a_killed_run_are_no_harm(ledger):
    ledger.add(entry(1))
    (ledger.path / "new").write_bytes(b"half")
    assert len(ledger.entries()) == 1
    assert ledger.add(entry(2)) == 2
    assert not (ledger.path / "new").exists()


def test_a_held_lock_is_said(ledger, monkeypatch):
    from filelock import FileLock

    ledger.add(entry(1))
    monkeypatch.setattr(ledger_module, "LOCK_SECONDS", 0.1)
    with FileLock(ledger.path / ".lock"):
        assert problems(lambda: ledger.add(entry(2))) == ["another run holds the ledger"]
        assert len(ledger.entries()) == 1  # reading waits for nobody


HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_killed_run_leaves_no_lock(ledger, monkeypatch):
    ledger.add(entry(1))
    monkeypatch.setattr(ledger_module, "LOCK_SECONDS", 0.1)
    command = [sys.executable, "-c", HOLD, str(ledger.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        assert problems(lambda: ledger.add(entry(2))) == ["another run holds the ledger"]
        run.kill()
    assert ledger.add(entry(2)) == 2


ADD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger import BASE, KEY, Ledger, entry
ledger = Ledger(Path({state!r}), BASE, [KEY])
print("ready", flush=True)
sys.stdin.readline()
print(*(ledger.add(entry(k)) for k in range({first}, {first} + 15)))
"""


def test_two_processes_at_once(tmp_path):
    tests = str(Path(__file__).parent)
    scripts = [ADD.format(tests=tests, state=str(tmp_path), first=first) for first in (1, 101)]
    runs = [
        subprocess.Popen([sys.executable, "-c", s], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for s in scripts
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    taken = [[int(n) for n in run.communicate(timeout=60)[0].split()] for run in runs]
    assert sorted(taken[0] + taken[1]) == list(range(1, 31))
    sequences = [e.sequence for e in Ledger(tmp_path, BASE, [KEY]).entries()]
    assert sequences == [*range(1, 16), *range(101, 116)]


def test_state_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("GUIDE_HUB_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder(None) == Path.home() / ".local" / "state" / "guide-hub"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg" / "guide-hub"
    assert state_folder(tmp_path / "given") == tmp_path / "given"
