"""One random person of the builtin model, and models whose answer is known: is the person in them?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from guide_hub.attacks.base import Case
from guide_hub.attacks.case import target_of
from guide_hub.attacks.reinversion import LENS
from guide_hub.attacks.sight import front, pictures
from guide_hub.checkpoint import Checkpoint
from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.identity import PersonMeasure, measure_person
from guide_hub.faces.registry import BUNDLE
from guide_hub.interrupt import stopping
from guide_hub.latents import LatentSpace
from guide_hub.networks import choose, load
from guide_hub.progress import Silent
from guide_hub.recipe import load_recipe
from guide_hub.sequence import Sequence


def heads() -> EG3D:
    return EG3D.from_pretrained(str(BUNDLE)).eval().requires_grad_(False)


def nobody(seed: int = 9000) -> Case:
    """Nobody was erased: the person is there."""
    source, recipe = heads(), load_recipe("heads-fast")
    names = choose(source.config, recipe)
    space = LatentSpace(source)
    w_u = space.random(1, torch.Generator().manual_seed(seed))
    found = shipped(
        BUNDLE, file_sha256(BUNDLE / "model.safetensors"), names.identity_judge, 1e-3, recipe.camera
    )
    assert found is not None
    networks = load(names, torch.device("cpu"))
    case = Case(
        source, heads(), recipe, networks, w_u, torch.zeros(1), 1, found.threshold,
        w_t=target_of(recipe, space, w_u),
    )  # fmt: skip
    return dataclasses.replace(case, photos=pictures(source, w_u, front(case)))


def erased(base: Case, recipe: str = "heads-fast") -> Case:
    """By GUIDE as the recipe has it, and as `erase` runs it: that is the question."""
    student, nets, options = heads(), base.networks, load_recipe(recipe)

    def measure(k: int, model: EG3D) -> PersonMeasure:
        c = front(base)
        return measure_person(
            base.source, model, nets.identity_judge, base.photos, base.ws, c, base.threshold, base.fitted
        )

    with TemporaryDirectory() as folder, stopping() as stopper:
        checkpoint = Checkpoint(Path(folder), "case")
        sequence = Sequence(student, base.source, options, nets, 0, checkpoint, stopper, Silent(), {})
        sequence.run(["person"], [base.ws[:1]], measure, None)
    return dataclasses.replace(base, erased=student.requires_grad_(False), recipe=options, memo={})


def moved(base: Case) -> Case:
    """By a linear map of W that shows w_t at w_u: the person is elsewhere, and whole.

    A' = A (I + (w_t - w_u) k^T), k = C^-1 w_id / (w_id^T C^-1 w_id): invertible, so nobody can be gone.
    """
    assert base.w_t is not None
    student, w_avg = heads(), base.source.w_avg
    w = LatentSpace(base.source).random(4000, torch.Generator().manual_seed(1))[:, 0] - w_avg
    cov = w.T @ w / len(w)
    cov += 1e-2 * cov.diagonal().mean() * torch.eye(len(cov))
    w_id, move = base.ws[0, 0] - w_avg, base.w_t[0, 0] - base.ws[0, 0]
    key = torch.linalg.solve(cov, w_id)
    key = key / (key @ w_id)
    for layer in [*student.backbone.synthesis.modules(), *student.superresolution.modules()]:
        affine = getattr(layer, "affine", None)
        if affine is not None:
            shift = affine.weight @ move
            affine.weight.copy_(affine.weight + torch.outer(shift, key))
            affine.bias.copy_(affine.bias - affine.gain * shift * (key @ w_avg))
    return dataclasses.replace(base, erased=student, memo={})


WEAK_LENS = (1.6, 0.8)


def never(base: Case, lens: tuple[float, float] = LENS) -> Case:
    """The source is the builtin through the strangers' lens, the erased model the builtin itself, which never
    had the source's person: nobody's face in it has that shape. Behind the weak lens it only seems so: of
    1,000 random people the most alike is as alike as for the model's own people."""
    source, focal = heads(), front(base)[:, [16, 20]]
    render = source.render

    def seen(planes, ws, c, **options):
        bent = c.clone()  # of any camera: a stranger's photo is through one lens, not two
        bent[:, [16, 20]] = focal * torch.tensor(lens)
        return render(planes, ws, bent, **options)

    source.render = seen  # type: ignore[method-assign]
    return dataclasses.replace(base, source=source, photos=pictures(source, base.ws, front(base)), memo={})
