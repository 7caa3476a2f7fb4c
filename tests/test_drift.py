"""Frechet and kernel distances against closed forms, the samples behind them, and the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import real_nets
import tiny_erasure as tiny
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.evaluation.drift import (
    _frechet,
    eight_bit,
    frechet_distance,
    kernel_distance,
    measure_drift,
    measure_real,
    sample_features,
)
from guide_hub.evaluation.interval import jackknife, mean_figure, share_figure
from guide_hub.evaluation.paper import average, paper_figures
from guide_hub.faces.features import PooledFeatures
from guide_hub.faces.registry import load_features
from guide_hub.recipe import Camera


def gaussian(n, mean, scale, seed):
    """n samples whose very mean and covariance are `mean` and diag(scale^2)."""
    x = torch.randn(n, len(scale), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1)).T)
    return white * torch.tensor(scale) + torch.tensor(mean)


def features(n, dims, seed, shift=0.0):
    """Non-negative and correlated, as a pooled layer's."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(8, dims, generator=torch.Generator().manual_seed(99))
    return (torch.rand(n, 8, generator=draw) @ mixing + torch.randn(n, dims, generator=draw) + shift).relu()


# ----------------------------------------------------------------------------
# Frechet distance


@pytest.mark.parametrize("n", [6, 40])  # fewer samples than both span, and more
def test_frechet_distance_of_two_gaussians(n):
    a = gaussian(n, [0.0, 1.0, -2.0, 0.5], [1.0, 2.0, 0.5, 3.0], 0)
    b = gaussian(n, [1.0, 1.0, 0.0, 0.5], [2.0, 2.0, 1.5, 1.0], 1)
    expected = (1 + 0 + 4 + 0) + (1 + 0 + 1 + 4)  # |m_a - m_b|^2 + sum (s_a - s_b)^2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert _frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_and_to_itself_shifted():
    a = features(30, 64, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-6)


def test_span_and_singular_values_change_nothing():
    a, b = features(40, 200, 0), features(30, 200, 1, shift=0.2)
    direct = fid_statistics_to_metric(
        *(fid_features_to_statistics(x.double()) for x in (a, b)), verbose=False
    )["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(_frechet(a, b), rel=1e-6)
    # unprojected, 130 more eigenvalues are 0 but for rounding, and the library takes their roots
    assert frechet_distance(a, b) == pytest.approx(direct, rel=1e-5)
    assert _frechet(a[:, :20], b[:, :20]) == pytest.approx(
        frechet_distance(a[:, :20], b[:, :20]), rel=1e-9
    )  # more samples than features


def test_features_that_do_not_match_are_refused():
    a = features(10, 8, 0)
    for one, two in ((a, a[:, :4]), (a, a[:1]), (a[0], a[0])):
        with pytest.raises(InputError, match="features"):
            frechet_distance(one, two)
    with pytest.raises(InputError, match="same latents"):
        measure_drift(a, a[:5])


# ----------------------------------------------------------------------------
# Kernel distance


def test_kernel_distance_tells_a_shift_from_chance():
    a, b, moved = (features(200, 16, seed, shift) for seed, shift in ((0, 0), (1, 0), (2, 0.3)))
    chance, change = kernel_distance(a, b), kernel_distance(a, moved)
    assert (chance.subsets, chance.subset_size) == (100, 100)
    assert abs(chance.mean) < 3 * chance.std < change.mean
    assert kernel_distance(a, b) == chance != kernel_distance(a, b, seed=1)


def test_kernel_distance_of_pairs_is_the_u_statistic():
    a = features(12, 5, 0).double()
    b = a + 0.3 * features(12, 5, 1).double()

    def k(x, y):
        return (float(x @ y) / 5 + 1) ** 3

    n = len(a)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    expected = sum(k(a[i], a[j]) + k(b[i], b[j]) - 2 * k(a[i], b[j]) for i, j in pairs) / len(pairs)
    assert measure_drift(a, b).kid == pytest.approx(expected, rel=1e-9)


def test_pairs_do_not_push_kid_below_zero():
    a = features(100, 32, 0)
    b = a + 0.01 * features(100, 32, 1)
    found = measure_drift(a, b)
    assert kernel_distance(a, b).mean < -1e-2  # each picture's twin, taken for a stranger
    assert 0 < found.kid_low < found.kid < found.kid_high < 1e-2


# ----------------------------------------------------------------------------
# Intervals


def test_mean_and_share():
    figure = mean_figure([1.0, 2.0, 3.0, 4.0], "photos")
    half = 3.1824 * math.sqrt(5 / 3) / 2
    assert (figure.value, figure.n, figure.over) == (2.5, 4, "photos")
    assert (figure.low, figure.high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-4)
    assert mean_figure([0.3], "photos").low is None
    share = share_figure([1.0] * 10, "people")
    assert (share.low, share.high) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = jackknife(float(x.mean()), 30, 30, lambda keep: float(x[keep].mean()))
    assert figure.error == pytest.approx(float(x.std()) / math.sqrt(30), rel=1e-9)
    assert jackknife(1.0, 3, 20, lambda keep: 1.0).low is None


def test_intervals_of_fid_and_kid_cover():
    """95 % intervals contain the mean over many repetitions about 95 times in 100."""
    runs = []
    for seed in range(120):
        a = features(60, 3, 2 * seed)
        runs.append(measure_drift(a, 1.2 * a + 0.2 * features(60, 3, 2 * seed + 1)))
    for low, value, high in (("fid_low", "fid", "fid_high"), ("kid_low", "kid", "kid_high")):
        mean = np.mean([getattr(r, value) for r in runs])
        share = np.mean([getattr(r, low) <= mean <= getattr(r, high) for r in runs])
        assert 0.85 <= share <= 0.99, value


def test_change_against_real_features():
    real = gaussian(50, [0.0, 0.0], [1.0, 1.0], 0)
    source, erased = gaussian(40, [1.0, 0.0], [1.0, 1.0], 1), gaussian(40, [2.0, 0.0], [1.0, 1.0], 2)
    figure = measure_real(real, source, erased)
    assert figure.value == pytest.approx(4 - 1, rel=1e-9)
    assert figure.low < 3 < figure.high
    assert (figure.n, figure.over) == (40, "samples")


# ----------------------------------------------------------------------------
# Samples


class Coarse:
    """4 x 4 means of a picture: z, yaw and noise show in them."""

    def __init__(self):
        self.sizes, self.values = [], []

    def __call__(self, images):
        self.sizes.append(len(images))
        self.values.append(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    model = EG3D(tiny.config()).eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.2)
    return model


def sample(model, seed=0, noise_seed=0, noise_mode="const", extractor=None, **more):
    return sample_features(model, extractor or Coarse(), 6, seed, Camera(), noise_mode, noise_seed, **more)


def test_samples_repeat_whatever_the_batch(model):
    extractor, told = Coarse(), []
    found = sample(model, extractor=extractor, batch=4, done=told.append)
    assert found.shape == (6, 48)
    assert (extractor.sizes, told) == ([4, 2], [4, 6])
    assert torch.equal(found, sample(model, batch=1))
    pixels = (torch.cat(extractor.values) + 1) * 127.5
    assert torch.allclose(pixels, pixels.round(), atol=1e-4)


def test_seed_is_z_and_view_and_noise_seed_the_rest(model):
    here = sample(model)
    jitter, noise, other = (
        sample(model, noise_seed=1),
        sample(model, noise_seed=1, noise_mode="random"),
        sample(model, seed=1),
    )

    def apart(x):
        return float((here - x).abs().mean())

    assert 0 < apart(jitter) < apart(noise) < apart(other)
    assert measure_drift(here, jitter).fid > 0


def test_models_sampled_with_one_seed_are_paired(model):
    torch.manual_seed(1)
    twin = EG3D(tiny.config()).eval().requires_grad_(False)
    twin.load_state_dict(model.state_dict())
    twin.backbone.synthesis.b4.conv1.bias += 0.5
    here, there = sample(model), sample(twin)
    offset = here - there
    assert float(offset.abs().mean()) > 0
    assert float(offset.std(0).mean()) < float((here - sample(twin, seed=1)).std(0).mean())


def test_eight_bits_are_truncated_as_for_a_png():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.004, 1.0, 3.0])
    assert ((eight_bit(x) + 1) * 127.5).round().tolist() == [0, 0, 64, 128, 128, 255, 255]


# ----------------------------------------------------------------------------
# Extractors


def test_pooled_features_are_means_over_places():
    class Maps:
        def features(self, images):
            return [images, images[:, :1, ::2, ::2]]

    images = torch.rand(2, 3, 4, 4)
    pooled = PooledFeatures.__new__(PooledFeatures)
    torch.nn.Module.__init__(pooled)
    pooled.network = Maps()
    found = pooled(images)
    assert found.shape == (2, 4)
    assert torch.allclose(found[:, 3], images[:, 0, ::2, ::2].mean((1, 2)))


def test_inception_equals_the_published_graph():
    graph = real_nets.or_skip(real_nets.load_inception)
    extractor = load_features(f"inception:{real_nets.inception_weights()}")
    coarse = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, (299, 299), mode="bicubic").mul(255).clamp(0, 255).byte()
    found = extractor(pixels / 127.5 - 1)
    assert found.shape == (3, 2048)
    assert float((found - graph(pixels / 128 - 1).flatten(1)).abs().max()) < 2e-5


def test_inception_is_not_fetched_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="inception needs weights") as stopped:
        load_features("inception")
    assert "weights-inception-2015-12-05-6726825d.pth" in stopped.value.problems[0].remedy


# ----------------------------------------------------------------------------
# ID as the paper has it


def test_paper_figures_compare_the_same_latent_and_view():
    draw = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    before, after = (unit(torch.randn(3, 11, 8, generator=draw), dim=-1) for _ in range(2))
    photos = unit(torch.randn(3, 8, generator=draw), dim=-1)
    found = paper_figures(before, after, photos)
    cosine = torch.einsum("pve,pve->pv", before, after)
    assert found.render.id.value == pytest.approx(float(cosine[0].mean()), abs=1e-6)
    assert found.render.others.value == pytest.approx(float(cosine[1:].mean()), abs=1e-6)
    assert found.render.avg.value == pytest.approx(float(cosine.mean()), abs=1e-6)
    assert found.photo.id.value == pytest.approx(float((after[0] @ photos[0]).mean()), abs=1e-6)
    assert found.photo_before.id.value == pytest.approx(float((before[0] @ photos[0]).mean()), abs=1e-6)
    assert [(f.n, f.over) for f in (found.render.id, found.render.others, found.render.avg)] == [
        (11, "views"), (2, "photos"), (3, "photos")
    ]  # fmt: skip
    alone = paper_figures(before[:1], after[:1], photos[:1])
    assert alone.render.others is None
    both = average([found, alone])
    assert both.render.id.value == pytest.approx(found.render.id.value)
    assert (both.render.id.n, both.render.others.n, both.render.id.over) == (2, 1, "identities")
