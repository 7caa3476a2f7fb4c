"""The released structure of GUIDE: its step and its evaluation, built anew from the paper and a description.

Same losses as `guide_hub.guide`, with the work arranged as the released code has it:

* the planes are synthesised for the MSE and once more inside every rendering: 8 passes of the backbone a
  side, where 5 would do;
* every latent goes through alone: 5 renderings a side;
* one backward over the sum, so that all graphs live at once;
* the teacher is frozen but not under no_grad; the recogniser and LPIPS's linear heads keep `requires_grad`:
  the recogniser makes a graph of the target's side too, and both get gradients that nothing reads or clears;
* neighbours are float64, since their alpha is;
* every pass has noise and ray jitter of its own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from guide_hub.eg3d import EG3D
from guide_hub.evaluation.identity import Likeness, PersonMeasure, RetainedMeasure, likeness
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.guide import Draws, Eraser, Erasure, StepLosses
from guide_hub.latents import norm_of
from guide_hub.recipe import Recipe


class Released(Eraser):
    """An eraser whose step is arranged as in the released code; targets and draws are the parent's.

    `fixed_noise`: const noise and deterministic rays, for comparing losses. `backward`: once over the `sum`,
    as released, or after each `pair`, the same gradient in far less memory. One identity alone; the loss
    networks are unfrozen in place.
    """

    def __init__(
        self,
        student: EG3D,
        teacher: EG3D,
        recipe: Recipe,
        perceptual: PerceptualDistance,
        identity: IdentityEncoder,
        *,
        fixed_noise: bool = False,
        backward: Literal["sum", "pair"] = "sum",
    ):
        super().__init__(student, teacher, recipe, perceptual, identity)
        self.perceptual, self.identity = perceptual, identity
        self.fixed, self.backward = fixed_noise, backward
        optim = recipe.optim
        self.optimizer = torch.optim.Adam(student.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps)
        unfreeze(perceptual, identity)

    def step(self, erasure: Erasure, draws: Draws) -> StepLosses:
        recipe, losses = self.recipe, StepLosses()
        adjacency, wide = recipe.adjacency, recipe.bystanders
        self.optimizer.zero_grad()
        total: Tensor | float = 0.0

        def add(name: str, weight: float, loss: Tensor) -> None:
            nonlocal total
            setattr(losses, name, getattr(losses, name) + weight * float(loss.detach()))
            if self.backward == "pair":
                (weight * loss).backward()
            else:
                total = total + weight * loss

        add("local", 1.0, self._local(erasure.w_u, erasure.w_t, draws.c, losses, "local"))
        if adjacency.weight:
            share = 1.0 if adjacency.reduce == "sum" else 1.0 / len(draws.alpha)
            drawn = (draws.z_adjacent, draws.alpha.double())
            for z, alpha in zip(*(x.to(erasure.w_u.device).split(1) for x in drawn), strict=True):
                toward = self.student.mapping(z, self.space.cond) - erasure.w_u
                offset = alpha * (toward / norm_of(toward, recipe.target.norm))
                w_student, w_teacher = erasure.w_u + offset, erasure.w_t + offset
                loss = self._local(w_student, w_teacher, draws.c, losses, "adjacency")
                add("adjacency", adjacency.weight * share, loss)
        if wide.weight:
            share = 1.0 if wide.reduce == "sum" else 1.0 / len(draws.w_global)
            for w in draws.w_global.split(1):
                images = (self._image(model, w, draws.c) for model in (self.student, self.teacher))
                loss = self.perceptual(*images).mean()
                losses.terms.setdefault("bystanders.perceptual", []).append(float(loss.detach()))
                add("bystanders", wide.weight * share, loss)
        if isinstance(total, Tensor):
            total.backward()
        self.optimizer.step()
        return losses

    def _local(
        self, w_student: Tensor, w_teacher: Tensor, c: Tensor, losses: StepLosses, name: str
    ) -> Tensor:
        """L_local of one pair: its planes, then its pictures, which make the planes again."""
        weights = self.recipe.local
        mse = (self._planes(self.student, w_student) - self._planes(self.teacher, w_teacher)).square().mean()
        image, target = self._image(self.student, w_student, c), self._image(self.teacher, w_teacher, c)
        terms = {"l2": mse, "perceptual": self.perceptual(image, target).mean()}
        terms["identity"] = 1 - (self.identity(image) * self.identity(target).detach()).sum(1).mean()
        for key, value in terms.items():
            losses.terms.setdefault(f"{name}.{key}", []).append(float(value.detach()))
        return torch.stack([getattr(weights, key) * value for key, value in terms.items()]).sum()

    def _planes(self, model: EG3D, w: Tensor) -> Tensor:
        return model.planes(w, noise_mode="const" if self.fixed else "random")

    def _image(self, model: EG3D, w: Tensor, c: Tensor) -> Tensor:
        mode = "const" if self.fixed else "random"
        return model.synthesis(w, c, noise_mode=mode, deterministic=self.fixed)["image"]


def unfreeze(perceptual: object, identity: object) -> None:
    """What keeps `requires_grad` in the released loop: the recogniser, and of LPIPS the linear heads."""
    if isinstance(identity, nn.Module):
        identity.requires_grad_(True)
    heads = getattr(getattr(perceptual, "module", None), "lins", None)
    if isinstance(heads, nn.Module):
        heads.requires_grad_(True)


@torch.no_grad()
def measure_view_by_view(
    source: EG3D,
    erased: EG3D,
    judge: IdentityEncoder,
    perceptual: PerceptualDistance,
    person: tuple[Tensor, Tensor, Tensor],
    people: tuple[Tensor, Tensor],
    threshold: float,
    fitted: int = 1,
) -> tuple[PersonMeasure, RetainedMeasure]:
    """What `measure_person` and `measure_retained` say, by the released evaluation's loop: one latent and one
    view at a time, each through the whole generator, pictures embedded one by one.

    `person`: photos [P, 3, H, W], ws and cameras c of `measure_person`; `people`: ws and c of
    `measure_retained`.
    """

    def picture(model: EG3D, w: Tensor, c: Tensor) -> Tensor:
        return model.synthesis(w, c, deterministic=True)["image"].clamp(-1, 1)

    photos, ws, cameras = person
    real = torch.cat([judge(photo) for photo in photos.split(1)])
    sides = []
    for model in (source, erased):
        rows = [torch.cat([judge(picture(model, w, c)) for c in cameras.split(1)]) for w in ws.split(1)]
        sides.append(torch.stack(rows))
    before, after = sides

    def others(views: Tensor) -> Likeness | None:
        return likeness(real[fitted:], views[1:], threshold) if len(photos) > fitted else None

    found = PersonMeasure(
        likeness(real[:fitted], before[:1], threshold), likeness(real[:fitted], after[:1], threshold),
        float((before[0] * after[0]).sum(-1).mean()), others(before), others(after),
    )  # fmt: skip
    cosine, distance = [], []
    for w in people[0].split(1):
        for c in people[1].split(1):
            a, b = picture(source, w, c), picture(erased, w, c)
            cosine.append(float((judge(a) * judge(b)).sum()))
            distance.append(float(perceptual(a, b)))
    n = len(cosine)
    verified = sum(value >= threshold for value in cosine) / n
    return found, RetainedMeasure(len(people[0]), verified, sum(cosine) / n, sum(distance) / n)
