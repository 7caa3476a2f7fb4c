"""The ladder of cuts on `builtin:synthetic-heads`: every rung erases the same people, and the gate judges.

    python run.py --head face_model.safetensors                    # 10 people x 3 seeds a rung
    python run.py --head ... --only heads-fast --seeds 1           # one rung, one seed
    python run.py --table                                          # RESULTS.md from results/

A killed run goes on where it stood; a cell whose rung has changed counts as missing. People are those of
../paper_tables (OOD): held-out identities in light that the model never saw, as requests of four photos: as
`guide-hub erase` does, three find the person together and the fourth is held out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "paper_tables"), str(HERE.parent / "synthetic_heads")]

import torch
from torch import Tensor

from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.identity import measure_person
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.faces.registry import BUNDLE
from guide_hub.guide.kin import load_kin
from guide_hub.inversion import Inverter, Quality, invert_person, measure_quality
from guide_hub.modes.neighbours import nearest
from guide_hub.networks import choose, load
from guide_hub.pipeline import RETAINED_SEED, RETAINED_VIEWS
from guide_hub.recipe import load_recipe
from rungs import RUNGS, Rung, climbing
from table import write_table

RESULTS = HERE / "results"
PEOPLE = 10
TOGETHER = 20  # retained people who are looked at together


class Bench:
    """The builtin model, its networks, its people, and the source's side of what is measured."""

    def __init__(self, head: Path | None, cache: Path, device: str = "cpu") -> None:
        from people import Studio

        cache.mkdir(parents=True, exist_ok=True)
        self.cache = cache
        self.device = torch.device(device)
        self.source = self.model().requires_grad_(False)
        recipe = load_recipe("heads")
        self.gate = recipe.gate
        names = choose(self.source.config, recipe)
        self.networks = nets = load(names, self.device)
        self.cameras = yaw_cameras(self.source, recipe.camera, recipe.gate.views)
        self.three = yaw_cameras(self.source, recipe.camera, RETAINED_VIEWS)
        self.kin = load_kin(self.source, nets.identity_loss, self.three[1:2], [BUNDLE])
        weights = file_sha256(BUNDLE / "model.safetensors")
        calibration = shipped(BUNDLE, weights, names.identity_judge, recipe.gate.far, recipe.camera)
        assert calibration is not None
        self.threshold = calibration.threshold
        inverter = Inverter(
            self.source, recipe.inversion, nets.perceptual, nets.identity_loss, nets.inversion
        )
        self.studio = Studio(head, cache, inverter, nets.identity_judge, self.cameras, self.threshold)
        self.space = inverter.space
        self.retained: dict[int, tuple[Tensor, list[tuple[Tensor, list[Tensor]]]]] = {}

    def model(self) -> EG3D:
        return EG3D.from_pretrained(str(BUNDLE), map_location=self.device).eval()

    def cell(self, rung: Rung, index: int, seed: int) -> dict[str, Any]:
        """Erases person `index` under `seed` and measures as `guide-hub erase` does."""
        places, points, photos, fitted = self.request(index)
        student = self.model()
        nets = self.networks
        with climbing(rung) as make:
            eraser = make(student, self.source, rung.recipe, nets.perceptual, nets.identity_loss)
            if rung.recipe.adjacency.towards == "kin":
                eraser.kin = self.kin
            wall, cpu = time.perf_counter(), time.process_time()
            if count := rung.recipe.sequence.protect:
                erasure = eraser.target(places[:1])
                eraser.protected = nearest(eraser, [erasure], [erasure.w_u], count)
            steps = eraser.run(places, seed)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        student.requires_grad_(False)
        measure = measure_person(
            self.source, student, nets.identity_judge, photos, points, self.cameras, self.threshold, fitted
        )
        retained, distance = self._retained(student, seed)
        others = measure.others_after.verified if measure.others_after else None
        gone = self.gate.gone(measure.after.verified, others)
        return {
            "person": index, "seed": seed, "steps": steps,
            "cpu_s": round(cpu, 2), "wall_s": round(wall, 2),
            "verified": measure.after.verified, "others_verified": others,
            "id": round(measure.guide, 4), "held_out_photos": len(points) - 1,
            "retained": retained, "retained_lpips": round(distance, 5),
            "passed": gone and bool(retained >= self.gate.retained_min),
        }  # fmt: skip

    def request(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """As `erase` finds the person: `places` and `points` of `inversion.Person`, the photos that count,
        and how many of them found the person. It takes a minute, and is kept."""
        file = self.cache / f"request-ood-{index}.pt"
        if not file.is_file():
            photos = self.studio.person("ood", index).photos
            assert photos is not None
            found = invert_person(
                self.studio.inverter, photos.to(self.device), None, self._quality, apart=True
            )
            part = file.with_suffix(".part")
            kept = {"places": found.places, "points": found.points, "photos": photos[found.measured]}
            torch.save({**kept, "fitted": found.fitted}, part)
            part.replace(file)
        kept = torch.load(file, map_location=self.device, weights_only=True)
        return kept["places"], kept["points"], kept["photos"], kept["fitted"]

    def _quality(self, photos: Tensor, ws: Tensor, c: Tensor) -> Quality:
        nets = self.networks
        return measure_quality(
            self.source, nets.identity_judge, nets.perceptual, photos, ws, c, self.cameras, self.threshold
        )

    @torch.no_grad()
    def _retained(self, student: EG3D, seed: int) -> tuple[float, float]:
        """`measure_retained`, with the source's side made once a seed."""
        judge, perceptual = self.networks.identity_judge, self.networks.perceptual
        if seed not in self.retained:
            rng = torch.Generator().manual_seed(RETAINED_SEED + seed)
            ws = self.space.random(self.gate.retained_people, rng)
            pictures = [render_views(self.source, w, self.three).flatten(0, 1) for w in ws.split(TOGETHER)]
            self.retained[seed] = ws, [(judge(p), perceptual.features(p)) for p in pictures]
        ws, source = self.retained[seed]
        cosines, distances = [], []
        for w, (embedding, maps) in zip(ws.split(TOGETHER), source, strict=True):
            pictures = render_views(student, w, self.three).flatten(0, 1)
            cosines.append((judge(pictures) * embedding).sum(-1))
            distances.append(perceptual.distance(perceptual.features(pictures), maps))
        verified = (torch.cat(cosines) >= self.threshold).double().mean()
        return round(float(verified), 4), float(torch.cat(distances).mean())


def inputs(rung: Rung, device: str) -> dict[str, Any]:
    """What a rung's cells hang on."""
    return {
        "device": device,
        "model": file_sha256(BUNDLE / "model.safetensors"),
        "recipe": rung.recipe.digest(),
        **{k: v for k, v in dataclasses.asdict(rung).items() if k not in ("text", "options")},
    }


def load_cells(rung: Rung, device: str) -> list[dict[str, Any]]:
    file = RESULTS / f"{rung.name}.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found["cells"] if found.get("inputs") == inputs(rung, device) else []


def store(rung: Rung, cells: list[dict[str, Any]], device: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f".{rung.name}.{os.getpid()}.part"
    cells = sorted(cells, key=lambda cell: (cell["seed"], cell["person"]))
    lines = ",\n  ".join(json.dumps(cell) for cell in cells)
    text = f'{{"rung": {json.dumps(rung.name)}, "text": {json.dumps(rung.text)},\n '
    part.write_text(f'{text}"inputs": {json.dumps(inputs(rung, device))},\n "cells": [\n  {lines}\n ]}}\n')
    part.replace(RESULTS / f"{rung.name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, help="the head file of ../synthetic_heads/fetch_head.py")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="private: people's latents")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="rungs")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write RESULTS.md")
    args = parser.parse_args()
    rungs = [rung for rung in RUNGS if not args.only or rung.name in args.only]
    if not args.table:
        bench = Bench(args.head, args.cache, args.device)
        for seed in range(args.seeds):
            for rung in rungs:
                for index in range(args.people):
                    cells = load_cells(rung, args.device)
                    if any((c["person"], c["seed"]) == (index, seed) for c in cells):
                        continue
                    cell = bench.cell(rung, index, seed)
                    print(rung.name, json.dumps(cell), file=sys.stderr, flush=True)
                    store(rung, [*cells, cell], args.device)
    write_table(RESULTS, HERE / "RESULTS.md", [rung.name for rung in RUNGS])


if __name__ == "__main__":
    main()
