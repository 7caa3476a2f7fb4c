"""StyleGAN2's building blocks in plain PyTorch: FIR resampling, equalised layers, modulated convolution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)


def fir_filter() -> Tensor:
    """The [4, 4] binomial low-pass [1, 3, 3, 1] x [1, 3, 3, 1] / 64 of StyleGAN2."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def bias_act(
    x: Tensor, bias: Tensor | None = None, act: str = "linear", gain: float = 1.0, clamp: float | None = None
) -> Tensor:
    """`act(x + b) * gain`, clamped to +-clamp. `lrelu` carries its own gain of sqrt(2) times `gain`."""
    if bias is not None:
        x = x + bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, LRELU_SLOPE)
        gain *= LRELU_GAIN
    if gain != 1.0:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp * 1.0, clamp * 1.0)


def fir(x: Tensor, kernel: Tensor, padding: int, gain: float = 1.0, stride: int = 1) -> Tensor:
    """Depth-wise FIR of [N, C, H, W] with a symmetric [k, k] kernel."""
    channels = x.shape[1]
    weight = (kernel * gain).to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, padding=padding, stride=stride, groups=channels)


def upsample2d(x: Tensor) -> Tensor:
    """Times two with the FIR filter: equal to bilinear x2 of the zero-padded image, cropped, and faster."""
    up = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    return up[:, :, 2:-2, 2:-2]


def downsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Half the size with the FIR filter."""
    return fir(x, kernel, padding=1, stride=2)


class FullyConnected(nn.Module):
    """Linear layer with the equalised learning rate: stored weight ~ N(0, 1) / lr, used times lr / sqrt(in)."""

    def __init__(self, d_in: int, d_out: int, act: str = "linear", lr: float = 1.0, bias_init: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / lr)
        self.bias = nn.Parameter(torch.full((d_out,), float(bias_init)))
        self.act = act
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        weight = self.weight.to(x.dtype) * (self.lr / math.sqrt(self.weight.shape[1]))
        y = F.linear(x, weight, self.bias.to(x.dtype) * self.lr)
        return F.leaky_relu(y, LRELU_SLOPE) * LRELU_GAIN if self.act == "lrelu" else y


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, kernel: Tensor, up: int = 1, demodulate: bool = True
) -> Tensor:
    """StyleGAN2's convolution: x [N, I, H, W], weight [O, I, k, k], styles [N, I] -> [N, O, up H, up W].

    Scales activations by the style before and by the demodulation after one shared convolution, which equals the
    per-sample kernels and needs no grouped convolution.
    """
    if x.dtype == torch.float16 and demodulate:  # keeps the products inside fp16's range
        fan_in = weight[0].numel()
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(fan_in))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = None
    if demodulate:
        squares = styles.square() @ weight.square().sum((2, 3)).t()
        scale = (squares + 1e-8).rsqrt().to(x.dtype)[:, :, None, None]
    x = x * styles.to(x.dtype)[:, :, None, None]
    weight = weight.to(x.dtype)
    if up == 2:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = fir(x, kernel, padding=1, gain=4.0)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return x if scale is None else x * scale


def make_noise(
    mode: str, constant: Tensor, strength: Tensor, x: Tensor, generator: torch.Generator | None
) -> Tensor | None:
    """Noise to add to x [N, C, H, W]: `random` [N, 1, H, W], `const` [H, W], `none`."""
    if mode == "none":
        return None
    if mode == "const":
        return constant * strength
    if mode == "random":
        return draw(torch.randn, (len(x), 1, *x.shape[2:]), generator, x.device) * strength
    raise ValueError(f"noise_mode must be random, const or none, not {mode!r}")


def draw(fn, shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Random numbers on the generator's own device, moved to `device`; without one, the device's global stream."""
    if generator is None:
        return fn(shape, device=device)
    return fn(shape, generator=generator, device=generator.device).to(device)


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU. Buffers and parameters carry the official names."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, resolution: int, up: int = 1, clamp: float | None = None):
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
        self, x: Tensor, w: Tensor, noise_mode: str, generator: torch.Generator | None, gain: float = 1.0
    ) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, up H, up W]."""
        x = modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter, self.up)
        noise = make_noise(noise_mode, self.noise_const, self.noise_strength, x, generator)
        if noise is not None:
            x = x + noise.to(x.dtype)
        return bias_act(x, self.bias, "lrelu", gain, None if self.clamp is None else self.clamp * gain)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, clamp: float | None = None):
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, c_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, H, W]."""
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        x = modulated_conv2d(x, self.weight, styles, self.weight, demodulate=False)
        return bias_act(x, self.bias, clamp=self.clamp)
