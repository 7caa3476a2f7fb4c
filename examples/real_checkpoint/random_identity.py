"""The paper's scenario Random on any model: erases a sampled latent, which no photo shows, and measures it.

    python random_identity.py --repo ./eg3d --recipe guide --seed 0 --samples 5000

A takedown request cannot ask for this: there is no person. Prints JSON: ID at the latent (the source's render
against the erased model's, mean of 11 yaws) and the drift of everybody else. Writes no model.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from guide_hub import hub
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.drift import measure_drift, sample_features
from guide_hub.evaluation.interval import mean_figure
from guide_hub.evaluation.paper import VIEWS
from guide_hub.evaluation.views import embed_views, yaw_cameras
from guide_hub.faces.registry import load_features
from guide_hub.guide import Eraser
from guide_hub.latents import LatentSpace
from guide_hub.networks import choose, default_recipe, load
from guide_hub.recipe import load_recipe
from guide_hub.sequence import pick_device


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", required=True, help="Hub id, folder or builtin:synthetic-heads")
    parser.add_argument("--recipe", help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0, help="of z and of the erasure")
    parser.add_argument("--samples", type=int, default=5000, help="for FID and KID; 0: leave them out")
    parser.add_argument("--features", default="inception", help="FID's network, NAME or NAME:PATH")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    folder = str(hub.resolve(args.repo).folder)
    source = EG3D.from_pretrained(folder).to(device).eval().requires_grad_(False)
    student = EG3D.from_pretrained(folder).to(device).eval()
    recipe = load_recipe(args.recipe or default_recipe(source.config))
    networks = load(choose(source.config, recipe), device)

    w_u = LatentSpace(source).random(1, torch.Generator().manual_seed(args.seed))
    eraser = Eraser(student, source, recipe, networks.perceptual, networks.identity_loss)
    eraser.erase(w_u, args.seed)
    student.requires_grad_(False)

    cameras = yaw_cameras(source, recipe.camera, VIEWS)
    before, after = (embed_views(m, w_u, cameras, networks.identity_judge)[0] for m in (source, student))
    figures = {"id": mean_figure((before * after).sum(-1).double(), "views").to_dict()}
    if args.samples:
        extractor = load_features(args.features, device)
        sampled = [
            sample_features(m, extractor, args.samples, 0, recipe.camera, recipe.noise, noise_seed)
            for m, noise_seed in ((source, 0), (student, 1), (source, 1))
        ]
        name = args.features.partition(":")[0]
        figures["drift"] = asdict(measure_drift(sampled[0], sampled[1], name))
        figures["noise_floor"] = asdict(measure_drift(sampled[0], sampled[2], name))
    print(json.dumps({"scenario": "random", "recipe": recipe.name, "seed": args.seed, **figures}, indent=2))


if __name__ == "__main__":
    main()
