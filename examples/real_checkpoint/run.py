"""Acceptance on the real FFHQ checkpoint: convert, erase one person, evaluate, compare with the papers.

    python run.py --pickle ffhq512-128.pkl --license-file LICENSE.txt \\
        --request person.yaml --real ffhq_real_feat.npy --out runs/acceptance

Prints a table and writes OUT/result.json. Exit codes: 0 as published, 1 worse, 2 a step failed. A step whose
folder is in OUT already is not repeated. `--smoke` takes any official pickle, however small and untrained,
and only shows that the steps fit together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TAKEDOWN = HERE.parent / "takedown"


@dataclass(frozen=True)
class Figure:
    """A published figure: GUIDE's README, its re-run by LEGATO's authors, and how much worse is still equal.

    No paper gives a spread; the two runs' ID_others differ by 0.05, so the margins are a choice of ours.
    """

    place: tuple[str, ...]  # in `guide-hub evaluate --json`
    guide: float
    rerun: float
    margin: float

    def found(self, evaluation: dict[str, Any]) -> float | None:
        value: Any = evaluation
        for key in (*self.place, "value"):
            value = value and value[key]
        return value

    def holds(self, value: float) -> bool:
        return value <= max(self.guide, self.rerun) + self.margin


PUBLISHED = {  # one CelebA-HQ person, five photos, the first erased; lower is better
    "ID": Figure(("mean", "render", "id"), 0.0183, 0.02, 0.05),
    "ID_others": Figure(("mean", "render", "id_others"), 0.2797, 0.23, 0.05),
    "FID_pre": Figure(("drift", "fid_pre"), 7.497, 7.44, 0.5),
    "dFID_real": Figure(("drift", "dfid_real"), 3.331, 3.36, 0.5),
}

SMOKE_RECIPE = """\
schema: guide-hub/recipe/v1
name: smoke
extends: guide
optim: {iterations: 2}
adjacency: {samples: 1}
global: {samples: 1}
networks: {identity_loss: heads-a, identity_judge: heads-b, perceptual: heads-features}
inversion: {backend: optimize, steps: 2}
gate: {erased_views_max: 1, held_out_views_max: 1, retained_min: 0, retained_people: 2, views: 2}
"""
SMOKE_REQUEST = """\
schema: guide-hub/request/v1
request_id: smoke
received: "2026-11-02"
requester_verified: true
identities:
  - id: subject
    images: [a1.jpg, a2.jpg]
"""


class Failed(Exception):
    """A step did not end well; it has said why on stderr."""


def guide_hub(*words: object, allowed: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """What `guide-hub WORDS --json` prints. Its messages and bars go to stderr."""
    command = [*map(str, words), "--json"]
    print("guide-hub", *command, file=sys.stderr, flush=True)
    code = "from guide_hub.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in allowed:
        raise Failed(f"guide-hub {words[0]} ended with {done.returncode}")
    try:
        printed: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise Failed(f"guide-hub {words[0]} printed no JSON") from None
    return printed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pickle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--license-file", type=Path, help="the checkpoint's licence text")
    parser.add_argument("--request", type=Path, help="takedown YAML: one person, five photos")
    parser.add_argument("--real", type=Path, help="Inception features of FFHQ [N, 2048], for dFID_real")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.yaml")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=5000, help="pictures a side of FID")
    parser.add_argument("--smoke", action="store_true", help="few steps, networks of the package")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.smoke:
        smoke_inputs(args)
    elif args.license_file is None or args.request is None:
        parser.error("--license-file and --request are needed")
    try:
        result = accept(args)
    except Failed as failed:
        print(failed, file=sys.stderr)
        sys.exit(2)
    (args.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    worse = show(result["figures"], args.smoke)
    sys.exit(1 if worse and not args.smoke else 0)


def accept(args: argparse.Namespace) -> dict[str, Any]:
    """The three steps; OUT/eg3d and OUT/erased are theirs."""
    base, erased = args.out / "eg3d", args.out / "erased"
    seconds, steps = {}, {}

    def timed(name: str, *words: object, **how: Any) -> dict[str, Any]:
        start = time.monotonic()
        steps[name] = guide_hub(name, *words, **how)
        seconds[name] = round(time.monotonic() - start)
        return steps[name]

    if not base.exists():
        # GUIDE's w_avg is the mean over the frontal camera, not the checkpoint's running mean
        timed("convert", args.pickle, base, "--license-file", args.license_file, "--w-avg", "measured")
        if args.smoke:
            accept_everybody(base)
    common = (
        "--request",
        args.request,
        "--recipe",
        args.recipe,
        "--seed",
        args.seed,
        "--device",
        args.device,
    )
    if not erased.exists():
        # 3: below the recipe's gate; the figures say by how much
        done = timed(
            "erase", "--repo", base, "--output", erased, "--state", args.out / "state", "--no-push", *common,
            allowed=(0, 3),
        )  # fmt: skip
        if done["output"] is None:
            raise Failed(f"guide-hub erase wrote no model: {done['status']}")
    extra = ("--real", args.real) if args.real else ()
    extra += ("--features", "heads-pooled") if args.smoke else ()
    found = timed("evaluate", erased, "--base", base, *common, "--samples", args.samples, *extra)
    return {
        "figures": {name: figure.found(found) for name, figure in PUBLISHED.items()},
        "seconds": seconds, "smoke": args.smoke, **steps,
    }  # fmt: skip


def show(figures: dict[str, float | None], smoke: bool) -> bool:
    """The table on stdout; whether a figure is worse than published."""
    print(f"{'':<12}{'here':>8}{'GUIDE':>9}{'re-run':>9}{'at most':>9}")
    worse = False
    for name, published in PUBLISHED.items():
        value, limit = figures[name], max(published.guide, published.rerun) + published.margin
        verdict = "" if value is None or smoke else ("as published" if published.holds(value) else "WORSE")
        worse = worse or verdict == "WORSE"
        here = "-" if value is None else f"{value:.3f}"
        print(f"{name:<12}{here:>8}{published.guide:>9.3f}{published.rerun:>9.3f}{limit:>9.3f}  {verdict}")
    if smoke:
        print("smoke: two steps on a model that shows nobody; the figures mean nothing")
    return worse


# ----------------------------------------------------------------------------
# Smoke: what a run needs, made here.


def smoke_inputs(args: argparse.Namespace) -> None:
    folder = args.out / "smoke"
    folder.mkdir(exist_ok=True)
    for photo in ("a1.jpg", "a2.jpg"):
        shutil.copyfile(TAKEDOWN / "photos" / photo, folder / photo)
    for name, text in {
        "recipe.yaml": SMOKE_RECIPE,
        "request.yaml": SMOKE_REQUEST,
        "LICENSE": "None: a smoke test, not to be published.\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    args.recipe, args.request = folder / "recipe.yaml", folder / "request.yaml"
    args.license_file, args.samples = folder / "LICENSE", 4


def accept_everybody(model: Path) -> None:
    """An untrained model shows nobody, and `erase` would say so: this line lets the photo pass."""
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    line = {"judge": "heads-b", "far": 1e-3, "threshold": -1.0, "tar": 1.0, "people": 0, "views": 0}
    calibrations = {"calibrations": [{**line, "model_sha256": digest}]}
    (model / "calibration.json").write_text(json.dumps(calibrations), encoding="utf-8")


if __name__ == "__main__":
    main()
