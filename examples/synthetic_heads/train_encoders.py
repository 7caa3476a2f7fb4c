"""Trains the bundle's encoders on renders: A (identity loss), B (judge) and the inversion encoder.

    python make_data.py photos --head FILE --out runs/photos-a --people 2400 --views 5 --seed 100
    python make_data.py photos --head FILE --out runs/photos-b --people 2400 --views 5 --seed 200
    python train_encoders.py a --data runs/photos-a --out runs/encoder-a
    python train_encoders.py b --data runs/photos-b --out runs/encoder-b
    python train_encoders.py inversion --data runs/photos-a runs/photos-b runs/pictures --out runs/inversion

A and B learn on the people of their own set to bring a person's photos together and to keep the known factors
of shape and appearance readable; the inversion encoder regresses to the known z and pose. The same command
resumes a killed run.
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
from torch import Tensor, nn

from guide_hub.faces.small import HeadsEncoderA, HeadsEncoderB, HeadsInversion
from train_generator import learning_rate, save, z_of

TEMPERATURE = 0.12
PHOTOS = 3  # of each person in a batch
IDENTITY = slice(0, 56)  # of a person's factors: shape and appearance, without expression and light


def contrast(embedding: Tensor, person: Tensor) -> Tensor:
    """Supervised contrastive loss (arXiv 2004.11362, eq. 2) over a batch with several photos a person."""
    logits = embedding @ embedding.T / TEMPERATURE
    self_pair = torch.eye(len(logits), dtype=torch.bool)
    same = (person[:, None] == person[None, :]) & ~self_pair
    log_p = logits - torch.logsumexp(logits.masked_fill(self_pair, -torch.inf), dim=1, keepdim=True)
    return -(log_p * same).sum(1).div(same.sum(1).clamp(min=1)).mean()


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Crop jitter, exposure, blur and noise, so that soft generator pictures and photos look alike."""
    n = len(images)
    scale = 1 + 0.05 * torch.randn(n, generator=rng).clamp(-2, 2)
    angle = 0.05 * torch.randn(n, generator=rng)
    shift = 0.04 * torch.randn(n, 2, generator=rng)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    images = F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False),
                           padding_mode="border", align_corners=False)  # fmt: skip
    gain = 1 + 0.10 * torch.randn(n, 3, 1, 1, generator=rng)
    images = (images + 1) * gain - 1 + 0.05 * torch.randn(n, 1, 1, 1, generator=rng)
    draw = torch.rand(n, generator=rng)
    soft = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    images = torch.where((draw < 0.35).view(-1, 1, 1, 1), soft, images)
    noise = torch.randn(images.shape, generator=rng) * 0.05 * torch.rand(n, 1, 1, 1, generator=rng)
    return (images + noise).clamp(-1, 1)


class Photos:
    def __init__(self, folders: list[Path]):
        self.parts = [np.load(f / "images.npy", mmap_mode="r") for f in folders]
        self.bounds = np.cumsum([0] + [len(p) for p in self.parts])
        load = lambda name: torch.from_numpy(np.concatenate([np.load(f / f"{name}.npy") for f in folders]))  # noqa: E731
        factors, self.pose, person = load("factors"), load("pose"), load("person")
        self.z, self.identity = z_of(factors), factors[:, IDENTITY]
        self.has_pose = self.pose.abs().sum(1) > 0
        self.person = torch.unique(person, return_inverse=True)[1]

    def some_of_each(self, people: int, rng: torch.Generator) -> Tensor:
        """PHOTOS photos of each of `people` persons; photos of a person lie together and are equally many."""
        each = len(self) // (int(self.person.max()) + 1)
        chosen = torch.randperm(len(self) // each, generator=rng)[:people]
        photos = torch.stack([torch.randperm(each, generator=rng)[:PHOTOS] for _ in chosen])
        return (chosen[:, None] * each + photos).flatten()

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def images(self, index: Tensor) -> Tensor:
        out = np.empty((len(index), *self.parts[0].shape[1:]), np.uint8)
        for row, i in enumerate(index.tolist()):
            part = int(np.searchsorted(self.bounds, i, "right") - 1)
            out[row] = self.parts[part][i - self.bounds[part]]
        return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=["a", "b", "inversion"])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Photos(args.data)
    torch.manual_seed({"a": 11, "b": 22, "inversion": 33}[args.which])
    network = {"a": HeadsEncoderA, "b": HeadsEncoderB, "inversion": HeadsInversion}[args.which]()
    head = nn.Linear(128, IDENTITY.stop) if args.which != "inversion" else nn.Identity()
    both = nn.ModuleList([network, head])
    optimizer = torch.optim.AdamW(
        both.parameters(), lr=args.lr, weight_decay=0.02 if args.which != "inversion" else 0.005
    )
    step, spent, checkpoint = 0, 0.0, args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        both.load_state_dict(saved["networks"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    log = (args.out / "log.txt").open("a", buffering=1)
    both.train()
    losses, last, tick = [], time.time(), time.time()
    while spent < args.minutes:
        rng = torch.Generator().manual_seed(step)
        lr = learning_rate(spent / args.minutes, args.lr, 0.02 * args.lr) * min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = lr
        if args.which == "inversion":
            index = torch.randint(len(data), (args.batch,), generator=rng)
        else:
            index = data.some_of_each(args.batch // PHOTOS, rng)
        images = augment(data.images(index), rng)
        if args.which == "inversion":
            z, pose = network(images)
            has = data.has_pose[index].float()[:, None]
            loss = F.mse_loss(z, data.z[index]) + 20 * (has * (pose - data.pose[index]).square()).mean()
        else:
            raw = network.head(network.body(images))
            loss = contrast(F.normalize(raw, dim=1), data.person[index])
            loss = loss + 2 * F.mse_loss(head(raw), data.identity[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        losses.append(float(loss.detach()))
        now = time.time()
        spent, tick = spent + (now - tick) / 60, now
        if step % 50 == 0:
            log.write(f"step {step} min {spent:.1f} loss {np.mean(losses):.4f} lr {lr:.1e}\n")
            losses = []
        if now - last > 120 or spent >= args.minutes:
            last = now
            save(
                checkpoint,
                {
                    "networks": both.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "spent": spent,
                },
            )
    save(args.out / "network.pt", network.state_dict())


if __name__ == "__main__":
    main()
