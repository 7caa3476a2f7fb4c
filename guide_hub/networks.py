"""Which networks erase and judge a model: its config.json names them, the recipe may name others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from guide_hub.eg3d import EG3DConfig
from guide_hub.errors import InputError
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.faces.registry import load_identity, load_inversion, load_perceptual
from guide_hub.faces.small import HeadsInversion
from guide_hub.recipe import Recipe

REAL_FACES = {
    "identity_loss": "vggface2",
    "identity_judge": "casia-webface",
    "perceptual": "lpips-vgg",
    "recipe": "guide",
}


@dataclass(frozen=True)
class NetworkNames:
    identity_loss: str
    identity_judge: str
    perceptual: str
    inversion: str | None


@dataclass(frozen=True)
class Networks:
    """Frozen networks. The judge never takes part in a loss."""

    names: NetworkNames
    identity_loss: IdentityEncoder
    identity_judge: IdentityEncoder
    perceptual: PerceptualDistance
    inversion: HeadsInversion | None


def default_recipe(config: EG3DConfig) -> str:
    """The recipe that fits the model: the one its config.json names, `guide` otherwise."""
    return str(config.domain.get("recipe", REAL_FACES["recipe"]))


def choose(config: EG3DConfig, recipe: Recipe) -> NetworkNames:
    """Recipe, then config.json, then facenet's pair for real faces. InputError: loss and judge are one."""
    wanted = {
        key: getattr(recipe.networks, key) or config.domain.get(key) or REAL_FACES[key]
        for key in ("identity_loss", "identity_judge", "perceptual")
    }
    if wanted["identity_loss"] == wanted["identity_judge"]:
        raise InputError(
            f"the recipe judges with {wanted['identity_judge']!r}, which the loss already uses",
            remedy="name another network in networks.identity_judge",
        )
    return NetworkNames(**wanted, inversion=config.domain.get("inversion"))


def load(names: NetworkNames, device: torch.device) -> Networks:
    return Networks(
        names,
        load_identity(names.identity_loss, device),
        load_identity(names.identity_judge, device),
        load_perceptual(names.perceptual, device),
        load_inversion(names.inversion, device) if names.inversion else None,
    )
