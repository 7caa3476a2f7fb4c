"""TIES by hand: trim, elect, disjoint mean; and what holds for any deltas."""

from __future__ import annotations

import pytest
import torch

from guide_hub.merge import apply, averaged, difference, summed, ties


def one(*values: float, dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=dtype)}


def random_deltas(count: int, dtype=torch.float32) -> list[dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(3)
    shapes = {"conv": (4, 3, 3, 3), "affine": (7, 5), "strength": ()}
    return [{k: torch.randn(s, generator=rng).to(dtype) for k, s in shapes.items()} for _ in range(count)]


def test_by_hand():
    """Half of each is kept: [4, -3, 0, 0], [-1.5, -5, 0, 0] and [1, 0, 0, -2]."""
    deltas = [one(4, -3, 1, 0.5), one(-1.5, -5, 0.25, 1), one(1, 0.5, -0.25, -2)]
    # place 0: 5 up against 1.5 down, so the mean of 4 and 1; place 1: -3 and -5; place 3: -2 alone
    assert ties(deltas, 0.5, 1.0)["w"].tolist() == [2.5, -4.0, 0.0, -2.0]
    assert ties(deltas, 0.5, 0.5)["w"].tolist() == [1.25, -2.0, 0.0, -1.0]
    # nothing trimmed: place 2 has 1.25 up against 0.25 down; place 3 has 1.5 up against 2 down
    assert ties(deltas, 1.0, 1.0)["w"].tolist() == [2.5, -4.0, 0.625, -2.0]


def test_mass_elects_and_not_the_count():
    assert ties([one(-1.0), one(-1.0), one(3.0)], 1.0, 1.0)["w"].tolist() == [3.0]


def test_a_draw_elects_nobody():
    assert ties([one(2.0, 1.0), one(-2.0, 1.0)], 1.0, 1.0)["w"].tolist() == [0.0, 1.0]


def test_zeros_take_no_part_in_the_mean():
    assert ties([one(0.0, 6.0), one(4.0, 2.0)], 1.0, 1.0)["w"].tolist() == [4.0, 4.0]


def test_the_largest_are_chosen_over_all_tensors_of_a_delta():
    delta = {"small": torch.tensor([0.1, 0.2, 0.3]), "large": torch.tensor([1.0, -2.0, 3.0])}
    found = ties([delta], 0.5, 1.0)
    assert found["small"].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(found["large"], delta["large"])


def test_equal_magnitudes_stay_together():
    assert ties([one(1.0, -1.0, 1.0, 0.5)], 0.25, 1.0)["w"].tolist() == [1.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_one_delta_is_itself_trimmed(density):
    (delta,) = random_deltas(1)
    found = ties([delta], density, 1.0)
    flat, before = (torch.cat([d[k].flatten() for k in delta]) for d in (found, delta))
    kept = flat != 0
    assert int(kept.sum()) == round(density * len(flat))
    assert torch.equal(flat[kept], before[kept])
    if not kept.all():
        assert before[~kept].abs().max() < before[kept].abs().min()


def test_order_makes_no_difference():
    deltas = random_deltas(5)
    for merge in (lambda d: ties(d, 0.3, 0.7), summed, averaged):
        one, other = merge(deltas), merge([deltas[k] for k in (3, 0, 4, 2, 1)])
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_equal_deltas_merge_to_one_of_them():
    (delta,) = random_deltas(1)
    found = ties([delta] * 3, 1.0, 1.0)
    assert all(torch.equal(found[name], delta[name]) for name in delta)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_inputs_stay(dtype):
    deltas = random_deltas(2, dtype)
    before = [{k: v.clone() for k, v in d.items()} for d in deltas]
    for found in (ties(deltas, 0.5, 0.3), summed(deltas), averaged(deltas)):
        assert {k: (v.dtype, v.shape) for k, v in found.items()} == {
            k: (v.dtype, v.shape) for k, v in deltas[0].items()
        }
    assert all(torch.equal(d[k], b[k]) for d, b in zip(deltas, before, strict=True) for k in d)


def test_sum_and_mean():
    deltas = [one(1, -2), one(3, 4)]
    assert summed(deltas)["w"].tolist() == [4.0, 2.0]
    assert summed(deltas, 0.5)["w"].tolist() == averaged(deltas)["w"].tolist() == [2.0, 1.0]


def test_difference_and_apply_undo_each_other():
    original = {"w": torch.tensor([1.0, 2.0]), "fixed": torch.ones(2), "n": torch.tensor(3)}
    erased = {**original, "w": torch.tensor([1.5, 1.0])}
    assert list(difference(erased, original)) == ["w", "fixed"]
    delta = difference(erased, original, ["w"])
    assert delta["w"].tolist() == [0.5, -1.0]
    whole = apply(original, delta)
    assert list(whole) == list(original)
    assert all(torch.equal(whole[name], erased[name]) for name in erased)
    assert torch.equal(original["w"], torch.tensor([1.0, 2.0]))


def test_what_does_not_fit_is_refused():
    for bad in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match="density"):
            ties([one(1.0)], bad, 1.0)
    for merge in (lambda d: ties(d, 0.5, 1.0), summed, averaged):
        with pytest.raises(ValueError, match="nothing"):
            merge([])
        for other in (one(1.0, 2.0), {"v": torch.ones(1)}, one(1.0, dtype=torch.float64)):
            with pytest.raises(ValueError, match="not the same"):
                merge([one(1.0), other])
    with pytest.raises(ValueError, match="no v"):
        apply(one(1.0), {"v": torch.ones(1)})
    with pytest.raises(ValueError, match="not the same"):
        difference(one(1.0), one(1.0, 2.0))
