"""The recipe's `robust:` options and the other targets and neighbours beside GUIDE's."""

import dataclasses

import pytest
import torch
from test_guide import tiny_eraser

from guide_hub.guide.mining import mine
from guide_hub.latents import norm_of
from guide_hub.recipe import load_recipe


def made(section: str = "robust", **options):
    recipe = load_recipe("heads")
    recipe = dataclasses.replace(
        recipe, **{section: dataclasses.replace(getattr(recipe, section), **options)}
    )
    eraser = tiny_eraser(recipe)
    return eraser, eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)), seed=4)


def test_a_recipe_without_them_reads_as_before():
    text = load_recipe("heads").to_yaml()
    assert "robust" not in text
    assert "towards" not in text
    eraser, _ = made(repel=1.0)
    assert "repel: 1.0" in eraser.recipe.to_yaml()


def test_a_mixture_is_no_function_of_the_person():
    eraser, _ = made("target", kind="mixture")
    people = eraser.space.random(2, torch.Generator().manual_seed(2)).split(1)
    targets = [eraser.target(w, seed=4).w_t for w in people]
    assert torch.equal(*targets)
    assert not torch.equal(targets[0], eraser.target(people[0], seed=5).w_t)
    length = float(norm_of(targets[0] - eraser.space.w_avg, "whole"))
    assert length == pytest.approx(eraser.recipe.target.d * eraser.unit, rel=1e-4)


@pytest.mark.parametrize("towards", ["w", "wplus"])
def test_neighbours_lie_at_alpha_in_any_direction(towards):
    eraser, erasure = made("adjacency", towards=towards)
    draws = eraser.draw(erasure, 3)
    near = eraser.pairs(erasure, draws)[1]
    offset = near.w_student - erasure.w_u
    assert torch.allclose(norm_of(offset, "whole").flatten(), draws.alpha, rtol=1e-4)
    assert torch.allclose(near.w_teacher - erasure.w_t, offset, atol=1e-5)
    alike = torch.allclose(offset[:, :1], offset[:, 1:2])
    assert alike == (towards == "w")
    rest = made("adjacency", towards="people")[0].draw(erasure, 3)
    assert torch.equal(rest.w_global, draws.w_global)  # the other draws stay


def test_repulsion_is_of_the_persons_own_pairs_and_free_below_its_limit():
    eraser, erasure = made(repel=2.0, repel_above=-1.0)
    losses = eraser.step(erasure, eraser.draw(erasure, 3))
    assert {name for name in losses.terms if "repulsion" in name} == {
        "local.repulsion", "adjacency.repulsion"
    }  # fmt: skip
    (value,) = losses.terms["local.repulsion"]
    shown = eraser.shown(erasure)
    assert value == pytest.approx(float((shown[1:2] @ shown.T).mean()) + 1, abs=0.2)  # nothing is learnt yet
    free, erasure = made(repel=2.0, repel_above=1.0)
    losses = free.step(erasure, free.draw(erasure, 3))
    assert set(losses.terms["local.repulsion"] + losses.terms["adjacency.repulsion"]) == {0.0}


def test_decoys_are_erased_along_and_leave_the_global_samples():
    eraser, erasure = made()
    decoy = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(9)))
    eraser.decoys = [decoy]
    draws = eraser.draw(erasure, 3)
    pair = eraser.pairs(erasure, draws)[-1]
    assert pair.name == "decoy"
    assert torch.equal(pair.w_student[:1], decoy.w_u)
    assert torch.equal(pair.w_teacher[:1], decoy.w_t)
    assert len(pair.w_student) == 1 + eraser.recipe.adjacency.samples
    far = norm_of(draws.w_global - decoy.w_u, "whole")
    assert float(far.min()) > eraser.alpha_max
    assert eraser.step(erasure, draws).decoy > 0


def test_a_search_finds_what_is_more_alike_and_leaves_the_student_alone():
    eraser, erasure = made()
    before = {k: v.clone() for k, v in eraser.student.state_dict().items()}
    person = eraser.shown(erasure)

    @torch.no_grad()
    def likeness(w):
        out = eraser.student.synthesis(w, eraser._three()[1:2], noise_mode="const", deterministic=True)
        return float((eraser.loss.identity(out["image"]) @ person.T).mean())

    assert likeness(mine(eraser, erasure, 25, 5)) > likeness(mine(eraser, erasure, 0, 5))
    assert all(torch.equal(v, before[k]) for k, v in eraser.student.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in eraser.parameters)


def test_what_was_mined_joins_the_steps_and_survives_a_stop():
    eraser, erasure = made(mine_every=2, mine_steps=1, mined=2)
    counts = []
    for step in range(6):
        losses = eraser.step(erasure, eraser.draw_at(erasure, 5, 0, step))
        counts.append(len(losses.terms["adjacency.l2"]))
    assert counts == [4] * 6  # three neighbours and one that was found
    assert len(eraser.mined) == 2
    saved = eraser.state()
    again, erasure = made(mine_every=2, mine_steps=1, mined=2)
    again.load_state(saved)
    losses = [e.step(erasure, e.draw_at(erasure, 5, 0, 6)).total for e in (eraser, again)]
    assert losses[0] == losses[1]
