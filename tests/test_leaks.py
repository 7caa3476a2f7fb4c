"""Nothing of a photo stays behind: no file outside what was asked for, no name in a line of output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_erasure as tiny

from guide_hub.record import file_sha256
from guide_hub.request import load_request

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "takedown" / "photos"
FOLDER, NAMES = "jane_doe_private", ("jane_doe_1987", "jane_at_the_beach")  # what no line may hold
WHOLE = "import tiny_erasure; from guide_hub.faces import crops; crops.read_faces = tiny_erasure.whole_photos"
QUIET, CHATTY = {}, {"GUIDE_HUB_DEBUG": "1", "PYTHONWARNINGS": "always", "HF_DEBUG": "1"}
SLOW_CHATTY = pytest.param(CHATTY, marks=pytest.mark.slow)
WRITES = re.compile(r'(?:open|openat|creat)\((?:AT_FDCWD, |\d+, )?"([^"]+)", [^)]*O_(?:WRONLY|RDWR|CREAT)')

PROBE = re.compile("[a-z0-9_]{8}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    tiny.make_weights(home / "weights")
    tiny.calibrated(tiny.make_model(home / "model"), tiny.EVERYBODY)
    return home


class World:
    """A folder that a process may write to, watched: its temporary files, state, and where it stands."""

    def __init__(self, root: Path, home: Path):
        self.root, self.home = root, home
        for name in ("tmp", "cache", "work"):
            (root / name).mkdir()

    def run(self, *arguments: str, more: dict[str, str], prepare: str = WHOLE, trace: Path | None = None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("GUIDE_HUB")}
        env |= {
            "TMPDIR": str(self.root / "tmp"), "HOME": str(self.root / "cache"),
            "XDG_CACHE_HOME": str(self.root / "cache"), "TORCH_HOME": str(self.root / "cache"),
            "GUIDE_HUB_WEIGHTS": str(self.home / "weights"), "GUIDE_HUB_STATE": str(self.root / "state"),
            "PYTHONPATH": os.pathsep.join([str(tiny.TESTS.parent), str(tiny.TESTS)]),
            "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80", **more,
        }  # fmt: skip
        code = f"{prepare}\nfrom guide_hub.cli import main\nmain()"
        watch = ["strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-o", str(trace)] if trace else []
        return subprocess.run(
            [*watch, sys.executable, "-c", code, *arguments],
            cwd=self.root / "work", env=env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def leftovers(self) -> dict[str, bytes]:
        """All files outside the output and the photos' folder."""
        parts = ("tmp", "cache", "work", "state")
        found = {f"{p}/{n}": data for p in parts for n, data in tiny.tree(self.root / p).items()}
        return {name: data for name, data in found.items() if not name.startswith("work/erased/")}


@pytest.fixture
def world(tmp_path, home):
    return World(tmp_path, home)


def faces_request(folder: Path, *files: str, hidden: str = FOLDER) -> Path:
    """A request of one person, whose photos are copies of the example's under names that nobody may read."""
    (folder / hidden).mkdir(parents=True)
    for name, file in zip(NAMES, files, strict=True):
        if file:
            shutil.copy(EXAMPLE / file, folder / hidden / f"{name}.jpg")
    lines = "".join(f"      - {hidden}/{name}.jpg\n" for name in NAMES)
    request = folder / "takedown.yaml"
    request.write_text(
        "schema: guide-hub/request/v1\nrequest_id: req-7\nreceived: 2999-01-01\nrequester_verified: true\n"
        f"identities:\n  - id: subject-a\n    images:\n{lines}",
        encoding="utf-8",
    )
    return request


def assert_silent(done: subprocess.CompletedProcess[str]) -> None:
    for word in (FOLDER, *NAMES):
        assert word not in done.stdout + done.stderr


def photo_pieces(request: Path) -> list[bytes]:
    """Pieces of every photo's file and pixels, long enough to be nobody else's."""
    pieces = []
    for identity in load_request(request).identities:
        for photo in identity.images:
            for data in (photo.path.read_bytes(), photo.open().tobytes()):
                pieces += [data[at : at + 48] for at in range(len(data) // 4, len(data) - 48, len(data) // 4)]
    return pieces


def strace_works() -> bool:
    try:
        return subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("more", [QUIET, SLOW_CHATTY], ids=["default", "debug"])
def test_an_erasure_leaves_nothing(world, more, tmp_path):
    request = faces_request(tmp_path / "case", "a1.jpg", "a2.jpg")
    recipe = tiny.make_recipe(tmp_path / "recipe")
    arguments = ["erase", "--repo", str(world.home / "model"), "--request", str(request),
                 "--output", "erased", "--recipe", recipe]  # fmt: skip
    done = world.run(*arguments, more=more)
    assert done.returncode == 0, done.stderr
    assert_silent(done)
    left = world.leftovers()
    assert [name for name in left if name.startswith(("tmp/", "work/"))] == []
    base = file_sha256(world.home / "model" / "model.safetensors")
    assert {name for name in left if name.startswith("state/")} == {
        "state/key", "state/replies/reply-req-7.md", "state/timings.json", f"state/{base}/.lock",
        f"state/{base}/0001.sealed",
    }  # fmt: skip # key, the draft of an answer, how long a step took and the sealed ledger: no progress
    assert not any((world.root / "state").glob("runs/*"))
    pieces = photo_pieces(request)
    assert len(pieces) > 8
    for name, data in {**left, **tiny.tree(world.root / "work" / "erased")}.items():
        assert not any(piece in data for piece in pieces), name
        assert not any(word.encode() in data for word in (FOLDER, *NAMES)), name


@pytest.mark.parametrize("more", [QUIET, CHATTY], ids=["default", "debug"])
def test_a_refused_request_names_no_photo(world, more, tmp_path):
    request = faces_request(tmp_path / "case", "a1.jpg", "")
    for arguments in (["check", str(request), "--faces"],
                      ["erase", "--repo", str(world.home / "model"), "--request", str(request)]):  # fmt: skip
        done = world.run(*arguments, more=more, prepare="")
        assert done.returncode == 2
        assert "takedown.yaml:9:9: identities[0].images[1] does not exist" in done.stderr
        assert_silent(done)
    assert world.leftovers() == {}


@pytest.mark.parametrize("more", [QUIET, CHATTY], ids=["default", "debug"])
def test_looking_for_faces_leaves_nothing(world, more, tmp_path):
    request = faces_request(tmp_path / "case", "a1.jpg", "a2.jpg")
    done = world.run("check", str(request), "--faces", more=more, prepare="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("good") == 2
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert_silent(done)
    assert world.leftovers() == {}


def test_a_crash_names_no_photo(world, tmp_path):
    """An error that nobody foresaw, in the middle of a photo, with its path in the error's text."""
    request = faces_request(tmp_path / "case", "a1.jpg", "a2.jpg")
    broken = (
        "from guide_hub import request\n"
        "def crash(photo): raise ValueError(f'cannot do {photo.path}')\n"
        "request.Photo.open = crash"
    )
    done = world.run("check", str(request), "--faces", more=QUIET, prepare=broken)
    assert done.returncode == 1
    assert "unexpected ValueError" in done.stderr
    assert_silent(done)
    assert world.leftovers() == {}


@pytest.mark.slow
@pytest.mark.skipif(not strace_works(), reason="needs strace")
def test_no_file_is_opened_for_writing_elsewhere(world, tmp_path):
    """As the system sees it, deleted files included."""
    request = faces_request(tmp_path / "case", "a1.jpg", "a2.jpg")
    recipe = tiny.make_recipe(tmp_path / "recipe")
    allowed = [str(world.root / "state"), str(world.root / "work"), "erased", "/dev/", "/proc/"]
    for arguments, prepare in (
        (["check", str(request), "--faces"], ""),
        (["erase", "--repo", str(world.home / "model"), "--request", str(request), "--output", "erased",
          "--recipe", recipe], WHOLE),
    ):  # fmt: skip
        trace = tmp_path / "trace"
        done = world.run(*arguments, more=QUIET, prepare=prepare, trace=trace)
        assert done.returncode == 0, done.stderr
        text = trace.read_text(encoding="utf-8", errors="replace")
        assert NAMES[0] in text, "the photo itself was read"
        opened = {path for path in WRITES.findall(text) if not path.startswith(tuple(allowed))}
        # with a file of four letters Python finds out whether a folder will do for temporary files
        opened = {path for path in opened if not PROBE.fullmatch(path.removeprefix(f"{world.root}/tmp/"))}
        assert opened == set()
