"""One order by one recipe, as far as the time goes: a run of `settings.json`.

    printf 'schema: guide-hub/recipe/v1\\nextends: heads-many\\nreplay: {weight: 2}\\n' > heavier.yaml
    python setting.py heavier heavier.yaml --people 20 --seconds 300 --device cuda

Writes OUT/NAME-seed0.json as `run.py` does. Run again, it goes on where it stood, as long as the cache is
there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent
sys.path[:0] = [str(STUDY)]

import run as study
from guide_hub.interrupt import Stopped
from guide_hub.recipe import load_recipe
from lab import Lab


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("recipe", help="by name, or a file")
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the order's, too")
    parser.add_argument("--seconds", type=float, help="then it stops where it is")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=STUDY / "cache", help="private: weights and latents")
    parser.add_argument("--out", type=Path, default=STUDY / "cache" / "settings")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    args.out.mkdir(parents=True, exist_ok=True)
    study.MODES[args.name], study.RESULTS = lambda _: recipe, args.out
    if args.seconds:
        timer = threading.Timer(args.seconds, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
    cell = study.Study(Lab(study.RECIPE, args.device), args.name, args.seed, args.people, args.cache)
    try:
        cell.run()
    except Stopped:
        print(f"{len(cell.rows)} people in the time there was", file=sys.stderr)


if __name__ == "__main__":
    main()
