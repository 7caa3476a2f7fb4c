"""What Frechet and kernel distances are taken of: a picture as one row of features."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class FeatureExtractor(Protocol):
    """Pictures [N, 3, H, W] in [-1, 1] -> features [N, F]."""

    def __call__(self, images: Tensor) -> Tensor: ...


class InceptionFeatures(nn.Module):
    """FID's own: the last pooling of TensorFlow's Inception of 2015, [N, 2048], by torch-fidelity.

    Pictures are rounded to 8 bits and resized to 299 px as TensorFlow 1 does.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # on CPUs this layout takes 0.6 of the time and moves features by 1e-5
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(((images + 1) * 127.5).round().clamp(0, 255).byte())[0]


class PooledFeatures(nn.Module):
    """`network.features(images)`: every map's mean over places, one row a picture.

    Blur, grain and a change of light move these by a larger share of their variance than the bundle's
    embeddings and deeper layers, which look past such things.
    """

    network: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([maps.mean((2, 3)) for maps in self.network.features(images)], dim=1)
