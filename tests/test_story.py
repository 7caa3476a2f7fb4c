"""examples/takedown_story on a tiny model: every exit code, what the server saw, and kill -9 on the way."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_erasure as tiny
import wire
from loopback_hub import LoopbackHub

from guide_hub.hub import resolve
from guide_hub.verify import verify

EXAMPLE = tiny.TESTS.parent / "examples" / "takedown_story"
FOLDER, PHOTOS = "jane_doe_private", ("jane_at_the_beach.png", "jane_1987.png")
RECORD, WEIGHTS = "erasure_record.json", "model.safetensors"
KILLS, STORIES = 20, 4
PYTHON = f"""
import sys
sys.path.insert(0, {str(tiny.TESTS)!r})
if sys.argv[1] == "erase":
    import datetime
    import tiny_erasure
    from guide_hub import pipeline, publish
    from guide_hub.faces import crops
    crops.read_faces = tiny_erasure.whole_photos
    pipeline.find_threshold = lambda *_: tiny_erasure.EVERYBODY
    publish.today = lambda: datetime.date(2026, 1, 2)
"""
MAIN = "\nfrom guide_hub.cli import main; main()"


@dataclass
class Stage:
    """A new Hub and a new folder for every story that is told."""

    story: ModuleType
    hub: LoopbackHub
    model: Path
    recipe: str
    folder: Path

    def begin(self, name: str, prepare: str = "") -> tuple[Any, list[Any]]:
        """Place and steps. `prepare`: further Python before the command starts."""
        folder = self.folder / name
        self.hub.reset()
        self.story.publish(self.hub, self.model)
        requests = [
            tiny.make_request(folder / FOLDER, f"req-{n}", {f"subject-{n}": (photo,)}).relative_to(folder)
            for n, photo in enumerate(PHOTOS, 1)
        ]
        (folder / "state").mkdir(mode=0o700)
        (folder / "state" / "key").write_text("07" * 32 + "\n")
        (folder / "state" / "key").chmod(0o600)
        place = self.story.Place(self.hub, folder, PYTHON + prepare + MAIN)
        return place, self.story.steps([*map(str, requests)], ["--recipe", self.recipe, "--device", "cpu"])

    @property
    def served(self) -> dict[str, bytes]:
        return self.hub.files(self.story.REPO)

    def check(self) -> None:
        """Every commit of main and of the pull requests is the base or a whole erased model."""
        time.sleep(0.1)  # what a dead client has asked for is done to the end
        with self.hub.lock:
            repo = self.hub.repos[self.story.REPO]
            tips = {oid for ref, oid in repo.refs.items()}
            commits = {c.oid for tip in tips for c in repo.history(tip)}
            head = self.hub.head(self.story.REPO)
        base = {name: (self.model / name).read_bytes() for name in self.story.PUBLISHED}
        for commit in sorted(commits):
            files = self.hub.files(self.story.REPO, commit)
            if WEIGHTS not in files:
                assert commit != head, "purge has taken weights from main"
            elif RECORD not in files:
                assert files == base
            else:
                assert verify(resolve(self.story.REPO, commit)).failed == []


@pytest.fixture
def stage(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    sys.modules.pop("story", None)
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(tmp_path / "weights")))
    model = tiny.make_model(tmp_path / "model")
    return Stage(importlib.import_module("story"), hub, model, tiny.make_recipe(tmp_path), tmp_path)


def run(place: Any, command: Any) -> tuple[int, str]:
    process = place.start(command)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def kept(place: Any) -> set[str]:
    """Names of everything that lies about after a story, but for caches and the timings of whole runs."""
    paths = (p.relative_to(place.folder) for p in place.folder.rglob("*"))
    names = {p.as_posix() for p in paths if p.parts[0] != "huggingface" and "torchinductor" not in p.name}
    return names - {"state/timings.json"}


def check_private(stage: Stage, place: Any) -> None:
    """No byte that was sent, and no file that stays, shows the people who asked."""
    photos = [place.folder / FOLDER / name for name in PHOTOS]
    secrets = [FOLDER.encode(), b"erased-1", str(place.folder).encode(), b"tiny.yaml"]
    secrets += [trace for photo in photos for trace in wire.of_photo(photo)]
    assert wire.leaks(stage.hub.sent(), secrets) == []
    for path in place.folder.rglob("*"):
        if path.is_file() and path.parent.name != FOLDER:
            assert wire.leaks(path.read_bytes(), secrets[4:]) == [], path.name


def finish(place: Any, step: Any) -> None:
    """What a user does after a kill: the same command."""
    code, said = run(place, step)
    assert code == step.code, said


def test_story(stage: Stage) -> None:
    place, steps = stage.begin("story")
    lines: list[str] = []
    codes = stage.story.tell(place, steps, lines.append)
    assert codes == [0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0]
    said = "\n".join(lines)
    assert "org/heads: clean" in said
    assert stage.hub.endpoint not in said
    assert str(place.folder) not in said
    assert [pull.status for pull in stage.hub.repos[stage.story.REPO].pulls] == ["merged", "merged"]
    assert stage.served[WEIGHTS] == (place.folder / "erased-2" / WEIGHTS).read_bytes()
    assert not (place.folder / "erased-3").exists()
    assert {name for name in kept(place) if name.startswith("tmp/")} == set()
    sent = stage.hub.sent()
    assert stage.served[WEIGHTS] in sent  # the search finds what is there
    check_private(stage, place)
    stage.check()


def test_commit_whose_answer_nobody_reads_makes_no_second_pull_request(stage: Stage) -> None:
    place, steps = stage.begin("killed")
    process = place.start(steps[0], subprocess.DEVNULL)

    def killed() -> None:
        process.kill()
        process.wait()

    stage.hub.trouble("POST", "/commit/", then=killed)
    assert process.wait(timeout=300) == -signal.SIGKILL
    (pull,) = stage.hub.repos[stage.story.REPO].pulls
    stage.check()
    finish(place, steps[0])
    elsewhere = stage.story.Place(stage.hub, stage.folder / "another machine", place.python)
    (stage.folder / "another machine").mkdir()
    os.symlink(place.folder / FOLDER, elsewhere.folder / FOLDER)
    code, said = run(elsewhere, steps[0])  # as a CI job does, without the folder of the killed run
    assert code == 0
    assert f"discussions/{pull.num}" in said
    assert stage.hub.repos[stage.story.REPO].pulls == [pull]
    words = [word.replace("req-1", "req-2") for word in steps[0].words]  # another's result is in the way
    code, said = run(place, type(steps[0])("", tuple(words)))
    assert (code, "the output folder is not empty" in said) == (2, True)


@pytest.mark.slow
def test_killed_at_twenty_moments(stage: Stage) -> None:
    """SIGKILL at random moments of the story; a user goes on after each, and ends where others do."""
    place, steps = stage.begin("whole")
    commands = [step for step in steps if isinstance(step, stage.story.Command)]
    seconds = []
    for step in steps:
        began = time.monotonic()
        if step in commands:
            assert run(place, step)[0] == step.code
            seconds.append(time.monotonic() - began)
        else:
            step.do(stage.hub)
    whole = ending(stage, place)
    dice = random.Random(5)
    for n in range(STORIES):
        moments: dict[int, list[float]] = {}
        for k in dice.choices(range(len(commands)), seconds, k=KILLS // STORIES):
            moments.setdefault(k, []).append(dice.random() * seconds[k])
        place, steps = stage.begin(f"story-{n}")
        done = -1
        for step in steps:
            if isinstance(step, stage.story.Click):
                step.do(stage.hub)
                continue
            done += 1
            for moment in moments.get(done, []):
                process = place.start(step, subprocess.DEVNULL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                process.kill()
                process.wait()
                stage.check()
            finish(place, step)
            stage.check()
        end = ending(stage, place)
        assert end["left"] ^ whole["left"] == set(), moments
        assert end == whole, moments
        check_private(stage, place)


def ending(stage: Stage, place: Any) -> dict[str, Any]:
    """What is left of a story."""
    repo = stage.hub.repos[stage.story.REPO]
    return {
        "served": stage.served,
        "stored": sorted(repo.stored),
        "log": [commit.title for commit in stage.hub.log(repo.id)],
        "refs": sorted(repo.refs),
        "pulls": [(pull.title, pull.status) for pull in repo.pulls],
        "left": kept(place),
    }


WINDOWS = {
    "in the half-written folder": "from guide_hub import record\nrecord.write_sums = die",
    "before the progress is cleared": "from guide_hub.checkpoint import Checkpoint\nCheckpoint.clear = die",
    "before the push": "pipeline.deliver = die",
    "between upload and commit": "from huggingface_hub import HfApi\nHfApi.create_commit = die",
}


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_killed_in_a_window(stage: Stage, window: str) -> None:
    """Where random moments seldom fall."""
    place, steps = stage.begin("whole")
    assert run(place, steps[0])[0] == 0
    whole = ending(stage, place)
    die = "\ndef die(*_, **__):\n    import os\n    os.kill(os.getpid(), 9)\n"
    killed, _ = stage.begin("killed", die + WINDOWS[window])
    assert run(killed, steps[0])[0] == -signal.SIGKILL
    stage.check()
    finish(stage.story.Place(stage.hub, killed.folder, place.python), steps[0])
    stage.check()
    end = ending(stage, killed)
    assert end["left"] ^ whole["left"] == set()
    assert end == whole
