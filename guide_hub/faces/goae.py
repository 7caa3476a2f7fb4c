"""GOAE's inversion encoder: a face to W+ of EG3D's FFHQ model, by the names of `encoder_FFHQ.pt`.

A Swin Transformer V2 (arXiv 2111.09883) gives token maps at four scales; heads turn the coarsest into one
latent for all layers and queries for each layer, which attend to the finer maps (arXiv 2303.12326). It is
an encoder to be used as it is: dropout and drop-path, which GUIDE's released script leaves on, are left out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guide_hub.errors import InputError

if TYPE_CHECKING:
    from guide_hub.latents import LatentSpace

SIZE = 256
WINDOW = 16
WIDTH = 128
DEPTHS, HEADS, TRAINED_WINDOWS = (2, 2, 18, 2), (4, 8, 16, 32), (12, 12, 12, 6)
LEVELS = {"coarse": 3, "mid": 3, "fine": 7}  # rows of W+ after the first, which has no level of its own
NUM_WS, W_DIM = 1 + sum(LEVELS.values()), 512
MASKED = -100.0
LEAK = 0.01


class WindowAttention(nn.Module):
    """Cosine attention inside windows, with a bias from a network on log-spaced offsets (Swin V2, 3.2-3.3).

    Tokens [N * windows, w * w, C]; `mask` [windows, w * w, w * w] is added to the logits.
    """

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, trained_window: int) -> None:
        super().__init__()
        self.heads = heads
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.proj = nn.Linear(channels, channels)
        offsets = torch.arange(1 - window, window, dtype=torch.float32)
        spaced = 8 * offsets / (trained_window - 1)
        spaced = spaced.sign() * (spaced.abs() + 1).log2() / 3
        table = torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), dim=-1)
        self.register_buffer("relative_coords_table", table[None])
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = (axis.flatten()[:, None] - axis.flatten() + window - 1 for axis in (y, x))
        self.register_buffer("relative_position_index", y * (2 * window - 1) + x)

    def bias(self) -> Tensor:
        """[heads, w * w, w * w]"""
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.heads)
        return 16 * table[self.relative_position_index].permute(2, 0, 1).sigmoid()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, tokens, channels = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(n, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=math.log(100)).exp()
        logits = self.bias()[None]
        if mask is not None:
            logits = (logits + mask[:, None]).repeat(n // len(mask), 1, 1, 1)
        x = F.scaled_dot_product_attention(q, F.normalize(k, dim=-1), v, attn_mask=logits, scale=1.0)
        return self.proj(x.transpose(1, 2).reshape(n, tokens, channels))


class SwinBlock(nn.Module):
    """Attention in windows, then two layers; each is normalised before it is added (Swin V2, 3.2).

    With `shift` the windows are moved by so many places each way, wrapped around, and what does not belong
    together is masked. Tokens [N, grid * grid, C].
    """

    attn_mask: Tensor | None

    def __init__(
        self, channels: int, heads: int, grid: int, window: int, trained_window: int, shift: int
    ) -> None:
        super().__init__()
        self.grid, self.window, self.shift = grid, window, shift
        self.attn = WindowAttention(channels, heads, window, trained_window)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, 4 * channels), act=nn.GELU(), fc2=nn.Linear(4 * channels, channels)
            )
        )
        self.norm2 = nn.LayerNorm(channels)
        self.register_buffer("attn_mask", self._mask() if shift else None)

    def _mask(self) -> Tensor:
        """[windows, w * w, w * w]: `MASKED` between places that only the wrapping has brought together."""
        band = torch.zeros(self.grid)
        band[-self.window :] = 1
        band[-self.shift :] = 2
        regions = self._windows((3 * band[:, None] + band)[None, ..., None])[..., 0]
        return MASKED * (regions[:, :, None] != regions[:, None, :]).float()

    def _windows(self, x: Tensor) -> Tensor:
        """[N, grid, grid, C] -> [N * windows, w * w, C]"""
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
        return x.transpose(2, 3).reshape(-1, self.window**2, x.shape[-1])

    def _grid(self, x: Tensor) -> Tensor:
        """`_windows`, back."""
        side = self.grid // self.window
        x = x.view(-1, side, side, self.window, self.window, x.shape[-1])
        return x.transpose(2, 3).reshape(-1, self.grid, self.grid, x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        grid = x.unflatten(1, (self.grid, self.grid))
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), (1, 2))
        grid = self._grid(self.attn(self._windows(grid), self.attn_mask))
        if self.shift:
            grid = grid.roll((self.shift, self.shift), (1, 2))
        x = x + self.norm1(grid.flatten(1, 2))
        return x + self.norm2(self.mlp(x))


class PatchMerging(nn.Module):
    """Four neighbouring tokens into one of twice the channels: [N, g * g, C] -> [N, g * g / 4, 2 C]."""

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), self.grid // 2, 2, self.grid // 2, 2, -1)
        x = x.permute(
            0, 1, 3, 4, 2, 5
        )  # the four in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column)
        return self.norm(self.reduction(x.flatten(3).flatten(1, 2)))


class PatchEmbed(nn.Module):
    """Pictures to tokens of 4 x 4 pixels, row by row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class SwinStage(nn.Module):
    """Blocks at one resolution, every other one shifted, and the step to the next."""

    def __init__(
        self, channels: int, depth: int, heads: int, grid: int, trained_window: int, last: bool
    ) -> None:
        super().__init__()
        window = min(WINDOW, grid)
        shift = window // 2 if grid > window else 0
        self.blocks = nn.Sequential(
            *(SwinBlock(channels, heads, grid, window, trained_window, shift * (i % 2)) for i in range(depth))
        )
        self.downsample = nn.Identity() if last else PatchMerging(channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class SwinV2(nn.Module):
    """The trunk. Pictures [N, 3, 256, 256] -> tokens [N, 4096, 128], [N, 1024, 256], [N, 256, 512],
    [N, 64, 1024] that enter the four stages, and [N, 64, 1024] that leave the last."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(WIDTH)
        self.layers = nn.ModuleList(
            SwinStage(WIDTH << i, depth, heads, SIZE // 4 >> i, trained, last=i == len(DEPTHS) - 1)
            for i, (depth, heads, trained) in enumerate(zip(DEPTHS, HEADS, TRAINED_WINDOWS, strict=True))
        )
        self.norm = nn.LayerNorm(WIDTH << (len(DEPTHS) - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.patch_embed(images)]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        maps[-1] = self.norm(maps[-1])
        return maps


class CrossAttention(nn.Module):
    """Queries [N, R, 512] look at [N, T, 512]: attention, normalisation, two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.linear1 = nn.Linear(channels, 2 * channels)
        self.linear2 = nn.Linear(2 * channels, channels)

    def forward(self, query: Tensor, seen: Tensor) -> Tensor:
        x = query + self.multihead_attn(query, seen, seen, need_weights=False)[0]
        x = F.layer_norm(x, x.shape[-1:])
        return x + self.linear2(F.relu(self.linear1(x)))


def mlp(*widths: int, leaky_end: bool = False) -> nn.Sequential:
    """Linear layers with LeakyReLU between them and, with `leaky_end`, after the last."""
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        layers += [nn.Linear(d_in, d_out), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers if leaky_end else layers[:-1])


def over_tokens(network: nn.Module, tokens: Tensor) -> Tensor:
    """The network along the tokens: [N, T, C] -> [N, R, C]."""
    return network(tokens.transpose(1, 2)).transpose(1, 2)


class GoaeEncoder(nn.Module):
    """RGB [N, 3, 256, 256] in [-1, 1] -> (ws, ws_base) [N, 14, 512], both as offsets from w_avg.

    `ws_base` repeats one row; `ws` adds what layers 1-3, 4-6 and 7-13 see in the coarse, mid and fine map.
    """

    def __init__(self) -> None:
        super().__init__()
        tokens, channels = (SIZE // 32) ** 2, WIDTH << 3
        self.swin_model = SwinV2()
        self.mapper_base_spatial = mlp(tokens, tokens, 1)
        self.mapper_base_channel = mlp(channels, channels, W_DIM)
        for level, rows in LEVELS.items():
            self.add_module(f"mapper_query_spatial_{level}", mlp(tokens, tokens, rows))
            self.add_module(f"mapper_query_channel_{level}", mlp(channels, channels, W_DIM))
            self.add_module(f"cross_att_{level}", CrossAttention(W_DIM))
        self.mapper_coarse_channel = mlp(512, W_DIM, leaky_end=True)
        self.mapper_mid_channel = mlp(256, W_DIM, leaky_end=True)
        self.mapper_fine_channel = mlp(128, 256, W_DIM, leaky_end=True)
        self.mapper_coarse_to_mid_spatial = mlp(256, 512, 1024, leaky_end=True)
        self.mapper_mid_to_fine_spatial = mlp(1024, 2048, 4096, leaky_end=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine, mid, coarse, query, base = self.swin_model(images)
        seen = {"coarse": self.mapper_coarse_channel(coarse)}
        seen["mid"] = self.mapper_mid_channel(mid) + over_tokens(
            self.mapper_coarse_to_mid_spatial, seen["coarse"]
        )
        seen["fine"] = self.mapper_fine_channel(fine) + over_tokens(
            self.mapper_mid_to_fine_spatial, seen["mid"]
        )
        row = self.mapper_base_channel(_pooled(self.mapper_base_spatial, base))
        rows = [torch.zeros_like(row)]
        for level in LEVELS:
            asked = _pooled(self.get_submodule(f"mapper_query_spatial_{level}"), query)
            asked = self.get_submodule(f"mapper_query_channel_{level}")(asked)
            rows.append(self.get_submodule(f"cross_att_{level}")(asked, seen[level]))
        ws_base = row.repeat(1, NUM_WS, 1)
        return ws_base + torch.cat(rows, dim=1), ws_base

    def start(self, crops: Tensor, space: LatentSpace) -> tuple[Tensor, Tensor]:
        """Latents [P, 14, 512] in W+ for crops [P, 3, H, W] in [-1, 1]; GOAE finds no camera: frontal.

        InputError for a model whose latents have another shape than EG3D's at 512 px.
        """
        shape = (space.model.num_ws, space.model.config.w_dim)
        if shape != (NUM_WS, W_DIM):
            raise InputError(
                f"goae inverts into models of {NUM_WS} x {W_DIM} latents, and this one's are "
                f"{shape[0]} x {shape[1]}",
                remedy="set networks.inversion to null, or inversion.backend to optimize, in the recipe",
            )
        if crops.shape[-2:] != (SIZE, SIZE):  # as PIL resizes, which the encoder was trained on
            crops = F.interpolate(crops, (SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True)
        offsets = [self(crop.clamp(-1, 1))[0] for crop in crops.split(1)]
        return torch.cat(offsets) + space.w_avg, torch.zeros(len(crops), 3, device=crops.device)


def _pooled(network: nn.Module, tokens: Tensor) -> Tensor:
    """Learned sums over the tokens beside their maximum: [N, T, C] -> [N, R, C]."""
    return over_tokens(network, tokens) + tokens.amax(1, keepdim=True)
