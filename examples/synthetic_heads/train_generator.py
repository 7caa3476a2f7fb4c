"""Trains the generator of `builtin:synthetic-heads` on renders of the morphable head.

    python make_data.py pictures --head FILE --out runs/pictures
    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184   # twice as fast on a CPU with glibc
    python train_generator.py --data runs/pictures --out runs/generator

Supervised: z is turned into a person by a fixed seeded rotation (`factors_of`), and G(z, c) must show that
person from camera c. Two stages: tri-planes alone at 32 x 32 rays, then the full pipeline with a perceptual
loss. Every checkpoint is complete (weights, moving average, Adam, step), so the same command resumes a
killed run.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F

from guide_hub.eg3d import EG3D, EG3DConfig, RenderingConfig
from guide_hub.eg3d.camera import fov_to_intrinsics, make_label

Z_DIM = 64
CONFIG = EG3DConfig(
    z_dim=Z_DIM,
    w_dim=128,
    img_resolution=128,
    mapping_layers=2,
    mapping_lr_multiplier=1.0,
    channel_base=4096,
    channel_max=128,
    plane_resolution=64,
    plane_channels=12,
    decoder_hidden=32,
    decoder_features=16,
    neural_rendering_resolution=64,
    superresolution="SuperresolutionHybrid2X",
    sr_widths=(48, 24),
    rendering=RenderingConfig(
        depth_resolution=8,
        depth_resolution_importance=8,
        ray_start=2.3,
        ray_end=3.2,
        box_warp=0.9,
        white_back=True,
        c_gen_conditioning_zero=True,
    ),
)
RAYS = ((0.5, 32), (0.75, 48), (float("inf"), 64))  # rays a side in the second stage, by its progress
COARSE = {"rays": 32, "depth_resolution": 12, "depth_resolution_importance": 0}


def person_rotation() -> torch.Tensor:
    """The fixed map from z to a person's factors: a seeded rotation of R^64."""
    noise = torch.randn(Z_DIM, Z_DIM, generator=torch.Generator().manual_seed(20260824), dtype=torch.float64)
    return torch.linalg.qr(noise)[0].float()


def factors_of(z: torch.Tensor) -> torch.Tensor:
    """z [N, 64] -> factors [N, 64] of unit mean square; the mapping network normalises z in the same way."""
    z = z / z.square().mean(-1, keepdim=True).sqrt()
    return z @ person_rotation().T


def z_of(factors: torch.Tensor) -> torch.Tensor:
    """The inverse of `factors_of` up to scale."""
    return factors @ person_rotation()


class Pictures:
    """Memory-mapped renders: images uint8 [N, 128, 128, 3], factors [N, 64], cam2world [N, 4, 4]."""

    def __init__(self, folder: Path):
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.z = z_of(torch.from_numpy(np.load(folder / "factors.npy")))
        cam2world = torch.from_numpy(np.load(folder / "cam2world.npy"))
        self.c = make_label(cam2world, fov_to_intrinsics())

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(self.images[index.numpy()]).permute(0, 3, 1, 2).float()
        return images / 127.5 - 1, self.z[index], self.c[index]


def shrink(image: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(image, (size, size), mode="area")


def save(path: Path, value: dict) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    temporary.replace(path)


def learning_rate(progress: float, first: float, last: float) -> float:
    """Half a cosine from `first` to `last` as `progress` goes from 0 to 1."""
    return float(last + (first - last) * 0.5 * (1 + np.cos(np.pi * min(progress, 1.0))))


def quicken(model: EG3D) -> None:
    """Initial values that learn faster under supervision than those meant for adversarial training.

    Weights that demodulation makes scale-free are shrunk, so that one Adam step goes farther. The
    constant noise starts at a strength that tells every place of the planes apart: without it, five
    upsamplings from 4 x 4 learn fine detail far more slowly. The model is therefore one of
    `noise_mode="const"`.
    """
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "conv" in name and name.endswith(".weight") and value.ndim == 4:
                value.mul_(0.1)
            elif name.startswith("backbone.synthesis") and name.endswith("noise_strength"):
                value.fill_(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--coarse-minutes", type=float, default=10)
    parser.add_argument(
        "--minutes", type=float, default=40, help="of the second stage; sets the learning-rate curve"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--fine-lr", type=float, default=6e-3)
    parser.add_argument("--perceptual", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=600, help="the last pictures, never trained on")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    data = Pictures(args.data)
    model = EG3D(CONFIG).to(device)
    quicken(model)
    average = EG3D(CONFIG).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, betas=(0.9, 0.99))
    stage, step, spent = 0, 0, 0.0  # minutes of training in this stage
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        stage, step, spent = saved["stage"], saved["step"], saved["spent"]
    else:
        average.load_state_dict(model.state_dict())

    perceptual = None
    seen = len(data.images) - args.held_out
    log = (args.out / "log.txt").open("a", buffering=1)
    limits = (args.coarse_minutes, args.minutes)
    last, tick = time.time(), time.time()
    figures: list[tuple[float, float]] = []
    while stage < 2:
        if stage == 1 and perceptual is None:
            perceptual = training_lpips(device)
        progress = spent / limits[stage]
        lr = learning_rate(progress, *((args.lr, args.fine_lr), (args.fine_lr, args.fine_lr / 50))[stage])
        lr *= min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = lr
        index = torch.randint(seen, (args.batch,), generator=torch.Generator().manual_seed(step * 2 + stage))
        image, z, c = (t.to(device) for t in data.batch(index))
        ws = model.mapping(z, c)
        planes = model.planes(ws, "const")
        if stage == 0:
            model.renderer.config = coarse_rendering()
            out = model.render(planes, ws, c, neural_rendering_resolution=COARSE["rays"], superresolve=False)
            error = out["image_raw"] - shrink(image, COARSE["rays"])
            loss = error.abs().mean() + error.square().mean()
        else:
            model.renderer.config = CONFIG.rendering
            rays = next(r for until, r in RAYS if progress <= until)
            out = model.render(planes, ws, c, neural_rendering_resolution=rays)
            raw = out["image_raw"] - shrink(image, rays)
            error = out["image"] - image
            loss = error.abs().mean() + error.square().mean() + 0.5 * raw.abs().mean()
            loss = loss + args.perceptual * perceptual(out["image"], image).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decay = min(0.998, step / (step + 10))
            for a, b in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        figures.append((float(loss.detach()), float(10 * torch.log10(4 / error.detach().square().mean()))))
        step += 1
        now = time.time()
        spent += (now - tick) / 60
        tick = now
        if step % 50 == 0:
            mean = np.mean(figures, axis=0)
            log.write(
                f"stage {stage} step {step} min {spent:.1f} "
                f"loss {mean[0]:.4f} psnr {mean[1]:.2f} lr {lr:.1e}\n"
            )
            figures = []
        done = spent >= limits[stage]
        if now - last > 120 or done:
            last = now
            if done:
                stage, step, spent = stage + 1, 0, 0.0
            networks = {"model": model.state_dict(), "average": average.state_dict()}
            place = {"stage": stage, "step": step, "spent": spent}
            save(checkpoint, {**networks, "optimizer": optimizer.state_dict(), **place})
    average.renderer.config = CONFIG.rendering
    with torch.no_grad():
        z = torch.randn(10_000, Z_DIM, generator=torch.Generator().manual_seed(1))
        c = make_label(torch.eye(4)[None], fov_to_intrinsics()).expand(len(z), -1)
        ws = average.backbone.mapping(z.to(device), 0 * c.to(device))
        average.w_avg.copy_(ws[:, 0].mean(0))
    save(args.out / "generator.pt", {k: v.cpu() for k, v in average.state_dict().items()})


def coarse_rendering() -> RenderingConfig:
    from dataclasses import replace

    return replace(
        CONFIG.rendering,
        depth_resolution=COARSE["depth_resolution"],
        depth_resolution_importance=COARSE["depth_resolution_importance"],
    )


def training_lpips(device: str) -> torch.nn.Module:
    """LPIPS with the real AlexNet trunk, used in training only."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from real_nets import load_lpips

    return load_lpips("alex").to(device).eval().requires_grad_(False)


if __name__ == "__main__":
    main()
