"""Compact networks for EG3D-framed pictures of 128 px: two identity encoders and the inversion encoder.

They belong to `builtin:synthetic-heads`, are trained on renders of the morphable head and mean nothing on
photographs of real people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from guide_hub.latents import LatentSpace

SIZE = 128
EMBEDDING = 128
FILLS = 64


def fit(images: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] at the networks' 128 px, clamped to [-1, 1]."""
    if images.shape[-1] != SIZE:
        images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    return images.clamp(-1, 1)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def stem(c_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, c_out, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
    )


class GlobalDepthwise(nn.Module):
    """A learned weight for each place and channel in place of pooling (MobileFaceNet), then an embedding."""

    def __init__(self, channels: int, size: int, d_out: int) -> None:
        super().__init__()
        self.pool = nn.Sequential(
            nn.Conv2d(channels, channels, size, groups=channels, bias=False), nn.BatchNorm2d(channels)
        )
        self.out = nn.Sequential(nn.Linear(channels, d_out, bias=False), nn.BatchNorm1d(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.pool(x).flatten(1))


class HeadsEncoderA(nn.Module):
    """Residual network of the identity loss: pictures [N, 3, H, W] in [-1, 1] -> unit rows [N, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(24, 5), Residual(24, 48, 2), Residual(48, 96, 2), Residual(96, 128, 2))
        self.head = GlobalDepthwise(128, 8, EMBEDDING)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(fit(images))), dim=1)


def plain(c_in: int, c_out: int, *, pool: bool) -> nn.Sequential:
    """3 x 3 convolution with SiLU, halved by max pooling: no shortcut."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out), nn.SiLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class HeadsEncoderB(nn.Module):
    """VGG-like network without shortcuts, the judge: A's interface, another architecture, other people."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 4, 4), nn.BatchNorm2d(24), nn.SiLU(),
            plain(24, 64, pool=False), plain(64, 96, pool=True),
            plain(96, 128, pool=False), plain(128, 128, pool=True),
        )  # fmt: skip
        self.head = GlobalDepthwise(128, 8, EMBEDDING)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(fit(images))), dim=1)


class HeadsInversion(nn.Module):
    """A photo's crop to the generator's z and its camera; its stages double as perceptual features.

    [N, 3, H, W] in [-1, 1] -> z [N, 64], pose [N, 3] (yaw, pitch, roll in radians about the face's centre).
    """

    def __init__(self, z_dim: int = 64) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                stem(24, 5),
                Residual(24, 48, 2),
                Residual(48, 96, 2),
                Residual(96, 160, 2),
                Residual(160, 160, 2),
            ]
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(160 * 16, 192), nn.ReLU(inplace=True))
        self.z = nn.Linear(192, z_dim)
        self.pose = nn.Linear(192, 3)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps after the first four stages, at 64, 32, 16 and 8 px."""
        out, x = [], fit(images)
        for stage in self.stages[:4]:
            x = stage(x)
            out.append(x)
        return out

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.head(self.stages[4](self.features(images)[-1]))
        return self.z(hidden), self.pose(hidden)

    def start(self, crops: Tensor, space: LatentSpace) -> tuple[Tensor, Tensor]:
        """Crops [P, 3, H, W] -> ws [P, num_ws, w_dim], one row repeated, and pose [P, 3].

        The network regresses z, so what it cannot see is 0 and its answer is short; the mapping network,
        which normalises z, would stretch it into an extreme person. The missing length is filled with noise
        instead, and the latents are averaged over the fills: the mean of W given the photo.
        """
        z, pose = self(crops)
        unseen = (1 - z.square().mean(1, keepdim=True)).clamp(min=0).sqrt()
        noise = torch.randn(FILLS, z.shape[1], generator=torch.Generator().manual_seed(0)).to(z)
        return torch.stack([space.map(z + unseen * fill) for fill in noise]).mean(0), pose


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
