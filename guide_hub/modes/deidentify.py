"""SUGAR's network that finds a person's surrogate (arXiv 2512.06562): a small U-Net over latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from guide_hub.guide.eraser import Eraser, step_seed
from guide_hub.guide.losses import Rendering, view
from guide_hub.latents import norm_of
from guide_hub.orbit import orbit_label

CHANNELS = 64
LR = 8e-4  # 2e-4 times their batch of 4


class _Block(nn.Module):
    """Residual, pre-activation: two 3x3 convolutions beside a 1x1."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.body(x)
        return out


class Deidentifier(nn.Module):
    """Phi: w_id [N, num_ws, w_dim], as a picture of one channel, to a direction of that shape.

    Two levels, `CHANNELS` wide at the upper one; the output is the mean over channels. Xavier's weights, from
    `seed`. What SUGAR's text leaves open, normalisation and the lower level's width, is ours.
    """

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(1, CHANNELS, 3, padding=1)
            self.upper = _Block(CHANNELS, CHANNELS)
            self.lower = _Block(CHANNELS, 2 * CHANNELS)
            self.joined = _Block(3 * CHANNELS, CHANNELS)
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, w_id: Tensor) -> Tensor:
        upper = self.upper(self.first(w_id[:, None]))
        lower = self.lower(functional.avg_pool2d(upper, 2, ceil_mode=True))
        lower = functional.interpolate(lower, size=upper.shape[2:], mode="nearest")
        out: Tensor = self.joined(torch.cat([upper, lower], 1)).mean(1)
        return out


def surrogate(phi: Deidentifier, eraser: Eraser, w_u: Tensor) -> Tensor:
    """`w_t = w_avg - d Phi(w_id) / ||Phi(w_id)||`, each latent by its own norm; [N, num_ws, w_dim]."""
    target, w_avg = eraser.recipe.target, eraser.space.w_avg
    direction = phi(w_u - w_avg)
    return w_avg - target.d * eraser.unit * direction / norm_of(direction, target.norm)


def train(phi: Deidentifier, eraser: Eraser, w_u: Tensor, steps: int, seed: int) -> None:
    """Trains Phi on `w_u` [1, num_ws, w_dim] with the teacher frozen: the surrogate keeps w_u's planes and
    loses its looks.

    `l_L2 L_2 - l_id sg(l_L2 L_2) L_id - l_per L_per` between the teacher's views of both, one yaw a step; the
    weights are the recipe's local ones, sg stops the gradient.
    """
    recipe, teacher, local = eraser.recipe, eraser.teacher, eraser.local
    optimizer = torch.optim.Adam(phi.parameters(), lr=LR)
    for step in range(steps):
        rng = torch.Generator().manual_seed(step_seed(seed, step))
        yaw = (2 * float(torch.rand((), generator=rng)) - 1) * recipe.camera.yaw_range
        c = orbit_label(teacher.config, recipe.camera, yaw).to(eraser.space.device)
        how = Rendering(
            recipe.noise,
            recipe.deterministic_rays,
            recipe.shared_noise,
            step_seed(seed, step),
            recipe.speed.rays,
        )
        with torch.no_grad():
            aim = eraser.loss.aim(view(teacher, w_u, c, how, side=1), local)
        terms = eraser.loss(view(teacher, surrogate(phi, eraser, w_u), c, how, side=0), aim)
        near = local.l2 * terms["l2"] if "l2" in terms else torch.zeros(len(w_u), device=w_u.device)
        loss = near
        if "identity" in terms:
            loss = loss - local.identity * near.detach() * terms["identity"]
        if "perceptual" in terms:
            loss = loss - local.perceptual * terms["perceptual"]
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
    phi.requires_grad_(False)
