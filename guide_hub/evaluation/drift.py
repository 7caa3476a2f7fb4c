"""How far a model's pictures have moved as a whole: Frechet (FID, arXiv 1706.08500) and kernel distance
(KID, arXiv 1801.01401) of features, both by torch-fidelity, with intervals.

With the features of FID's Inception network the Frechet distance is FID; with any others it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.evaluation.interval import Figure, jackknife
from guide_hub.faces.features import FeatureExtractor
from guide_hub.latents import LatentSpace
from guide_hub.orbit import orbit_label
from guide_hub.recipe import Camera

BATCH = 16
GROUPS = 20
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # Inception's usual ones
NOISE_STREAM = 1 << 32  # keeps the noise's draws apart from those of z


@dataclass(frozen=True)
class KernelDistance:
    """KID: the mean over `subsets` random subsets of `subset_size`, and their standard deviation."""

    mean: float
    std: float
    subsets: int
    subset_size: int


@dataclass(frozen=True)
class Drift:
    """Two models on the same n latents and cameras, with 95 % intervals over latents (None: n too small).

    `kid` is of all samples, `kid_std` its standard error.
    """

    fid: float
    fid_low: float | None
    fid_high: float | None
    kid: float
    kid_low: float | None
    kid_high: float | None
    kid_std: float | None
    n: int
    features: int
    extractor: str
    seed: int


# ----------------------------------------------------------------------------
# Features of random pictures


@torch.no_grad()
def sample_features(
    model: EG3D,
    extractor: FeatureExtractor,
    n: int,
    seed: int,
    camera: Camera,
    noise_mode: str = "const",
    noise_seed: int = 0,
    batch: int = BATCH,
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """Features of n random pictures as GUIDE samples them, [n, F] on the CPU.

    psi 1, yaw ~ U(-yaw_range, yaw_range) on the recipe's orbit, one picture at a time. z and yaw come from
    `seed` alone, so models sampled with one seed are paired; `noise_seed` drives the ray jitter, which is
    always on, and the backbone's noise where `noise_mode` is random. `done(i)` is called after every batch.
    """
    draw = torch.Generator().manual_seed(seed)
    ws = LatentSpace(model).random(n, draw)
    yaw = (torch.rand(n, generator=draw) * 2 - 1) * camera.yaw_range
    c = orbit_label(model.config, camera, yaw).to(ws.device)
    noise = torch.Generator().manual_seed(NOISE_STREAM + noise_seed)
    rows = []
    for part in torch.arange(n).split(batch):
        pairs = zip(ws[part].split(1), c[part].split(1), strict=True)
        images = [model.synthesis(w, view, noise_mode, generator=noise)["image"] for w, view in pairs]
        rows.append(extractor(eight_bit(torch.cat(images))).float().cpu())
        if done is not None:
            done(int(part[-1]) + 1)
    return torch.cat(rows)


def eight_bit(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] as they come back from a PNG: truncated to 8 bits, then scaled to [-1, 1] again."""
    return (images * 127.5 + 128).clamp(0, 255).floor() / 127.5 - 1


# ----------------------------------------------------------------------------
# Distances


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """`|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))` of features a [N, F], b [M, F], by torch-fidelity.

    Where N + M < F, on an orthonormal basis of what both span: a rotation changes nothing, and is quicker.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    _check(a, b)
    a, b = _in_span(a.double(), b.double())
    statistics = (fid_features_to_statistics(features) for features in (a, b))
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kernel_distance(a: Tensor, b: Tensor, seed: int = 0) -> KernelDistance:
    """KID of independent samples a [N, F], b [M, F] by torch-fidelity: polynomial kernel of degree 3.

    Unbiased. Subsets hold at most half of the samples: larger ones would all be the same.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    _check(a, b)
    size = max(min(KID_SUBSET_SIZE, min(len(a), len(b)) // 2), 2)
    found = kid_features_to_metric(
        a.double(), b.double(), kid_subsets=KID_SUBSETS, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return KernelDistance(found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], KID_SUBSETS, size)


def measure_drift(
    source: Tensor, erased: Tensor, extractor: str = "", seed: int = 0, groups: int = GROUPS
) -> Drift:
    """Drift from the source's features to the erased model's, row by row of the same latent: [N, F] each.

    `extractor` and `seed` are what they were sampled with. The intervals are delete-a-group jackknives over
    latents: a bootstrap repeats samples, which moves FID itself.
    """
    if source.shape != erased.shape:
        raise InputError("the two sides of a drift need the same latents: their features differ in shape")
    n, value = len(source), frechet_distance(source, erased)
    fid = jackknife(value, n, groups, lambda keep: _frechet(source[keep], erased[keep]))
    kid = _paired_kernel(source, erased, groups)
    return Drift(
        fid.value, fid.low, fid.high, kid.value, kid.low, kid.high, kid.error,
        n=n, features=source.shape[1], extractor=extractor, seed=seed,
    )  # fmt: skip


def measure_real(real: Tensor, source: Tensor, erased: Tensor, groups: int = GROUPS) -> Figure:
    """dFID_real = FID(real, erased) - FID(real, source): real [M, F] against paired source, erased [N, F].

    The interval is over latents; the real features stay as they are.
    """
    side = _moments(real)
    value = frechet_distance(real, erased) - frechet_distance(real, source)
    return jackknife(
        value, len(source), groups,
        lambda keep: _between(side, _moments(erased[keep])) - _between(side, _moments(source[keep])),
    )  # fmt: skip


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"features of shapes {list(a.shape)} and {list(b.shape)} cannot be compared")
    if min(len(a), len(b)) < 2:
        raise InputError("distances of features need at least 2 samples a side")


def _in_span(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if len(a) + len(b) >= a.shape[1]:
        return a, b
    basis = torch.linalg.qr(torch.cat([a, b]).T).Q
    return a @ basis, b @ basis


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [F] and a root R [min(N, F), F] of the covariance, R^T R."""
    x = features.double()
    root = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return x.mean(0), torch.linalg.qr(root, mode="r").R if len(x) > x.shape[1] else root


def _between(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """`frechet_distance` from moments, without a matrix root, quick enough for a jackknife.

    S_a S_b has the eigenvalues of (A B^T)(A B^T)^T, so its root's trace is the sum of A B^T's singular
    values.
    """
    (mean_a, root_a), (mean_b, root_b) = a, b
    spread = root_a.square().sum() + root_b.square().sum()
    common = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return float((mean_a - mean_b).square().sum() + spread - 2 * common)


def _frechet(a: Tensor, b: Tensor) -> float:
    return _between(_moments(a), _moments(b))


def _paired_kernel(a: Tensor, b: Tensor, groups: int) -> Figure:
    """KID of paired samples. A latent's two pictures are alike: counted among the pairs of strangers, as the
    usual estimator does, they push KID below 0. The U-statistic leaves them out."""
    from torch_fidelity.metric_kid import kernel_poly, mmd2

    x, y = a.double().numpy(), b.double().numpy()
    k_xx, k_xy, k_yy = kernel_poly(x, x), kernel_poly(x, y), kernel_poly(y, y)

    def distance(keep: Tensor) -> float:
        block = np.ix_(keep.numpy(), keep.numpy())
        return float(mmd2(k_xx[block], k_xy[block], k_yy[block], mmd_est="u-statistic"))

    return jackknife(distance(torch.ones(len(a), dtype=torch.bool)), len(a), groups, distance)
