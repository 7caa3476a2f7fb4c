"""StyleGAN2's building blocks in plain PyTorch: FIR resampling, equalised layers, modulated convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.errors import InputError

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)


def draw(
    fn: Callable[..., Tensor], size: tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Numbers of `torch.rand` or `torch.randn` on `device`.

    Drawn on the generator's own device, so that a seed means the same everywhere; without a generator, from
    the global stream of `device`.
    """
    if generator is None:
        return fn(size, device=device)
    return fn(size, generator=generator, device=generator.device).to(device)


# ----------------------------------------------------------------------------
# FIR resampling with the binomial filter (StyleGAN2, appendix B).


def fir_filter() -> Tensor:
    """The [4, 4] low-pass [1, 3, 3, 1] x [1, 3, 3, 1] / 64."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def fir(x: Tensor, kernel: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Each channel of [N, C, H, W], padded with zeros all around, convolved with `gain * kernel` [k, k]."""
    channels = x.shape[1]
    weight = (kernel * gain).flip(0, 1).to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, padding=padding, groups=channels)


def upsample2d(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2 H, 2 W] through the filter.

    Bilinear interpolation has the same taps (1/4, 3/4); the border of zeros makes its edges fade as the
    filter's do.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]


# ----------------------------------------------------------------------------
# Layers.


def bias_act(x: Tensor, bias: Tensor, act: str = "linear", clamp: float | None = None) -> Tensor:
    """`act(x + bias)` of [N, C, ...] with bias [C], limited to +-clamp.

    `act` is "linear", or "lrelu": leaky ReLU times sqrt(2).
    """
    x = x + bias.to(x.dtype).view(-1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu_(x.mul_(LRELU_GAIN), LRELU_SLOPE)  # the gain commutes; `x` is a copy by now
    return x if clamp is None else x.clamp(-clamp, clamp)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: stored weight ~ N(0, 1) / lr, used times lr / sqrt(in).

    `bias_init` is the stored bias, used times lr. `act` as in `bias_act`.
    """

    def __init__(
        self, d_in: int, d_out: int, act: str = "linear", lr: float = 1.0, bias_init: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / lr)
        self.bias = nn.Parameter(torch.full((d_out,), bias_init))
        self.act = act
        self.lr = lr
        self.gain = lr / math.sqrt(d_in)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        bias = self.bias if self.lr == 1 else self.bias * self.lr
        y = F.linear(x, self.weight * self.gain, bias)
        return F.leaky_relu(y, LRELU_SLOPE) * LRELU_GAIN if self.act == "lrelu" else y


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, kernel: Tensor | None = None, demodulate: bool = True
) -> Tensor:
    """Modulated convolution (StyleGAN2, section 2.2): x [N, I, H, W], weight [O, I, k, k], styles [N, I].

    With `kernel`, the FIR filter, the output is twice as large: [N, O, 2 H, 2 W]. Activations are scaled by
    the style before one convolution with shared weights, and by the demodulation after it: equal to kernels
    of their own for every sample, and much faster than those where N > 1.
    """
    if x.dtype == torch.float16 and demodulate:  # sums stay in fp16's range; demodulation takes it out again
        weight = weight / (weight.abs().amax((1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(1, keepdim=True)
    y = x * styles.to(x.dtype)[:, :, None, None]
    if kernel is None:
        y = F.conv2d(y, weight.to(x.dtype), padding=weight.shape[-1] // 2)
    else:
        y = F.conv_transpose2d(y, weight.to(x.dtype).transpose(0, 1), stride=2)
        y = fir(y, kernel, padding=1, gain=4)  # 4: the zeros between samples thin the signal
    if not demodulate:
        return y
    energy = styles.square() @ weight.square().sum((2, 3)).t()
    return y * (energy + 1e-8).rsqrt().to(x.dtype)[:, :, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU. `up`: 1 or 2; `resolution`: the output's side."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, c_in: int, c_out: int, w_dim: int, resolution: int, *, up: int = 1, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, c_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, up H, up W]."""
        x = modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter if self.up == 2 else None)
        noise = self.noise(noise_mode, len(x), generator)
        if noise is not None:
            x = x + noise.to(x.dtype)
        return bias_act(x, self.bias, "lrelu", self.clamp)

    def noise(self, mode: str, n: int, generator: torch.Generator | None) -> Tensor | None:
        """What is added to every channel: [N, 1, H, W] (`random`), [H, W] (`const`) or nothing (`none`)."""
        if mode == "none":
            return None
        if mode == "const":
            return self.noise_const * self.noise_strength
        if mode == "random":
            size = (n, 1, *self.noise_const.shape)
            return draw(torch.randn, size, generator, self.noise_const.device) * self.noise_strength
        raise InputError(f"noise_mode must be random, const or none, not {mode!r}")


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation, to the channels of the skip image."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.gain = 1 / math.sqrt(c_in)
        self.affine = FullyConnected(w_dim, c_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, H, W]."""
        x = modulated_conv2d(x, self.weight, self.affine(w) * self.gain, demodulate=False)
        return bias_act(x, self.bias, clamp=self.clamp)


# ----------------------------------------------------------------------------
# Softplus that costs little on a CPU.


class _SoftplusCPU(torch.autograd.Function):
    """`-log(sigmoid(-x))`. PyTorch's own takes log1p, which is ten times slower than log on some CPUs.

    Keeps only the result, which the next layer keeps anyway: the derivative is `1 - exp(-y)`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=80).neg_().sigmoid_().log_().neg_()  # sigmoid(-x) underflows from 88
        torch.maximum(y, x, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return y.neg().exp_().neg_().add_(1).mul_(grads[0])


class Softplus(nn.Module):
    """`log(1 + exp(x))`."""

    def forward(self, x: Tensor) -> Tensor:
        return _SoftplusCPU.apply(x) if x.device.type == "cpu" else F.softplus(x)
