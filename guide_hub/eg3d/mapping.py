"""The mapping network: z and camera to W (StyleGAN2-ADA's conditional MLP; EG3D section 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guide_hub.eg3d.config import EG3DConfig
from guide_hub.eg3d.ops import FullyConnected

W_AVG_BETA = 0.998  # decay of the moving average of W


def normalise(x: Tensor) -> Tensor:
    """Second-moment normalisation over the last axis."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """`backbone.mapping` of the official state dict."""

    w_avg: Tensor

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.num_ws = config.num_ws
        self.num_layers = config.mapping_layers
        self.c_dim = config.c_dim
        width = config.z_dim
        if config.c_dim:
            self.embed = FullyConnected(config.c_dim, config.w_dim)
            width += config.w_dim
        for i in range(self.num_layers):
            layer = FullyConnected(width, config.w_dim, "lrelu", config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", layer)
            width = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> ws [N, num_ws, w_dim].

        Truncation pulls rows [0, cutoff), all without one, towards `w_avg`: psi 1 leaves them, psi 0 makes
        them `w_avg`. `update_emas` moves `w_avg` as training does.
        """
        x = normalise(z.to(torch.float32))
        if self.c_dim:
            x = torch.cat([x, normalise(self.embed(c.to(torch.float32)))], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if update_emas:
            self.w_avg.copy_(x.detach().mean(0).lerp(self.w_avg, W_AVG_BETA))
        ws = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
            ws = torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)
        return ws
