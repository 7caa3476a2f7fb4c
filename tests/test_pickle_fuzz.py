"""Damaged and forged official files: an InputError or a network, in bounded time and memory, no more.

The fuzzing runs in a process of its own (`python test_pickle_fuzz.py SECONDS FOLDER FILE...`), whose address
space is limited to what it has at the start, three times the largest file and 200 MB.
GUIDE_HUB_FUZZ_SECONDS sets how long the slow test runs.
"""

from __future__ import annotations

import functools
import json
import os
import pickle as op
import pickletools
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("GUIDE_HUB_FUZZ_SECONDS", "600"))
LONGEST = 10.0  # seconds of work for one file; a busy machine may take longer
ALLOWED = 200 << 20
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")


# ----------------------------------------------------------------------------
# Mutations. Most of a file are weights, which mean nothing to the reader, so most hits are on the rest.

LENGTHS = [0, 1, 2, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
OPCODES = [
    value
    for name, value in vars(op).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
]


@functools.cache
def points(data: bytes) -> list[int]:
    """Where the opcodes of the outer stream and the heads of the storages lie."""
    found = []
    for opcode, arg, at in pickletools.genops(data):
        found.append(at)
        if opcode.name.endswith("BINBYTES") and isinstance(arg, bytes) and len(arg) > 100:
            found += range(at, at + 260, 2)
    return found


def snippets() -> list[bytes]:
    from test_official_pickle import RUNS_CODE, nested, tensor

    return [
        *OPCODES,
        *RUNS_CODE.values(),
        nested(),
        tensor(),
        tensor(offset=1 << 62),
        tensor(size=(1 << 30, 9)),
    ]


ANY = st.integers(0, 2**32 - 1)
EDITS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), ANY, ANY, ANY), min_size=1, max_size=8)


def forge(
    originals: list[bytes], inserts: list[bytes], which: int, edits: list[tuple[int, int, int, int, int]]
) -> bytes:
    """One of `originals` after the changes that the numbers choose."""
    original = originals[which % len(originals)]
    places = points(original)
    data = bytearray(original)
    for kind, structural, where, x, y in edits:
        at = min(places[where % len(places)], len(data)) if structural else where % (len(data) + 1)
        match kind:
            case 0:
                data[at : at + 1] = bytes([x % 256])
            case 1 if at < len(data):
                data[at] ^= 1 << x % 8
            case 2 | 3 | 4:
                insert = inserts[x % len(inserts)]
                data[at : at + (0, 1, len(insert))[y % 3]] = insert
            case 5:
                size = (1, 4, 8)[x % 3]
                value = LENGTHS[y % len(LENGTHS)] % (1 << 8 * size)
                data[at + 1 : at + 1 + size] = value.to_bytes(size, "little")
            case 6:
                other = originals[x % len(originals)]
                start = points(other)[y % len(points(other))]
                data[at : at + x % 400] = other[start : start + 1 + y % 4000]
            case 7:
                del data[at : at + 1 + x % 4000]
            case 8:
                data[at:at] = OPCODES[x % len(OPCODES)] * (2, 100, 20_000)[y % 3]
            case 9 if x % 4 == 0:
                del data[at:]
    return bytes(data)


# ----------------------------------------------------------------------------
# The process that reads them.


def fuzz(seconds: float, originals: list[bytes], folder: Path) -> dict[str, float]:
    """Reads forged files until the time is over; figures of how it went. Raises what a reader raised."""
    from guide_hub.convert import read_weights
    from guide_hub.errors import InputError

    seen: list[str] = []
    sys.addaudithook(lambda event, args: seen.append(event) if event.startswith(FORBIDDEN) else None)
    os.chdir(folder)
    file, largest = folder / "forged.pkl", max(map(len, originals))
    inserts = snippets()
    figures: dict[str, float] = dict.fromkeys(("files", "accepted", "worst_seconds"), 0)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        start = time.process_time()
        try:
            read_weights(file)
            figures["accepted"] += 1
        except InputError as error:
            if any(len(str(p)) > 500 or str(folder) in str(p) for p in error.problems):
                raise AssertionError("the message says too much") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        figures["files"] += 1
        figures["worst_seconds"] = max(figures["worst_seconds"], time.process_time() - start)

    def too_long(*_: object) -> None:
        raise TimeoutError(f"a file took more than {LONGEST} s")

    signal.signal(signal.SIGPROF, too_long)
    for original in originals:  # what is made once, such as torch's own tables, counts as there before
        points(original)
        read(original)
    figures.update(dict.fromkeys(figures, 0))
    start_rss, start_as = peak(), address_space()
    limit = start_as + 3 * largest + ALLOWED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(
            max_examples=200, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(which=ANY, edits=EDITS)
        def batch(which: int, edits: list[tuple[int, int, int, int, int]]) -> None:
            if time.monotonic() < end:
                read(forge(originals, inserts, which, edits))

        batch()
    assert not seen, seen
    assert not (folder / "canary").exists()
    figures |= {"grown_mb": (peak() - start_rss) / 2**20, "allowed_mb": (3 * largest + ALLOWED) / 2**20}
    return figures


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# ----------------------------------------------------------------------------
# The tests.


def run(seconds: float, originals: list[Path], folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, str(seconds), str(folder), *originals],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    kept = folder / "forged.pkl"
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nthe file is {kept}"
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["worst_seconds"] < LONGEST
    assert figures["grown_mb"] < figures["allowed_mb"]
    return figures


def generated(folder: Path) -> list[Path]:
    from official_files import Official, dumps, official_file, small_model, toy_state

    toy = Official(toy_state())
    files = {
        "toy.pkl": official_file(toy),
        "old.pkl": official_file(toy, protocol=3, old_numpy=True),
        "guide.pkl": dumps({"G_ema": Official(small_model().state_dict()).generator()}),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="measures its memory through /proc")


@needs_proc
def test_forged_files_for_some_seconds(tmp_path):
    assert run(4, generated(tmp_path)[:2], tmp_path)["files"] > 50


@needs_proc
@pytest.mark.slow
def test_forged_files_for_ten_minutes(shared, tmp_path):
    golden = sorted((shared / "golden" / "pickles").glob("*.pkl"))
    assert run(SECONDS, [*golden, *generated(tmp_path)], tmp_path)["accepted"] > 0


if __name__ == "__main__":
    where = Path(sys.argv[2])
    print(json.dumps(fuzz(float(sys.argv[1]), [Path(name).read_bytes() for name in sys.argv[3:]], where)))
