"""Puts the trained networks together as the bundle that ships in the package.

    python make_bundle.py --runs runs --out ../../guide_hub/builtin/synthetic_heads

The generator stays in float32; the four smaller networks are stored in float16. The calibration of the judge
is measured here, for exactly these weights, and so are the directions of W that the loss's recogniser does
not see. `measure.py` then writes the figures and the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import calibrate, orbit
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces.registry import load_identity
from guide_hub.guide.kin import keep_kin, key_of, kin_of
from guide_hub.recipe import load_recipe
from guide_hub.record import file_sha256
from train_generator import CONFIG

DOMAIN = {
    "name": "synthetic-heads",
    "recipe": "heads-fast",
    "identity_loss": "heads-a",
    "identity_judge": "heads-b",
    "perceptual": "heads-features",
    "inversion": "heads-inversion",
}
FILES = {
    "encoder-a": "encoder_a.safetensors",
    "encoder-b": "encoder_b.safetensors",
    "inversion": "inversion.safetensors",
}
CALIBRATION_PEOPLE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only-calibrate", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.only_calibrate:
        model = EG3D(dataclasses.replace(CONFIG, domain=DOMAIN))
        model.load_state_dict(torch.load(args.runs / "generator" / "generator.pt", weights_only=True))
        model.save_pretrained(args.out)
        for run, name in FILES.items():
            state = torch.load(args.runs / run / "network.pt", weights_only=True)
            half = {
                k: v.half() if v.is_floating_point() else v
                for k, v in state.items()
                if "num_batches" not in k
            }
            save_file(half, args.out / name, metadata={"format": "pt"})
    model = EG3D.from_pretrained(str(args.out)).eval().requires_grad_(False)
    judge_file = args.out / FILES["encoder-b"]
    judge = load_identity(f"heads-b:{judge_file}")
    recipe = load_recipe("heads")
    cameras = yaw_cameras(model, recipe.camera, 3)
    digest = file_sha256(args.out / "model.safetensors")
    entries = []
    for far in (1e-3, 1e-4):
        found = calibrate(model, judge, "heads-b", cameras, far, people=CALIBRATION_PEOPLE)
        found = dataclasses.replace(found, judge_sha256=file_sha256(judge_file), camera=orbit(recipe.camera))
        entries.append({"model_sha256": digest, **found.to_dict()})
    (args.out / "calibration.json").write_text(json.dumps({"calibrations": entries}, indent=2) + "\n")
    loss = load_identity(f"heads-a:{args.out / FILES['encoder-a']}")
    front = cameras[1:2]
    keep_kin(args.out, kin_of(model, loss, front), key_of(model, loss, front))
    total = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"{total / 1e6:.2f} MB", json.dumps(entries))
    load_file(args.out / "model.safetensors")


if __name__ == "__main__":
    main()
