"""GUIDE with the earlier people's (w_j, w_t,j) in every step, as the recipe's `replay:` says.

The teacher still shows them: rehearsing sends them to their surrogates again, and their neighbourhoods leave
the global samples, which would pull them back.
"""

from __future__ import annotations

from torch import Tensor

from guide_hub.guide.eraser import Erasure
from guide_hub.modes.base import Mode, Setup, rehearsable


class Replay(Mode):
    """Needs the stored latents of everybody before; whom a run did not store, it cannot rehearse."""

    def __init__(self, setup: Setup, latents: list[Tensor]):
        super().__init__(setup, latents)
        missing = len(self.earlier) - len(rehearsable(self.earlier))
        if missing:
            setup.warn(f"{missing} people of earlier runs are not rehearsed: their latents were not kept")

    def known(self) -> list[Erasure]:
        return rehearsable(self.earlier) + [d.erasure for d in self.done.values()]
