"""How different two pictures look: LPIPS (arXiv 1801.03924), and the same distance on the bundle's own
features."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

EPS = 1e-8


class PerceptualDistance(Protocol):
    """Pictures a, b [N, 3, H, W] in [-1, 1] -> distances [N].

    `features` once and `distance` often saves half the work where one side stays:
    `d(a, b) == d.distance(d.features(a), d.features(b))`.
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor: ...

    def features(self, images: Tensor) -> list[Tensor]: ...

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor: ...


def normalised(features: Tensor) -> Tensor:
    """Unit length across channels. `EPS` is inside the root: where all channels are 0, its slope stays
    finite."""
    return features / (features.square().sum(1, keepdim=True) + EPS).sqrt()


class Lpips(nn.Module):
    """LPIPS 0.1 through an `lpips.LPIPS` module. Features: its trunk's maps, normalised."""

    module: Any

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def features(self, images: Tensor) -> list[Tensor]:
        return [normalised(maps) for maps in self.module.net(self.module.scaling_layer(images))]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        heads = (lin.model[-1] for lin in self.module.lins)  # what stands before it is training's dropout
        parts = [head((x - y).square()).mean((1, 2, 3)) for head, x, y in zip(heads, a, b, strict=True)]
        return torch.stack(parts).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.features(a), self.features(b))


class FeatureDistance(nn.Module):
    """LPIPS's distance without learned heads: squared differences of normalised maps, summed over channels,
    averaged over places, averaged over stages. `network.features(images)` gives the maps."""

    network: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> list[Tensor]:
        return [normalised(maps) for maps in self.network.features(images)]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        parts = [(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
        return torch.stack(parts).mean(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.features(a), self.features(b))
