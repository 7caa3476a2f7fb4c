"""What the modes of a sequence share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Memory:
    """What a later run needs of one erased identity. Private: it goes to the ledger alone."""

    w_u: Tensor | None  # [1, num_ws, w_dim]; None where the mode stores no person
    w_t: Tensor | None
    tensors: dict[
        str, Tensor
    ]  # the mode's own (project: a basis by parameter name; sugar: Phi's weights, Fisher)
