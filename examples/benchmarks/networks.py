"""Loss and judge networks of the benchmarks: the builtin model's own, or seeded weights in the real shapes.

Random weights take as long as trained ones; what they say of pictures means nothing.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from guide_hub.eg3d import EG3DConfig
from guide_hub.faces.identity import PspEncoder
from guide_hub.faces.networks import ir_101, ir_se50
from guide_hub.faces.perceptual import FeatureDistance, Lpips
from guide_hub.faces.small import HeadsEncoderA, HeadsEncoderB, HeadsInversion
from guide_hub.networks import NetworkNames, Networks, choose, load
from guide_hub.recipe import Recipe


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def released_shapes(config: EG3DConfig, recipe: Recipe) -> Networks:
    """LPIPS-VGG with a random trunk and its own linear heads, IR-SE50 in the loss, IR-101 as the judge."""
    import lpips

    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in its old way
        trunk = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = NetworkNames("seeded-irse50", "seeded-ir101", "seeded-lpips-vgg", None)
    return Networks(
        names, _frozen(PspEncoder(ir_se50())), _frozen(PspEncoder(ir_101())), _frozen(Lpips(trunk)), None
    )  # fmt: skip


def small_shapes(config: EG3DConfig, recipe: Recipe) -> Networks:
    """The builtin model's networks with random weights: seconds, for trying the benchmarks."""
    torch.manual_seed(11)
    names = NetworkNames(
        "seeded-heads-a", "seeded-heads-b", "seeded-heads-features", "seeded-heads-inversion"
    )
    inversion = HeadsInversion(config.z_dim)
    return Networks(
        names, _frozen(HeadsEncoderA()), _frozen(HeadsEncoderB()),
        _frozen(FeatureDistance(HeadsInversion(config.z_dim))), _frozen(inversion),
    )  # fmt: skip


def of_model(config: EG3DConfig, recipe: Recipe) -> Networks:
    """Those that the model's config.json names."""
    return load(choose(config, recipe), torch.device("cpu"))
