"""Building blocks of the generator against the reference's numbers."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from eg3d_golden import OP, close, part, vectors

from guide_hub.eg3d.ops import (
    FullyConnected,
    Softplus,
    SynthesisLayer,
    ToRGB,
    bias_act,
    fir,
    fir_filter,
    modulated_conv2d,
    upsample2d,
)
from guide_hub.eg3d.synthesis import SynthesisBlock
from guide_hub.errors import InputError


@pytest.fixture(scope="module")
def ops(shared: Path) -> dict[str, torch.Tensor]:
    return vectors(shared, "ops")


def loaded(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    module.load_state_dict(state, strict=True)
    return module


def test_filter_and_upsampling(ops):
    close(fir_filter(), ops["fir/f"], 0)
    close(upsample2d(ops["fir/x"]), ops["fir/up2"], OP)


def test_bias_act(ops):
    x, b = ops["bias_act/x"], ops["bias_act/b"]
    before = x.clone()
    close(bias_act(x, b, "lrelu"), ops["bias_act/lrelu"], OP)
    close(bias_act(x, b, clamp=2), ops["bias_act/linear_clamp"], OP)
    close(x, before, 0)


def test_convolutions_without_styles(ops):
    x, weight, ones = ops["conv/x"], ops["conv/w"], torch.ones(2, 4)
    close(modulated_conv2d(x, weight, ones, demodulate=False), ops["conv/plain"], OP)
    for name, kernel in (("up2_noflip", "fir/f"), ("up2_fa_noflip", "fir/fa")):  # `fa` is not symmetric
        close(modulated_conv2d(x, weight, ones, ops[kernel], demodulate=False), ops[f"conv/{name}"], OP)
    close(
        modulated_conv2d(x, weight.flip(2, 3), ones, ops["fir/f"], demodulate=False), ops["conv/up2_flip"], OP
    )


@pytest.mark.parametrize("kind", ["fused", "unfused"])
def test_modulated_convolution(ops, kind):
    x, weight, styles = ops["conv/x"], ops["conv/w"], ops["modconv/styles"]
    y = modulated_conv2d(x, weight, styles) + ops["modconv/noise8"]
    close(y, ops[f"modconv/up1_demod_{kind}"], OP)
    y = modulated_conv2d(x, weight, styles, ops["fir/f"]) + ops["modconv/noise16"]
    close(y, ops[f"modconv/up2_demod_{kind}"], OP)
    y = modulated_conv2d(x, ops["conv/w1"], styles, demodulate=False)
    close(y, ops[f"modconv/up1_nodemod_k1_{kind}"], OP)


def test_half_precision_neither_overflows_nor_drifts(ops):
    x, weight, styles = 100 * ops["conv/x"], 100 * ops["conv/w"], 1000 * ops["modconv/styles"]
    for kernel in (None, ops["fir/f"]):
        half = modulated_conv2d(x.half(), weight, styles, kernel)
        assert half.dtype == torch.float16
        torch.testing.assert_close(
            half.float(), modulated_conv2d(x, weight, styles, kernel), atol=1, rtol=0.01
        )


def test_fully_connected(ops):
    layer = loaded(FullyConnected(10, 7, "lrelu", lr=0.01), part(ops, "fc_lrelu_lr0.01/sd/"))
    close(layer(ops["fc/x"]), ops["fc_lrelu_lr0.01/y"], OP)
    close(loaded(FullyConnected(10, 7), part(ops, "fc_linear/sd/"))(ops["fc/x"]), ops["fc_linear/y"], OP)


@pytest.mark.parametrize("up", [1, 2])
def test_synthesis_layer(ops, up):
    clamp = {1: 1.5, 2: None}[up]  # the values that the goldens were made with
    layer = loaded(SynthesisLayer(4, 6, 12, 8 * up, up=up, clamp=clamp), part(ops, f"synlayer_up{up}/sd/"))
    for mode in ("const", "none"):
        close(layer(ops["layer/x8"], ops["layer/w"], mode), ops[f"synlayer_up{up}/y_{mode}"], OP)
    with pytest.raises(InputError, match="noise_mode"):
        layer(ops["layer/x8"], ops["layer/w"], "some")


def test_to_rgb(ops):
    layer = loaded(ToRGB(4, 3, 12, clamp=0.9), part(ops, "torgb/sd/"))
    close(layer(ops["layer/x8"], ops["layer/w"]), ops["torgb/y"], OP)


@pytest.mark.parametrize("name", ["block", "block_noup", "block_first"])
def test_blocks(ops, name):
    c_in, resolution, up = {"block": (4, 16, 2), "block_noup": (4, 8, 1), "block_first": (0, 4, 2)}[name]
    block = loaded(SynthesisBlock(c_in, 6, 12, resolution, 3, up=up), part(ops, f"{name}/sd/"))
    x, img = (ops["layer/x8"], ops["block/img_in"]) if c_in else (None, None)
    x, img = block(x, img, ops["block/ws"][:, : block.num_layers + 1])
    close(x, ops[f"{name}/x"], OP)
    close(img, ops[f"{name}/img"], OP)


def test_clamp_limits_what_a_layer_gives():
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 6, 12, 8, clamp=0.5)
    y = layer(torch.randn(2, 4, 8, 8), torch.randn(2, 12))
    assert y.abs().max() == 0.5


def test_random_noise_follows_its_generator():
    layer = SynthesisLayer(4, 6, 12, 8)
    torch.nn.init.ones_(layer.noise_strength)
    one, same, other = (layer.noise("random", 3, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (3, 1, 8, 8)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_softplus_and_its_gradient():
    x = torch.linspace(-120, 120, 4001, requires_grad=True)
    y = Softplus()(x)
    close(y, F.softplus(x.double()).float(), 1e-5)
    grad = torch.autograd.grad(y.sum(), x)[0]
    close(grad, torch.sigmoid(x.detach()), 1e-6)


def test_upsampling_equals_the_filter():
    x = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    spread = torch.zeros(1, 2, 10, 14)
    spread[:, :, ::2, ::2] = x
    # pad (2, 1) on each axis
    expected = fir(F.pad(spread, (2, 1, 2, 1)), fir_filter(), padding=0, gain=4)
    close(upsample2d(x), expected, 1e-6)


def test_initial_weights():
    torch.manual_seed(0)
    layer = FullyConnected(400, 300, lr=0.01)
    assert math.isclose(float(layer.weight.detach().std()), 100, rel_tol=0.02)
    block = SynthesisBlock(32, 64, 16, 8, 3)
    assert math.isclose(float(block.conv0.weight.detach().std()), 1, rel_tol=0.02)
    assert bool((block.conv0.affine.bias == 1).all())
    assert not any(bool(p.any()) for p in (block.conv1.noise_strength, block.conv1.bias, block.torgb.bias))
