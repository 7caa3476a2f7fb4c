"""Measures the inversion: photos of people that nothing was trained on, into `builtin:synthetic-heads`.

    python measure_inversion.py --head FILE --people 100 [--starts 4]
    python measure_inversion.py --full-size [--device cuda]

Four photos a person, to 40 degrees of yaw, each in another expression, light, tint and crop, a quarter of
them with glasses; through detection, crop, encoder and refinement to the judge, whom no loss uses: each photo
alone, and three together with the fourth to test them. `starts` people go from the encoder's answer and from
`w_avg`. Prints JSON, and on stderr a line a person. --full-size:
seconds a step and memory of an EG3D with FFHQ's sizes and seeded weights instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import heads
from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.detection import Detector
from guide_hub.faces.identity import PspEncoder
from guide_hub.faces.networks import ir_se50
from guide_hub.faces.perceptual import Lpips
from guide_hub.faces.pose import fit_camera
from guide_hub.faces.quality import check_people
from guide_hub.faces.registry import load_identity, load_inversion, load_perceptual
from guide_hub.inversion import Inversion, Inverter, Quality, invert_person, measure_quality
from guide_hub.recipe import load_recipe
from guide_hub.request import Identity, Photo
from make_data import photo_camera, photo_extra, photo_factors

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "guide_hub" / "builtin" / "synthetic_heads"
SEED, FIRST = 4242, 300_000  # no training set starts from this seed, and measure.py's people are others
PHOTOS, SIZE, YAW = 4, 256, math.radians(40)
GLASSES = 0.25  # share of the photos
LENS, FORWARD, RIM = (0.062, 0.048), 0.03, 0.008  # half axes, distance from the eye, thickness: world units
DARK = np.array([28, 24, 22])
PERSON = Identity("person", tuple(Photo(f"photo {k}", Path(), "", (SIZE, SIZE)) for k in range(PHOTOS)))
STEPS_ENCODER, STEPS_AVERAGE = (0, 10, 20, 40, 60), (60, 120, 300)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A crop [3, S, S], its landmarks' angles [3] and the drawn ones [3], and whether there are glasses."""

    crop: Tensor
    angles: Tensor
    pose: np.ndarray
    glasses: bool


def with_glasses(
    pixels: np.ndarray, person: heads.Person, camera: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """Round dark rims before the eyes, a bridge and the nearer arm, drawn over uint8 [S, S, 3]."""
    size, fine, marks = len(pixels), 4, person.landmarks
    left, right = marks[36:42].mean(0), marks[42:48].mean(0)
    across = (right - left) / np.linalg.norm(right - left)
    turn = np.linspace(0, 2 * np.pi, 40)[:, None]
    ring = LENS[0] * np.cos(turn) * across + LENS[1] * np.sin(turn) * np.array([0.0, 1.0, 0.0])
    left, right = (eye + np.array([0.0, 0.0, FORWARD]) for eye in (left, right))
    half = LENS[0] * across
    hinge, ear = (left - half, marks[0]) if camera[0, 3] < 0 else (right + half, marks[16])
    arm = np.stack([hinge, np.array([ear[0], hinge[1], ear[2]])])  # the other one is behind the head
    mask = Image.new("L", (size * fine, size * fine))
    for line in (left + ring, right + ring, np.stack([left + half, right - half]), arm):
        seen = heads.project(line, camera, intrinsics)[:, :2] * size * fine
        width = round(RIM / 2.5 * intrinsics[0, 0] * size * fine)
        ImageDraw.Draw(mask).line([tuple(p) for p in seen], fill=255, width=width, joint="curve")
    share = np.asarray(mask.resize((size, size), Image.Resampling.BOX))[..., None] / 255
    return (pixels * (1 - share) + DARK * share).round().astype(np.uint8)


class Bench:
    def __init__(self, head: Path):
        self.head, self.detector = heads.HeadModel(head), Detector()
        self.model = EG3D.from_pretrained(str(BUNDLE)).eval().requires_grad_(False)
        self.recipe = load_recipe("heads")
        self.loss, self.judge = load_identity("heads-a"), load_identity("heads-b")
        self.perceptual, self.encoder = load_perceptual("heads-features"), load_inversion("heads-inversion")
        calibration = json.loads((BUNDLE / "calibration.json").read_text())["calibrations"][0]
        self.threshold: float = calibration["threshold"]
        self.cameras = yaw_cameras(self.model, self.recipe.camera, self.recipe.gate.views)

    def photos(self, index: int) -> list[Photo | None]:
        """A person's photos; None where the detector sees no face."""
        rng = np.random.default_rng([SEED, FIRST + index])
        factors, photos = heads.draw_factors(rng, 1)[0], list[Photo | None]()
        for _ in range(PHOTOS):
            camera, intrinsics, pose = photo_camera(rng, yaw=YAW)
            person = heads.prepare(self.head, photo_factors(factors, rng), photo_extra(rng))
            pixels = heads.render_person(self.head, person, camera, intrinsics, SIZE, 2)
            glasses = bool(rng.random() < GLASSES)
            if glasses:
                pixels = with_glasses(pixels, person, camera, intrinsics)
            picture = Image.fromarray(pixels)
            faces = self.detector.detect(picture)
            if not faces:
                photos.append(None)
                continue
            size = self.model.config.img_resolution
            crop = eg3d_crop(picture, faces[0].points, size)
            fit = fit_camera(crop.points, size)
            angles = torch.tensor([fit.yaw, fit.pitch, fit.roll], dtype=torch.float32)
            photos.append(Photo(to_tensor(np.asarray(crop.image)), angles, pose, glasses))
        return photos

    def inverter(self, **options: Any) -> Inverter:
        chosen = dataclasses.replace(self.recipe.inversion, **options)
        return Inverter(self.model, chosen, self.perceptual, self.loss, self.encoder)

    def quality(self, crops: Tensor, ws: Tensor, c: Tensor) -> Quality:
        return measure_quality(
            self.model, self.judge, self.perceptual, crops, ws, c, self.cameras, self.threshold
        )


def until_the_gate(
    bench: Bench, inverter: Inverter, crops: Tensor, angles: Tensor
) -> tuple[Tensor, Quality, Quality]:
    """Each photo for itself, as if it were the only one: ws, figures before and after `more_steps`."""
    found = inverter(crops, angles)
    first = bench.quality(crops, found.ws, found.c)
    missed = [k for k, shown in enumerate(first.shown) if not shown]
    if not missed:
        return found.ws, first, first
    part = inverter.more(crops[missed], Inversion(found.ws[missed], found.pose[missed]))
    more = bench.quality(crops[missed], part.ws, part.c)
    ws, cosine, distance = found.ws.clone(), list(first.cosine), list(first.perceptual)
    ws[missed] = part.ws
    for k, a, b in zip(missed, more.cosine, more.perceptual, strict=True):
        cosine[k], distance[k] = a, b
    return ws, first, Quality(tuple(cosine), tuple(distance), bench.threshold)


def measure_one(bench: Bench, inverter: Inverter, index: int) -> dict[str, Any]:
    """A person's photos each at its own latent, and at the one of the first three together (`invert_person`):
    is the last photo closer to that than to those of the three alone?"""
    seen = [photo for photo in bench.photos(index) if photo is not None]
    crops, angles = torch.stack([p.crop for p in seen]), torch.stack([p.angles for p in seen])
    ws, first, last = until_the_gate(bench, inverter, crops, angles)
    photos = [
        {
            "yaw": abs(float(np.degrees(photo.pose[0]))), "glasses": photo.glasses,
            "first": first.cosine[k], "cosine": last.cosine[k], "perceptual": last.perceptual[k],
        }
        for k, photo in enumerate(seen)
    ]  # fmt: skip
    person = invert_person(inverter, crops, angles, bench.quality)
    joint, *singles = (
        bench.quality(crops[-1:], w, person.c[-1:]).cosine[0]
        for w in (person.latent, *ws[: person.fitted].split(1))
    )
    held_out = {"joint": joint, "single": singles[0], "singles": float(np.mean(singles))}
    linked = not check_people([PERSON], [bench.judge(crops)], bench.threshold)
    return {"photos": photos, "linked": linked, "together": person.cosine, "held_out": held_out}


def gate(bench: Bench, people: int, out: Path) -> dict[str, Any]:
    """Shares and means over the people. Each one's figures are kept in `out`; other processes may help."""
    inverter = bench.inverter()
    out.mkdir(parents=True, exist_ok=True)
    for index in range(people):
        file = out / f"{index}.json"
        try:
            file.touch(exist_ok=False)  # mine
        except FileExistsError:
            continue
        start = time.process_time()
        found = measure_one(bench, inverter, index)
        file.write_text(json.dumps(found), encoding="utf-8")
        told = " ".join(f"{p['cosine']:.3f}" for p in found["photos"])
        seconds = time.process_time() - start
        print(
            f"{index}: {told}, together {found['together']:.3f} ({seconds:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
    texts = [(out / f"{index}.json").read_text(encoding="utf-8") for index in range(people)]
    if not all(texts):
        raise SystemExit("others are still at work, or were killed: delete their empty files")
    each = [json.loads(text) for text in texts]
    rows, held_out = [p for one in each for p in one["photos"]], [one["held_out"] for one in each]
    together = np.array([one["together"] for one in each])
    linked = np.array([one["linked"] for one in each])
    threshold = bench.threshold
    return {
        "people": people, "photos": len(rows), "no_face_found": people * PHOTOS - len(rows),
        "threshold": threshold,
        "pass": share(rows, threshold), "pass_before_more_steps": share(rows, threshold, "first"),
        "pass_glasses": share([r for r in rows if r["glasses"]], threshold),
        "pass_no_glasses": share([r for r in rows if not r["glasses"]], threshold),
        "pass_over_25_degrees": share([r for r in rows if r["yaw"] > 25], threshold),
        "cosine": mean(rows, "cosine"), "perceptual": mean(rows, "perceptual"),
        "lowest": sorted(round(r["cosine"], 3) for r in rows)[:10],
        "together": {
            "linked": float(linked.mean()),  # the judge takes the photos for one person's; erase asks first
            "pass": float(np.mean(together[linked] >= threshold)),
            "pass_linked_or_not": float(np.mean(together >= threshold)), "cosine": float(together.mean()),
            "lowest": np.sort(together)[:5].round(3).tolist(),
            "held_out_cosine": {key: mean(held_out, key) for key in ("joint", "single", "singles")},
            "joint_beats_single": float(np.mean([h["joint"] > h["single"] for h in held_out])),
        },
    }  # fmt: skip


def share(rows: list[dict[str, Any]], threshold: float, key: str = "cosine") -> float | None:
    return float(np.mean([row[key] >= threshold for row in rows])) if rows else None


def mean(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def starts(bench: Bench, people: int) -> dict[str, Any]:
    """Judge's mean cosine by the number of steps, from the encoder's answer and from w_avg (`optimize`)."""
    photos = [p for index in range(people) for p in bench.photos(index) if p is not None]
    crops, angles = torch.stack([p.crop for p in photos]), torch.stack([p.angles for p in photos])
    out: dict[str, Any] = {"photos": len(photos)}
    for backend, all_steps in (("auto", STEPS_ENCODER), ("optimize", STEPS_AVERAGE)):
        out[backend] = []
        for steps in all_steps:
            options = {"backend": backend, "steps": steps} if steps else {"backend": "encoder"}
            start = time.process_time()
            found = bench.inverter(**options)(crops, angles)
            seconds = (time.process_time() - start) / len(photos)
            quality = bench.quality(crops, found.ws, found.c)
            cosine, distance = float(np.mean(quality.cosine)), float(np.mean(quality.perceptual))
            row = {"steps": steps, "cpu_seconds": seconds, "cosine": cosine, "perceptual": distance}
            print(backend, row, file=sys.stderr, flush=True)
            out[backend].append(row)
    for target in out["optimize"]:
        for row in out["auto"]:
            if row["cosine"] >= target["cosine"]:
                target["encoder_start_needs"] = row["steps"]
                target["times_faster"] = target["cpu_seconds"] / row["cpu_seconds"]
                break
    return out


def full_size(device: torch.device, steps: int = 2) -> dict[str, Any]:
    """`steps` steps of each stage on one photo; random weights take as long as trained ones."""
    import lpips

    torch.manual_seed(0)
    model = EG3D(EG3DConfig(neural_rendering_resolution=128, sr_num_fp16_res=4)).to(device).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in its old way
        trunk = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    perceptual = Lpips(trunk).to(device).eval().requires_grad_(False)
    identity = PspEncoder(ir_se50()).to(device).eval().requires_grad_(False)
    photo = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1)).to(device) * 2 - 1
    options = dataclasses.replace(load_recipe("guide").inversion, backend="optimize")
    stages = {
        "camera": {"camera_steps": steps + 1, "steps": 1, "wplus_steps": 0},
        "w": {"camera_steps": 1, "steps": steps + 1, "wplus_steps": 0},
        "w_plus": {"camera_steps": 1, "steps": 1, "wplus_steps": steps},
    }
    found: dict[str, Any] = {"device": str(device), "threads": torch.get_num_threads()}

    clock = time.perf_counter if device.type == "cuda" else time.process_time  # of one thread: others may run

    def seconds(**counts: int) -> float:
        inverter = Inverter(model, dataclasses.replace(options, **counts), perceptual, identity)
        inverter.space.median_offset = lambda: 1.0  # type: ignore[method-assign] # not what is timed
        start = clock()
        result = inverter(photo)
        assert torch.isfinite(result.ws).all()
        return clock() - start

    least = seconds(camera_steps=1, steps=1, wplus_steps=0)
    for name, counts in stages.items():
        found[f"{name}_seconds_a_step"] = round((seconds(**counts) - least) / steps, 2)
        print(found, file=sys.stderr, flush=True)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found["peak_rss_gib"] = round(rss / 2**30, 2)
    if device.type == "cuda":
        found["peak_cuda_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=Path, help="the head file: see fetch_head.py")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/inversion"), help="a file a person: goes on")
    parser.add_argument("--starts", type=int, default=4, help="of them, from both starts")
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--device", default="cpu", type=torch.device, help="of --full-size")
    args = parser.parse_args()
    if args.full_size:
        print(json.dumps(full_size(args.device), indent=2))
        return
    if args.head is None:
        parser.error("--head is needed")
    bench = Bench(args.head)
    found = gate(bench, args.people, args.out)
    if args.starts:
        found["starts"] = starts(bench, args.starts)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
