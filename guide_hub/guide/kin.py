"""Directions of W along which a recogniser takes a person for the same: expression, light, what they wear.

A neighbour towards a random person is soon somebody else; a person's other pictures lie along these. Ours,
and not GUIDE's: the recogniser's embedding is fitted as a linear function of the whitened w of random people,
and what it depends on is taken out of a random direction.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from guide_hub import private
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.latents import LatentSpace

PER_DIMENSION = 2.5  # random people behind the fit, for each dimension of W
SEEN = 0.995  # of the fit's variance is what the recogniser sees
COVARIANCE, RIDGE = 4000, 1e-3  # latents behind the whitening
SEED = 77
FILE = "kin.safetensors"


def kin_of(model: EG3D, identity: IdentityEncoder, c: Tensor) -> Tensor:
    """M [w_dim, w_dim]: for x ~ N(0, I), M x is a direction of W that `identity` hardly sees.

    c [1, 25]: the camera of the pictures, made of half the model's rays.
    """
    space, width = LatentSpace(model), model.config.w_dim
    ws = space.random(int(PER_DIMENSION * width), torch.Generator().manual_seed(SEED))
    rays = max(model.config.neural_rendering_resolution // 2, 1)
    seen = embed_views(model, ws, c, identity, rays=rays)[:, 0].double().cpu()
    many = space.random(COVARIANCE, torch.Generator().manual_seed(SEED + 1))[:, 0].double().cpu()
    cov = torch.cov(many.T)
    cov += RIDGE * cov.diagonal().mean() * torch.eye(width, dtype=cov.dtype)
    root = torch.linalg.cholesky(cov)
    white = torch.linalg.solve_triangular(root, (ws[:, 0].double().cpu() - many.mean(0)).T, upper=False).T
    fit = torch.linalg.lstsq(white - white.mean(0), seen - seen.mean(0)).solution
    axes, strength, _ = torch.linalg.svd(fit, full_matrices=False)
    share = strength.square().cumsum(0) / strength.square().sum()
    axes = axes[:, : int((share < SEEN).sum()) + 1]
    return (root - root @ axes @ axes.T).float().contiguous().to(space.device)


def load_kin(model: EG3D, identity: IdentityEncoder, c: Tensor, folders: Sequence[Path]) -> Tensor | None:
    """What `keep_kin` wrote to one of the folders for exactly this model, recogniser and camera."""
    key = key_of(model, identity, c)
    for folder in folders:
        try:
            with safe_open(str(folder / FILE), framework="pt") as file:
                if (file.metadata() or {}).get("of") == key:
                    return file.get_tensor("kin").to(c.device)
        except (OSError, SafetensorError):
            continue
    return None


def keep_kin(folder: Path, kin: Tensor, key: str) -> None:
    """Writes FILE, whole or not at all. Not being able to is no harm."""
    with contextlib.suppress(OSError):
        private.write(folder / FILE, save({"kin": kin.cpu()}, metadata={"of": key}))


def key_of(model: EG3D, identity: IdentityEncoder, c: Tensor) -> str:
    """A digest of all that the fit hangs on."""
    digest = hashlib.sha256(repr((PER_DIMENSION, SEEN, COVARIANCE, RIDGE, SEED)).encode())
    tensors = list(model.state_dict().values())
    if isinstance(identity, nn.Module):
        tensors += list(identity.state_dict().values())
    for tensor in [*tensors, c]:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
