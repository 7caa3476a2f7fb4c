"""A takedown from request to purge: the real command line, on a Hub in this process that is gone afterwards.

    python story.py                            # needs no network and no account
    python story.py --transcript transcript.txt

`org/heads` serves the weights of `builtin:synthetic-heads`. Two people ask to be taken out; both are renders
of a morphable head (see ../takedown). Nothing is kept but the transcript.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from loopback_hub import WRITE_TOKEN, LoopbackHub

REPO = "org/heads"
MODEL = ROOT / "guide_hub" / "builtin" / "synthetic_heads"
PUBLISHED = ("README.md", "LICENSE", "config.json", "model.safetensors")
REQUEST = ROOT / "examples" / "takedown" / "takedown.yaml"
GUIDE_HUB = "from guide_hub.cli import main; main()"
WIDTH = 80


@dataclass(frozen=True)
class Command:
    """`guide-hub WORDS`, and the exit code that it must have."""

    why: str
    words: tuple[str, ...]
    code: int = 0

    def __str__(self) -> str:
        return shlex.join(["guide-hub", *self.words])


@dataclass(frozen=True)
class Click:
    """What a maintainer does on the Hub's pages; `do` is done to the Hub instead."""

    why: str
    do: Callable[[LoopbackHub], object]


@dataclass(frozen=True)
class Place:
    """Where commands run. `python` starts guide-hub, also where no console script is installed."""

    hub: LoopbackHub
    folder: Path
    python: str = GUIDE_HUB

    def start(self, command: Command, output: TextIO | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """The command, stdout and stderr together. It sees no settings of the user's but those of torch."""
        ours = ("GUIDE_HUB_", "HF_", "HUGGING_FACE_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours) or k == "GUIDE_HUB_WEIGHTS"}
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        (self.folder / "tmp").mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", self.python, *command.words],
            cwd=self.folder,
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONUNBUFFERED": "1",
                "COLUMNS": str(WIDTH),
                "TMPDIR": str(self.folder / "tmp"),
                "GUIDE_HUB_STATE": "state",
                "HF_HOME": str(self.folder / "huggingface"),
                "HF_ENDPOINT": self.hub.endpoint,
                "HF_TOKEN": WRITE_TOKEN,
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1,localhost",
                "no_proxy": "127.0.0.1,localhost",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def publish(hub: LoopbackHub, model: Path) -> None:
    """The base model as its maintainer published it: weights, config, card and licence."""
    hub.create_repo(REPO, {name: (model / name).read_bytes() for name in PUBLISHED})


def steps(requests: Sequence[str], more: Sequence[str] = ()) -> list[Command | Click]:
    """The story of two requests, given as the command line names them; `more` goes to `erase`."""

    def erase(number: int, output: str, why: str) -> Command:
        words = ["erase", "--repo", REPO, "--request", requests[number - 1], "--output", output, *more]
        return Command(why, tuple(words))

    def review(number: int) -> list[Command | Click]:
        verify = ("verify", REPO, "--revision", f"refs/pr/{number}")
        return [
            Command("A reviewer checks the pull request.", verify),
            Click("The reviewer merges it.", lambda hub: hub.merge(REPO, number)),
        ]

    def removed(hub: LoopbackHub) -> None:
        for number in (1, 2):
            hub.delete_pr_ref(REPO, number)

    return [
        erase(1, "erased-1", "Request 1: take the person out, open a pull request."),
        *review(1),
        erase(2, "erased-2", "Request 2 starts from the model without the first person."),
        *review(2),
        erase(1, "erased-3", "Request 1 comes in once more."),
        Command("Anybody can check what is published, without key or photos.", ("verify", REPO)),
        Command("What does the repository still serve? Exit code 3: a gate for CI.", ("audit", REPO), 3),
        Command("What would remove it? Nothing is done yet.", ("purge", REPO), 3),
        Command("Do it.", ("purge", REPO, "--yes")),
        Click(
            'Only a person can remove the pull requests\' refs: "Delete ref" on the page of each.', removed
        ),
        Command("Is anything left?", ("audit", REPO)),
        Command("The published model is still what its record says.", ("verify", REPO)),
    ]


def write_requests(folder: Path) -> list[str]:
    """The two people of ../takedown as two requests, with their photos; their names within `folder`."""
    whole = yaml.safe_load(REQUEST.read_text(encoding="utf-8"))
    shutil.copytree(REQUEST.parent / "photos", folder / "photos")
    names = []
    for number, identity in enumerate(whole["identities"], 42):
        request = {**whole, "request_id": f"2026-{number:04}", "identities": [identity]}
        names.append(f"2026-{number:04}.yaml")
        (folder / names[-1]).write_text(yaml.safe_dump(request, sort_keys=False), encoding="utf-8")
    return names


def tell(place: Place, story: Sequence[Command | Click], say: Callable[[str], None]) -> list[int]:
    """Runs it all and gives the exit codes; stops at the first that is not the step's."""
    codes = []
    for step in story:
        say("\n" + textwrap.fill(step.why, WIDTH, initial_indent="# ", subsequent_indent="# "))
        if isinstance(step, Click):
            step.do(place.hub)
            continue
        say(f"$ {step}")
        began = time.monotonic()
        process = place.start(step)
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip().replace(place.hub.endpoint, "http://127.0.0.1:PORT"))
        codes.append(process.wait())
        say(f"[exit code {codes[-1]}, {time.monotonic() - began:.0f} s]")
        if codes[-1] != step.code:
            raise SystemExit(f"{step}: exit code {codes[-1]} instead of {step.code}")
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="write what is shown there, too")
    transcript: Path | None = parser.parse_args().transcript
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    hub = LoopbackHub()
    hub.start()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="takedown-story-") as name:
        folder = Path(name)
        say(f"# {REPO} serves the weights of builtin:synthetic-heads.")
        publish(hub, MODEL)
        tell(Place(hub, folder), steps(write_requests(folder)), say)
    hub.stop()
    say(f"\n# The whole story: {(time.monotonic() - began) / 60:.1f} minutes.")
    if transcript is not None:
        transcript.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
