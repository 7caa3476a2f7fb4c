"""A request's people in one model: their photos, the latents that show them, and every check on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError, Problem, RefusedError
from guide_hub.evaluation.identity import embed
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces import crops, quality
from guide_hub.faces.crops import FaceCrop
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.inversion import Inverter, Person, Quality, invert_person, measure_quality
from guide_hub.networks import Networks
from guide_hub.recipe import Recipe
from guide_hub.request import Identity


@dataclass(frozen=True)
class Subject:
    """One identity of a request and the faces in its photos."""

    identity: Identity
    faces: list[FaceCrop]

    @property
    def photos(self) -> Tensor:
        """The crops [P, 3, S, S] in [-1, 1]."""
        return torch.stack([face.image for face in self.faces])

    @property
    def poses(self) -> Tensor:
        """Yaw, pitch and roll [P, 3] in radians, from the landmarks."""
        angles = [[face.pose.yaw, face.pose.pitch, face.pose.roll] for face in self.faces]
        return torch.tensor(angles, dtype=torch.float32, device=self.faces[0].image.device)


def read_subjects(identities: Sequence[Identity], size: int, device: torch.device) -> list[Subject]:
    """Identities with crops of `size` pixels. InputError names all photos that can't be used."""
    faces = crops.read_faces(identities, size, device)
    return [Subject(*pair) for pair in zip(identities, faces, strict=True)]


@torch.no_grad()
def check_grouping(subjects: list[Subject], judge: IdentityEncoder, threshold: float) -> None:
    """InputError where one identity's photos show two people, or two identities one person."""
    embeddings = [embed(judge, s.photos) for s in subjects]
    problems = quality.check_people([s.identity for s in subjects], embeddings, threshold)
    if problems:
        raise InputError(*problems)


class Finder:
    """Finds subjects in a model, by a recipe, as the judge sees it at its `threshold`. `apart`: with the
    places of single photos, which an erasure may want."""

    def __init__(
        self, model: EG3D, recipe: Recipe, networks: Networks, threshold: float, apart: bool = False
    ):
        self.model, self.networks, self.threshold = model, networks, threshold
        self.apart = apart
        self.inverter = Inverter(
            model, recipe.inversion, networks.perceptual, networks.identity_loss, networks.inversion
        )
        self.cameras = yaw_cameras(model, recipe.camera, recipe.gate.views)

    def __call__(self, subject: Subject, latent: Tensor | None = None) -> Person:
        """Where the subject is; or, at a given `latent` [1, num_ws, w_dim], whether they are there."""
        return invert_person(self.inverter, subject.photos, subject.poses, self.judge, latent, self.apart)

    def judge(self, photos: Tensor, ws: Tensor, c: Tensor) -> Quality:
        """photos [P, 3, S, S] at their ws [P, num_ws, w_dim] and cameras c [P, 25]."""
        nets = self.networks
        return measure_quality(
            self.model, nets.identity_judge, nets.perceptual, photos, ws, c, self.cameras, self.threshold
        )


def read_latents(path: Path, model: EG3D, identities: Sequence[Identity]) -> list[Tensor]:
    """Each identity's latent from a file that `invert --report` wrote. InputError: one is not in it."""
    shape, found = (1, model.num_ws, model.config.w_dim), {}
    try:
        found = load_file(path, device=str(model.w_avg.device))
    except (OSError, SafetensorError):
        raise InputError("the file of latents cannot be read", remedy="check --latents") from None
    problems = [
        Problem(
            f"there is no latent of this model for {i.label}", "make it anew: guide-hub invert --report DIR"
        )
        for i in identities
        if i.label not in found or found[i.label].shape != shape
    ]
    if problems:
        raise InputError(*problems)
    return [found[i.label].float() for i in identities]


def refuse_unshown(subjects: list[Subject], people: list[Person]) -> None:
    """Erasing the wrong point is worse than stopping.

    RefusedError: the model recognises none of somebody's photos, so it does not show the person. InputError:
    it does recognise one, but not in what would be erased.
    """
    strangers, unlike = [], []
    for subject, person in zip(subjects, people, strict=True):
        name, quality = subject.identity.label, person.quality
        figure = f"cosine {person.cosine:.2f}, threshold {quality.threshold:.2f}"
        if person.shown:
            continue
        if not any(quality.shown):
            strangers.append(
                Problem(
                    f"{name}: the model does not show this person ({figure})",
                    "give a sharper or more frontal first photo, or answer the request with this figure",
                )
            )
            continue
        fitted = quality.cosine[: person.fitted]
        worst = subject.faces[fitted.index(min(fitted))]
        best = subject.faces[quality.cosine.index(max(quality.cosine))]
        remedy = f"remove it, or put {best.key} first" if worst is subject.faces[0] else "remove it"
        unlike.append(
            worst.photo.problem(f"is not the person in the model's picture of {name} ({figure})", remedy)
        )
    if strangers:
        raise RefusedError(*strangers, *unlike)
    if unlike:
        raise InputError(*unlike)
