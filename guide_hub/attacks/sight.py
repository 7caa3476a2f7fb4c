"""What the attacks look with: the person as a recogniser knows them, cameras, and pictures of latents."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from guide_hub.attacks.base import Case
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.identity import embed
from guide_hub.evaluation.views import embed_views
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.inversion.projector import chunk_of
from guide_hub.latents import LatentSpace
from guide_hub.orbit import orbit_label
from guide_hub.recipe import Camera


@torch.no_grad()
def template(encoder: IdentityEncoder, photos: Tensor) -> Tensor:
    """The person of photos [P, 3, H, W]: the unit mean of their embeddings, [E].

    What verification compares with where it has several pictures of one person.
    """
    return F.normalize(embed(encoder, photos).mean(0), dim=0)


def person(case: Case) -> Tensor:
    """The case's person as the judge knows them, [E]: of all photos."""
    return template(case.networks.identity_judge, case.photos)


def front(case: Case) -> Tensor:
    """The recipe's frontal camera, [1, 25]."""
    return round_cameras(case, 1)


def round_cameras(case: Case, yaws: int, reach: float = math.pi / 12, pitch: float = 0.0) -> Tensor:
    """Cameras at `yaws` within +-`reach` on the recipe's orbit, `pitch` radians off its own: [yaws, 25]."""
    camera: Camera = dataclasses.replace(case.recipe.camera, pitch=case.recipe.camera.pitch + pitch)
    angles = torch.linspace(-reach, reach, yaws) if yaws > 1 else torch.zeros(1)
    return orbit_label(case.source.config, camera, angles).to(case.ws.device)


@torch.no_grad()
def pictures(model: EG3D, ws: Tensor, c: Tensor, rays: int | None = None) -> Tensor:
    """Every latent from one camera: ws [N, num_ws, w_dim], c [1, 25] -> [N, 3, H, W] in [-1, 1]."""
    shown = []
    for part in ws.split(chunk_of(model.config.img_resolution)):
        planes = model.planes(part, noise_mode="const")
        out = model.render(
            planes, part, c.expand(len(part), -1), deterministic=True, neural_rendering_resolution=rays
        )
        shown.append(out["image"].clamp(-1, 1))
    return torch.cat(shown)


@torch.no_grad()
def look(model: EG3D, ws: Tensor, c: Tensor, encoder: IdentityEncoder, rays: int | None = None) -> Tensor:
    """Unit embeddings of every latent from one camera, [N, E]. Pictures are not kept."""
    parts = ws.split(chunk_of(model.config.img_resolution))
    return torch.cat([encoder(pictures(model, part, c, rays)) for part in parts])


def rough(model: EG3D, planes: Tensor, ws: Tensor, c: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] at half the rays, to learn or search by: planes of ws, cameras c [N or 1, 25]."""
    rays = max(model.config.neural_rendering_resolution // 2, 1)
    c = c.expand(len(ws), -1)
    return model.render(planes, ws, c, deterministic=True, neural_rendering_resolution=rays)["image"]


@torch.no_grad()
def encoded(case: Case, photo: Tensor) -> tuple[Tensor, Tensor] | None:
    """The encoder's latent [1, num_ws, w_dim] and pose [1, 3] of a photo, where there is an encoder."""
    encoder = case.networks.inversion
    return None if encoder is None else encoder.start(photo, LatentSpace(case.source))


def look_round(
    model: EG3D, ws: Tensor, c: Tensor, encoder: IdentityEncoder, rays: int | None = None
) -> Tensor:
    """Unit embeddings of every latent from every camera, [N, V, E]."""
    return embed_views(model, ws, c, encoder, chunk_of(model.config.img_resolution), rays)


def share(cosine: Tensor, threshold: float) -> float:
    """The share of pictures that are taken for the person."""
    return float((cosine >= threshold).double().mean())


def short(value: float | Tensor) -> float:
    """As figures are published."""
    return round(float(value), 4)
