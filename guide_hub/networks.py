"""Which networks erase and judge a model: its config.json names them, the recipe may name others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3DConfig
from guide_hub.errors import InputError
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.inversion import InversionEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.faces.registry import (
    check_name,
    load_identity,
    load_inversion,
    load_perceptual,
    names,
    weights_file,
)
from guide_hub.recipe import Recipe, list_recipes

KINDS = {
    "identity_loss": "identity",
    "identity_judge": "identity",
    "perceptual": "perceptual",
    "inversion": "inversion",
}
REAL_FACES = {
    "identity_loss": "vggface2",
    "identity_judge": "casia-webface",
    "perceptual": "lpips-vgg",
    "recipe": "guide",
}


@dataclass(frozen=True)
class NetworkNames:
    """NAME or NAME:PATH of each network; `inversion` is None where no encoder is used."""

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
    inversion: InversionEncoder | None


def default_recipe(config: EG3DConfig) -> str:
    """The recipe that fits the model: the one its config.json names, `guide` otherwise.

    InputError for one that does not come with guide-hub: a model names no files of this machine.
    """
    return named_by_model(config, "recipe", list_recipes()) or REAL_FACES["recipe"]


def choose(config: EG3DConfig, recipe: Recipe) -> NetworkNames:
    """Recipe, then config.json, then facenet's pair for real faces. Optimisation alone needs no encoder.

    The recipe may give files (NAME:PATH), config.json only names. InputError: one names anything else, or
    loss and judge are one.
    """
    own = {key: named_by_model(config, key, names(kind)) for key, kind in KINDS.items()}
    wanted: dict[str, Any] = {
        key: getattr(recipe.networks, key) or own[key] or REAL_FACES.get(key) for key in KINDS
    }
    if recipe.inversion.backend == "optimize":
        wanted["inversion"] = None
    for key, name in wanted.items():
        if name is not None:
            check_name(name, KINDS[key])
    if wanted["identity_loss"] == wanted["identity_judge"]:
        raise InputError(
            f"the recipe judges with {wanted['identity_judge']!r}, which the loss already uses",
            remedy="name another network in networks.identity_judge",
        )
    return NetworkNames(**wanted)


def named_by_model(config: EG3DConfig, key: str, known: list[str]) -> str | None:
    """What config.json, which anybody may have written, names for `key`. InputError: it is not `known`."""
    name = config.domain.get(key)
    if name is not None and name not in known:
        raise InputError(
            f"the model's config.json names no known {key} in domain.{key}",
            remedy="known: " + ", ".join(known),
        )
    return name


def weights_sha256(chosen: NetworkNames) -> dict[str, str]:
    """SHA-256 of the weight files by what they are for; fetches those that are not here."""
    return {key: file_sha256(weights_file(name)) for key, name in asdict(chosen).items() if name is not None}


def load(chosen: NetworkNames, device: torch.device) -> Networks:
    return Networks(
        chosen,
        load_identity(chosen.identity_loss, device),
        load_identity(chosen.identity_judge, device),
        load_perceptual(chosen.perceptual, device),
        load_inversion(chosen.inversion, device) if chosen.inversion else None,
    )
