"""Volume rendering, step by step, against the reference's numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eg3d_golden import OP, close, part, vectors

from guide_hub.eg3d import EG3DConfig, RaySampling, RenderingConfig
from guide_hub.eg3d.camera import rays
from guide_hub.eg3d.rendering import (
    Decoder,
    Renderer,
    Samples,
    box_limits,
    composite,
    importance_depths,
    interval_weights,
    ray_limits,
    sample_pdf,
    stratified_depths,
)
from guide_hub.eg3d.triplanes import TriPlanes, project, sample_planes


@pytest.fixture(scope="module")
def ops(shared: Path) -> dict[str, torch.Tensor]:
    return vectors(shared, "ops")


def decoder(state: dict[str, torch.Tensor]) -> Decoder:
    module = Decoder(EG3DConfig())
    module.load_state_dict(state, strict=True)
    return module


def samples(ops: dict[str, torch.Tensor]) -> Samples:
    depths, sigma = (ops[f"march/{name}"].squeeze(-1) for name in ("depths", "densities"))
    return Samples(depths, sigma, ops["march/colors"])


def test_planes(ops):
    xyz = ops["planes/xyz"]
    close(project(xyz), ops["planes/proj"], OP)
    for box_warp in (1, 1.6):
        sampled = ops[f"planes/sampled_bw{box_warp:g}"]
        close(sample_planes(ops["planes/features"], xyz, box_warp), sampled, OP)
        close(TriPlanes(ops["planes/features"], box_warp).features(xyz), sampled.mean(1), OP)


def test_the_quick_lookup_is_the_plain_one():
    torch.manual_seed(0)
    planes = torch.randn(2, 3, 5, 8, 16, requires_grad=True)
    points = (torch.rand(2, 5000, 3) - 0.5) * 1.4  # a box of side 1: many are outside
    points[:, :4] = torch.tensor([[-0.5, 0.5, 0.5], [0.5, -0.5, 0], [0, 0, 0], [9.0, -9.0, 0]])
    there = torch.randn(2, 5000, 5)

    def quick(planes: torch.Tensor, points: torch.Tensor, box_warp: float) -> torch.Tensor:
        return TriPlanes(planes, box_warp).features(points)

    def both(look: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        found = look(planes, points, 1.0)
        return found, torch.autograd.grad((found * there).sum(), planes)[0]

    plain = both(lambda *of: sample_planes(*of).mean(1))
    for one, other in zip(both(quick), plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)

    points.requires_grad_(True)  # where the camera is sought
    (slope,) = torch.autograd.grad(quick(planes, points, 1.0).sum(), points)
    assert slope.abs().max() > 0


def test_decoder(ops):
    rgb, sigma = decoder(part(ops, "decoder/sd/"))(ops["decoder/feats"].mean(1))
    close(rgb, ops["decoder/rgb"], OP)
    close(sigma, ops["decoder/sigma"], 1e-4)  # densities reach 200 in these weights


def test_box(ops):
    start, end = box_limits(ops["rays/origins"], ops["rays/dirs"], 1)
    close(start, ops["rays/box1_tmin"], OP)
    close(end, ops["rays/box1_tmax"], OP)


def test_rays_that_miss_the_box():
    config = RenderingConfig(ray_start="auto", ray_end="auto")
    origins = torch.tensor([[[0.0, 0, 2], [0.0, 0, 3], [5.0, 5, 5]]])
    directions = torch.tensor([[[0.0, 0, -1], [0.0, 0, -1], [0.0, 0, 1]]])
    start, end = ray_limits(origins, directions, config)
    assert start.flatten().tolist() == [1.5, 2.5, 1.5]
    assert end.flatten().tolist() == [2.5, 3.5, 2.5]  # a miss ends at the farthest entry
    start, end = ray_limits(origins[:, 2:], directions[:, 2:], config)
    assert (start.item(), end.item()) == (-1, -2)


def test_stratified(ops):
    zeros = torch.zeros(2, 9, 8)
    close(stratified_depths(2.25, 3.3, zeros), ops["strat/lin8_u0"].squeeze(-1), OP)
    close(stratified_depths(2.25, 3.3, zeros + 0.5), ops["strat/lin8_u0.5"].squeeze(-1), OP)
    close(stratified_depths(2.25, 3.3, zeros, disparity=True), ops["strat/disp8_u0"].squeeze(-1), OP)
    limits = (ops[f"rays/box1_{end}"][:, :9] for end in ("tmin", "tmax"))
    close(stratified_depths(*limits, zeros), ops["strat/tensor8_u0"].squeeze(-1), OP)


def test_pdf(ops):
    bins, weights = ops["pdf/bins"], ops["pdf/weights"]
    close(sample_pdf(bins, weights, torch.linspace(0, 1, 12).expand(5, 12)), ops["pdf/det12"], OP)
    close(sample_pdf(bins, weights, ops["pdf/u"]), ops["pdf/u12"], OP)


def test_importance(ops):
    given = samples(ops)
    weights = ops["march/nowb_weights"].squeeze(-1)
    even = torch.linspace(0, 1, 10).expand(18, 10)
    close(importance_depths(given.depths, weights, even), ops["importance/det10"].squeeze(-1), OP)
    drawn = importance_depths(given.depths, weights, ops["importance/u"])
    close(drawn, ops["importance/u10"].squeeze(-1), OP)


@pytest.mark.parametrize(("white_back", "name"), [(False, "nowb"), (True, "wb")])
def test_march(ops, white_back, name):
    given = samples(ops)
    rgb, depth, total = composite([given], white_back)
    weights = ops[f"march/{name}_weights"].squeeze(-1)
    close(interval_weights(given.sigma, given.depths), weights, OP)
    close(rgb, ops[f"march/{name}_rgb"], OP)
    close(depth, ops[f"march/{name}_depth"], OP)
    close(total, weights.sum(-1, keepdim=True), OP)
    assert bool((total == 0).any()), "the golden has an empty ray"


def test_two_passes_equal_one_sorted(ops):
    first, fine = samples(ops), ops["importance/det10"].squeeze(-1)
    second = Samples(fine, ops["unify/d2"].squeeze(-1), ops["unify/c2"])
    merged = Samples(ops["unify/depths"].squeeze(-1), ops["unify/densities"].squeeze(-1), ops["unify/colors"])
    for a, b in zip(composite([first, second]), composite([merged]), strict=True):
        close(a, b, OP)


def test_empty_rays_keep_gradients_finite(ops):
    given = samples(ops)
    sigma = given.sigma.clone().requires_grad_()
    rgb, depth, _ = composite([replace(given, sigma=sigma)])
    grad = torch.autograd.grad(rgb.sum() + depth.sum(), sigma)[0]
    assert bool(grad.isfinite().all())


def test_renderer(ops):
    config = RenderingConfig(depth_resolution=8, depth_resolution_importance=8)
    origins, directions = rays(ops["rays/c2w"], ops["rays/K"], 16)
    state = part(ops, "renderer/dec/")
    rgb, depth, total = Renderer(config)(
        ops["renderer/planes"], decoder(state), origins, directions, RaySampling(deterministic=True)
    )
    close(rgb, ops["renderer/rgb"], OP)
    close(depth, ops["renderer/depth"], OP)
    close(total, ops["renderer/weights_sum"], OP)


def test_one_ray():
    config = EG3DConfig(plane_channels=4, rendering=RenderingConfig(4, 4))
    planes = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    origins, directions = torch.tensor([[[0.0, 0, 2.7]]]), torch.tensor([[[0.0, 0, -1]]])
    rgb, _, _ = Renderer(config.rendering)(planes, Decoder(config), origins, directions, RaySampling())
    assert rgb.shape == (1, 1, 32)


def test_density_noise_is_random_but_not_where_it_must_not_be():
    config = EG3DConfig(plane_channels=4, rendering=RenderingConfig(density_noise=1.0))
    torch.manual_seed(0)
    planes, points, head = torch.randn(1, 3, 4, 8, 8), torch.rand(1, 5, 3) - 0.5, Decoder(config)
    renderer = Renderer(config.rendering)

    def sigma(**how: object) -> torch.Tensor:
        return renderer.query(planes, head, points, RaySampling(**how))[1]

    still = sigma(deterministic=True)
    assert torch.equal(still, sigma(deterministic=True))
    noisy = [sigma(generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*noisy)
    assert (noisy[0] - still).abs().max() > 0.1
