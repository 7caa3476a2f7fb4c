"""Makes the README's picture of the example, whose people are renders of nobody: before above after.

guide-hub erase --repo builtin:synthetic-heads --request takedown.yaml --output erased
guide-hub invert --repo builtin:synthetic-heads --request takedown.yaml --report found
python make_picture.py --erased erased --latents found/latents.safetensors --out ../../docs/before_after.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.faces.registry import BUNDLE
from guide_hub.latents import LatentSpace
from guide_hub.recipe import load_recipe
from guide_hub.sheets import sheet

COLUMNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--erased", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    models = {"before": EG3D.from_pretrained(BUNDLE), "after": EG3D.from_pretrained(args.erased)}
    camera, rows = load_recipe("heads").camera, {}
    for identity, w in sorted(load_file(args.latents).items()):
        for when, model in models.items():
            yaws = yaw_cameras(model, camera, COLUMNS)
            rows[f"the erased {identity.rpartition('/')[2]}, {when}"] = render_views(model, w, yaws)[0]
    for when, model in models.items():
        people = LatentSpace(model).random(COLUMNS, torch.Generator().manual_seed(0))
        front = yaw_cameras(model, camera, 1)
        rows[f"people who stay, {when}"] = render_views(model, people, front)[:, 0]
    sheet(rows).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
