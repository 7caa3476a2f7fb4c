"""A case from what a run or `verify --request` knows of a person, and its findings in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_hub.attacks.base import Case
from guide_hub.eg3d import EG3D
from guide_hub.guide.target import average_target, ufo_target, unit_of
from guide_hub.latents import LatentSpace
from guide_hub.networks import Networks
from guide_hub.recipe import Recipe
from guide_hub.request import Identity

PIECE = 48  # bytes of a photo that are nobody else's


def make_case(
    source: EG3D,
    erased: EG3D,
    recipe: Recipe,
    networks: Networks,
    ws: Tensor,
    photos: Tensor,
    fitted: int,
    threshold: float,
    *,
    seed: int = 0,
    w_t: Tensor | None = None,
    folder: Path | None = None,
    secrets: tuple[bytes, ...] = (),
    apart: Tensor | None = None,
    memo: dict[Any, Any] | None = None,
) -> Case:
    """See `Case`. A `w_t` that is not given is computed, where the recipe's kind of target can be."""
    if w_t is None:
        w_t = target_of(recipe, LatentSpace(source), ws[:1])
    shared = {} if memo is None else memo
    return Case(
        source, erased, recipe, networks, ws, photos, fitted, threshold, seed, w_t, folder, secrets, apart,
        shared,
    )  # fmt: skip


def target_of(recipe: Recipe, space: LatentSpace, w_u: Tensor) -> Tensor | None:
    """Where the recipe sends w_u by itself; None for a random target."""
    target = recipe.target
    if target.kind == "average":
        return average_target(w_u, space.w_avg)
    if target.kind == "ufo":
        return ufo_target(w_u, space.w_avg, target.d * unit_of(target, space), target.norm)
    return None


def secrets_of(identity: Identity) -> tuple[bytes, ...]:
    """What no public file may hold of an identity's photos: names, hashes and pieces of the files."""
    found = []
    for photo in identity.images:
        found += [photo.path.name.encode(), photo.sha256.encode(), bytes.fromhex(photo.sha256)]
        data = photo.path.read_bytes() if photo.path.is_file() else b""
        apart = max(1, len(data) // 4)
        found += [data[at : at + PIECE] for at in range(apart, len(data) - PIECE, apart)]
    return tuple(secret for secret in found if len(secret) >= 4)


def figures_text(figures: Mapping[str, float | int | None]) -> str:
    """Figures for people: "cosine after 0.059, views 33"."""
    known = ((name.replace("_", " "), value) for name, value in figures.items() if value is not None)
    return ", ".join(f"{name} {value:g}" for name, value in known)
