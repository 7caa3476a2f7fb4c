"""One person of a request: which photos find the latent to erase, which test it, and what the gate says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guide_hub.inversion.inverter import Inversion, Inverter
from guide_hub.inversion.quality import Quality

Gate = Callable[[Tensor, Tensor, Tensor], Quality]  # photos [P, 3, S, S], ws, c: `measure_quality`'s answer


@dataclass(frozen=True)
class Person:
    """What P photos of one person found in a model.

    The first `fitted` photos found `latent` [1, num_ws, w_dim], which is to be erased, together; the others,
    each inverted for itself, are held out to test the erasure. ws [P, num_ws, w_dim], c [P, 25]: each
    photo's own. `quality`: fitted photos at `latent`, held-out ones at their own ws. `apart`: where fitted
    photos lie that were inverted for themselves as well, if the model shows them there, [A, num_ws, w_dim].
    """

    latent: Tensor
    ws: Tensor
    c: Tensor
    fitted: int
    quality: Quality
    apart: Tensor | None = None

    @property
    def cosine(self) -> float:
        """The fitted photos' mean cosine at `latent`."""
        return self.quality.mean_cosine(self.fitted)

    @property
    def shown(self) -> bool:
        """Whether that reaches the threshold."""
        return self.cosine >= self.quality.threshold

    @property
    def tested(self) -> list[int]:
        """The held-out photos that can test an erasure: those that the judge recognises now."""
        return [k for k in range(self.fitted, len(self.ws)) if self.quality.shown[k]]

    @property
    def measured(self) -> list[int]:
        """The photos that an erasure is judged by: the fitted ones, then `tested`."""
        return [*range(self.fitted), *self.tested]

    @property
    def places(self) -> Tensor:
        """What an erasure is told: `latent`, then `apart`, [1 + A, num_ws, w_dim]."""
        return self.latent if self.apart is None else torch.cat([self.latent, self.apart])

    @property
    def points(self) -> Tensor:
        """Where it is judged: `latent`, then the ws of `tested`, [1 + tested, num_ws, w_dim]."""
        return torch.cat([self.latent, self.ws[self.tested]])


def fitted_of(photos: int) -> int:
    """How many of a person's photos are fitted; of two or more, a third (at least one) is held out."""
    return photos - max(1, photos // 3) if photos > 1 else 1


def invert_person(
    inverter: Inverter,
    photos: Tensor,
    poses: Tensor | None,
    gate: Gate,
    latent: Tensor | None = None,
    apart: bool = False,
) -> Person:
    """photos [P, 3, S, S] of one person, poses [P, 3] from their landmarks or None.

    Where the gate does not hold, the fit goes on in W+. With a `latent` [1, num_ws, w_dim] there is nothing
    to fit but the cameras. `apart`: each of several fitted photos for itself as well, in as many steps, with
    a given latent too.
    """
    n = fitted_of(len(photos))
    first, rest = (poses[:n], poses[n:]) if poses is not None else (None, None)
    if latent is None:
        found = inverter(photos[:n], first, joint=n > 1)
    else:
        found = inverter.of_latent(latent, photos[:n], first)
    quality = _judged(found, photos[:n], gate)
    if latent is None and inverter.options.more_steps and quality.mean_cosine(n) < quality.threshold:
        found = inverter.more(photos[:n], found)
        quality = _judged(found, photos[:n], gate)
    alone = None
    if apart and n > 1:
        each = inverter(photos[:n], first)
        alone = each.ws[torch.tensor(gate(photos[:n], each.ws, each.c).shown)]
    parts = [found]
    if n < len(photos):
        others = inverter(photos[n:], rest)
        held_out = gate(photos[n:], others.ws, others.c)
        quality = Quality(
            quality.cosine + held_out.cosine, quality.perceptual + held_out.perceptual, quality.threshold
        )
        parts.append(others)
    return Person(
        _latent(found), torch.cat([p.ws for p in parts]), torch.cat([p.c for p in parts]), n, quality, alone
    )


def _judged(found: Inversion, photos: Tensor, gate: Gate) -> Quality:
    return gate(photos, _latent(found).expand(len(photos), -1, -1), found.c)


def _latent(found: Inversion) -> Tensor:
    return found.ws if found.shared is None else found.shared
