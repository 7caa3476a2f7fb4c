"""What if the model could not see where the person lies? By hand, and no recipe's.

    python cuts.py --rounds 5

Folded into the affine weights of the source, every row of the latent loses the directions, in whitened W,
in which the person lies: first those of w_u, then of what four searches find in what is left, and so on
(after iterative nullspace projection, arXiv 2004.07667). Nothing is trained: no loss could hide the person
any better along these directions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tests"), str(HERE.parent), str(HERE.parents[1] / "sequence_study")]

import heads_cases
import torch
from torch import Tensor, nn

from guide_hub.attacks import reinversion
from guide_hub.attacks.base import Case
from guide_hub.attacks.likely import Likely
from guide_hub.eg3d import EG3D
from guide_hub.latents import LatentSpace
from lab import Lab
from options import SHORT


class Cuts:
    """`axes` [num_ws, r, w_dim]: orthonormal, of each row of ws in the coordinates of `Likely`."""

    def __init__(self, likely: Likely, rows: int) -> None:
        self.likely = likely
        self.axes = torch.empty(rows, 0, len(likely.mean), dtype=likely.mean.dtype)

    def add(self, ws: Tensor) -> None:
        """Where a latent [num_ws, w_dim] lies, as far as that is left."""
        v = self.likely.inward(ws.to(self.axes))[:, None]
        v = v - v @ self.axes.mT @ self.axes
        self.axes = torch.cat([self.axes, v / v.norm(dim=-1, keepdim=True)], 1)

    @torch.no_grad()
    def fold(self, model: EG3D) -> EG3D:
        """The model, its affines blind along the axes: there they have what the mean of W gives them."""
        stretch = self.likely.axes * self.likely.deviation
        for axes, affines in zip(self.axes, affines_of(model), strict=True):
            seen = stretch @ (axes.T @ axes) @ torch.linalg.inv(stretch)
            for affine in affines:
                lost = affine.weight.double() @ seen
                affine.bias.add_((lost @ self.likely.mean * affine.gain).to(affine.bias))
                affine.weight.sub_(lost.to(affine.weight))
        return model


def affines_of(model: EG3D) -> list[list[nn.Module]]:
    """By the row of ws that they read: a toRGB shares its row with the next conv0, super-resolution has the
    last."""
    rows: list[list[nn.Module]] = [[] for _ in range(model.num_ws)]
    row, synthesis = 0, model.backbone.synthesis
    for resolution in synthesis.resolutions:
        block = getattr(synthesis, f"b{resolution}")
        layers = [block.conv0] if row else []
        for i, layer in enumerate([*layers, block.conv1, block.torgb]):
            rows[row + i].append(layer.affine)
        row += block.num_layers
    rows[-1] += [layer.affine for layer in model.superresolution.modules() if hasattr(layer, "affine")]
    return rows


def searched(base: Case, model: EG3D, likely: Likely, seed: int) -> reinversion.Found:
    case, budget = replace(base, erased=model, seed=seed, memo={}), replace(SHORT, restarts=4)
    real = reinversion.person(case)
    return reinversion.search(case, model, likely, case.photos[:1], case.ws[:1], real, budget)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    base, lab = heads_cases.nobody(), Lab("heads-fast")
    likely = Likely(LatentSpace(base.source), reinversion.LIKELY_MAX)
    cuts = Cuts(likely, base.source.num_ws)
    cuts.add(base.ws[0])
    for number in range(args.rounds + 1):
        model = cuts.fold(heads_cases.heads())
        found = searched(base, model, likely, number)
        row = {
            "directions": cuts.axes.shape[1],
            "retained": lab.retained(model),
            "searches": len(found.ws),
            "cosine_best": round(float(found.cosine.mean(1).max()), 4),
            "verified": round(float((found.cosine >= base.threshold).double().mean()), 4),
        }
        print(json.dumps(row), flush=True)
        for ws in found.ws:
            cuts.add(ws)


if __name__ == "__main__":
    main()
