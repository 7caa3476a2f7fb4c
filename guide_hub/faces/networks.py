"""IR-SE50 and IR-101, the recognisers of GUIDE's identity loss and evaluation, by their checkpoints' names.

Improved residual units with PReLU (ArcFace, arXiv 1801.07698) and, in IR-SE50, squeeze and excitation
(arXiv 1709.01507).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Each channel times a gate from all channels' means."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class ResidualUnit(nn.Module):
    """BN, 3 x 3 convolution, PReLU, 3 x 3 convolution, BN (, squeeze and excitation) beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int, se: bool) -> None:
        super().__init__()
        if c_in == c_out:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )
        layers: list[nn.Module] = [
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False),
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
        ]
        self.res_layer = nn.Sequential(*layers, *([SqueezeExcite(c_out)] if se else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class ImprovedResNet(nn.Module):
    """RGB [N, 3, 112, 112] in [-1, 1] -> unit embeddings [N, 512]. `depths`: units of the four stages."""

    def __init__(self, depths: tuple[int, int, int, int], se: bool, affine: bool) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=affine),
        )
        units, c_in = [], 64
        for c_out, depth in zip((64, 128, 256, 512), depths, strict=True):
            for i in range(depth):
                units.append(ResidualUnit(c_in, c_out, 2 if i == 0 else 1, se))
                c_in = c_out
        self.body = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.output_layer(self.body(self.input_layer(x))), dim=1)


def ir_se50() -> ImprovedResNet:
    """The network of `model_ir_se50.pth`."""
    return ImprovedResNet((3, 4, 14, 3), se=True, affine=True)


def ir_101() -> ImprovedResNet:
    """The network of `CurricularFace_Backbone.pth`."""
    return ImprovedResNet((3, 13, 30, 3), se=False, affine=False)
