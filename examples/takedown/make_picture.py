"""Makes the README's picture from the private sheets of the example, whose people are renders of nobody.

guide-hub erase --repo builtin:synthetic-heads --request takedown.yaml --report runs/report
python make_picture.py --report runs/report --out ../../docs/before_after.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

TILE, LABEL = 256, 16  # pixels of a picture and of its caption in the sheets
COLUMNS = 5


def rows(sheet: Path, wanted: list[int]) -> list[Image.Image]:
    """The sheet's rows by number, with their captions, cut to COLUMNS pictures."""
    picture = Image.open(sheet)
    height = TILE + LABEL
    return [picture.crop((0, r * height, COLUMNS * TILE, (r + 1) * height)) for r in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    parts = rows(args.report / "subject-a.png", [1, 2]) + rows(args.report / "retained.png", [0, 1])
    whole = Image.new("RGB", (parts[0].width, sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.LANCZOS).save(
        args.out, optimize=True
    )


if __name__ == "__main__":
    main()
