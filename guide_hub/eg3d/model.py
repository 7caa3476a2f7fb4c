"""The whole generator: mapping, tri-plane backbone, volume renderer, super-resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d.camera import rays, split_label
from guide_hub.eg3d.config import EG3DConfig
from guide_hub.eg3d.pretrained import Pretrained
from guide_hub.eg3d.rendering import Decoder, RaySampling, Renderer
from guide_hub.eg3d.superresolution import Superresolution
from guide_hub.eg3d.synthesis import Backbone


class EG3D(Pretrained):
    """EG3D (Chan et al., CVPR 2022) with the official checkpoints' state-dict names.

    Cameras `c` [N, 25] are cam2world [4, 4] and normalised intrinsics [3, 3], row-major, with OpenCV's axes
    and in world units. Pictures are nominally in [-1, 1] and not clamped. R is
    `neural_rendering_resolution`, the configured one unless a call names its own.
    """

    def __init__(self, config: EG3DConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = config if isinstance(config, EG3DConfig) else EG3DConfig.from_dict(config)
        self.backbone = Backbone(config)
        self.superresolution = Superresolution(config)
        self.decoder = Decoder(config)
        self.renderer = Renderer(config.rendering)

    @property
    def num_ws(self) -> int:
        return self.config.num_ws

    @property
    def w_avg(self) -> Tensor:
        """Mean of W, [w_dim]."""
        return self.backbone.mapping.w_avg

    def mapping(
        self,
        z: Tensor,
        c: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """z [N, z_dim] ~ N(0, I) and the conditioning camera c [N, 25] -> ws [N, num_ws, w_dim].

        `truncation_psi` pulls rows [0, cutoff), all without one, towards `w_avg`. `update_emas` moves
        `w_avg`.
        """
        options = self.config.rendering
        scale = 0.0 if options.c_gen_conditioning_zero else options.c_scale
        return self.backbone.mapping(z, c * scale, truncation_psi, truncation_cutoff, update_emas)

    def planes(
        self, ws: Tensor, noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """ws [N, num_ws, w_dim] -> tri-planes [N, 3, C, P, P]. `noise_mode`: const, random or none."""
        image = self.backbone.synthesis(ws, noise_mode, generator)
        return image.view(len(image), 3, -1, *image.shape[2:])

    def render(
        self,
        planes: Tensor,
        ws: Tensor,
        c: Tensor,
        *,
        deterministic: bool = False,
        neural_rendering_resolution: int | None = None,
        generator: torch.Generator | None = None,
        sampling: RaySampling | None = None,
        superresolve: bool = True,
    ) -> dict[str, Tensor]:
        """Pictures of planes [N, 3, C, P, P] from cameras c [N, 25]; differentiable in planes, ws and c.

        Returns `image` [N, 3, H, W] (absent without `superresolve`), `image_raw` [N, 3, R, R] and
        `image_depth` [N, 1, R, R] in world units. `sampling` replaces `deterministic` and `generator` where
        the very numbers must be given.
        """
        n, size = len(planes), neural_rendering_resolution or self.config.neural_rendering_resolution
        how = sampling or RaySampling(deterministic, generator)
        origins, directions = rays(*split_label(c), size)
        features, depth, _ = self.renderer(planes, self.decoder, origins, directions, how)
        features = features.transpose(1, 2).reshape(n, -1, size, size)
        out = {"image_raw": features[:, :3], "image_depth": depth.view(n, 1, size, size)}
        if superresolve:
            mode = self.config.rendering.superresolution_noise_mode
            out["image"], skip = self.superresolution(out["image_raw"], features, ws, mode, how.generator)
            kind = self.config.sr_kind
            same_size = size == kind.input_resolution and not kind.first_block_upsamples
            if self.config.image_raw_with_skip and same_size:
                out["image_raw"] = skip
        return out

    def synthesis(
        self,
        ws: Tensor,
        c: Tensor,
        noise_mode: str = "const",
        *,
        deterministic: bool = False,
        neural_rendering_resolution: int | None = None,
        generator: torch.Generator | None = None,
        sampling: RaySampling | None = None,
    ) -> dict[str, Tensor]:
        """`planes`, then `render`. Equal seeds of `generator` give equal pictures on one kind of device."""
        return self.render(
            self.planes(ws, noise_mode, generator), ws, c, deterministic=deterministic,
            neural_rendering_resolution=neural_rendering_resolution, generator=generator, sampling=sampling,
        )  # fmt: skip

    def sample_mixed(
        self,
        xyz: Tensor,
        dirs: Tensor | None,
        ws: Tensor,
        noise_mode: str = "const",
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The scene at world points xyz [N, P, 3]: `rgb` [N, P, F] and raw density `sigma` [N, P, 1].

        `dirs` stands for the reference's signature: the decoder does not look at directions.
        """
        planes = self.planes(ws, noise_mode, generator)
        rgb, sigma = self.renderer.query(planes, self.decoder, xyz, RaySampling(deterministic, generator))
        return {"rgb": rgb, "sigma": sigma}

    def forward(
        self,
        z: Tensor,
        c: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        **synthesis: Any,
    ) -> dict[str, Tensor]:
        """`mapping`, then `synthesis`, both with camera c [N, 25]."""
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), c, **synthesis)
