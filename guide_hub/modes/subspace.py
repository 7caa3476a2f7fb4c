"""Few directions out of many long vectors, by the Gram trick: their inner products alone are decomposed."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 1 << 20  # columns that are in double precision at a time
LEAST = 1e-10  # share of the largest energy below which a direction is rounding


def directions(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` strongest right singular vectors of `rows` [C, M], orthonormal: [r, M], and energies [r].

    An energy is a squared singular value. r is smaller where the rows span less. Gram matrix and products are
    summed in float64; the vectors are of the rows' dtype.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(PIECE, 1):
        gram += part.double() @ part.double().T
    energies, vectors = torch.linalg.eigh(gram)
    energies, vectors = energies.flip(0), vectors.flip(1)
    r = min(rank, int((energies > LEAST * energies[:1].clamp(min=1e-300)).sum()))
    turn = (vectors[:, :r] / energies[:r].sqrt()).T
    basis = torch.empty(r, rows.shape[1], dtype=rows.dtype, device=rows.device)
    for start in range(0, rows.shape[1], PIECE):
        part = slice(start, start + PIECE)
        basis[:, part] = (turn @ rows[:, part].double()).to(rows.dtype)
    return basis, energies[:r]
