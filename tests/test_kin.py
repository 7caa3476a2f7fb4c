"""Neighbours along which a face stays the same."""

import dataclasses
import shutil

import pytest
import torch
from test_guide import tiny_eraser
from torch import nn

from guide_hub.evaluation.views import embed_views, yaw_cameras
from guide_hub.faces.registry import BUNDLE
from guide_hub.guide.kin import FILE, keep_kin, key_of, kin_of, load_kin
from guide_hub.latents import norm_of
from guide_hub.recipe import load_recipe


class Linear(nn.Module):
    """A recogniser of the picture's left half alone."""

    def forward(self, pictures):
        return nn.functional.normalize(pictures[..., : pictures.shape[-1] // 2].mean(2).flatten(1), dim=1)


def made(reach=1.35):
    recipe = load_recipe("heads")
    adjacency = dataclasses.replace(recipe.adjacency, towards="kin", reach=reach)
    eraser = tiny_eraser(dataclasses.replace(recipe, adjacency=adjacency), identity=Linear())
    return eraser, eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))


def likeness(eraser, w_u, directions, length):
    """Of neighbours so far away to the person, in the recogniser's eyes."""
    offset = directions[:, None].expand(-1, w_u.shape[1], -1)
    offset = length * offset / norm_of(offset, "whole")
    front = yaw_cameras(eraser.teacher, eraser.recipe.camera, 1)
    seen = embed_views(eraser.teacher, torch.cat([w_u, w_u + offset]), front, eraser.loss.identity)[:, 0]
    return seen[1:] @ seen[0]


def test_along_kin_a_face_stays_the_same():
    eraser, erasure = made()
    rng = torch.Generator().manual_seed(0)
    drawn = torch.randn(32, eraser.teacher.config.w_dim, generator=rng)
    people = (eraser.space.random(32, rng) - erasure.w_u)[:, 0]
    length = 0.3 * eraser.alpha_max  # the tiny model is random, and no line for long
    kin = likeness(eraser, erasure.w_u, drawn @ eraser.kin.T, length)
    others = likeness(eraser, erasure.w_u, people, length)
    assert float((1 - kin).mean()) < 0.5 * float((1 - others).mean())


def test_neighbours_lie_within_the_reach_and_turn_towards_people():
    eraser, erasure = made()
    draws = eraser.draw(erasure, 3)
    assert float(draws.alpha.max()) <= 1.35 * eraser.unit
    near = eraser.pairs(erasure, draws)[1]
    offset = near.w_student - erasure.w_u
    assert torch.allclose(norm_of(offset, "whole").flatten(), draws.alpha, rtol=1e-4)
    assert torch.allclose(near.w_teacher - erasure.w_t, offset, atol=1e-5)
    kin = draws.direction.expand_as(offset)
    cosine = nn.functional.cosine_similarity(offset.flatten(1), kin.flatten(1))
    toward = eraser.space.map(draws.z_adjacent) - erasure.w_u
    angle = torch.acos(nn.functional.cosine_similarity(toward.flatten(1), kin.flatten(1)))
    # of two unit vectors at that angle, the second taken `turn` times
    x = 1 + draws.turn * torch.cos(angle)
    assert torch.allclose(cosine, x / torch.sqrt(x**2 + (draws.turn * torch.sin(angle)) ** 2), atol=1e-3)


def test_the_persons_ball_stays_that_of_alpha_max():
    assert made(reach=3.0)[0].alpha_max == made(reach=1.0)[0].alpha_max


def test_probes_are_kin_as_well_and_the_same_every_time():
    eraser, erasure = made()
    first, again = (eraser.around(erasure, 4, 7) for _ in range(2))
    assert torch.equal(first, again)
    far = norm_of(first - erasure.w_u, "whole").flatten() / eraser.unit
    assert far.tolist() == pytest.approx([0, *(1.35 * x for x in (0.5, 2 / 3, 5 / 6, 1))], rel=1e-4)


def test_what_is_kept_is_used_for_exactly_what_it_was_made_of(tmp_path):
    eraser, _ = made()
    front = yaw_cameras(eraser.teacher, eraser.recipe.camera, 1)
    identity, teacher = eraser.loss.identity, eraser.teacher
    assert load_kin(teacher, identity, front, [tmp_path]) is None
    keep_kin(tmp_path / "new", eraser.kin, key_of(teacher, identity, front))
    assert torch.equal(load_kin(teacher, identity, front, [tmp_path, tmp_path / "new"]), eraser.kin)
    assert [f.name for f in (tmp_path / "new").iterdir()] == [FILE]
    assert load_kin(teacher, identity, front + 1, [tmp_path / "new"]) is None
    with torch.no_grad():
        teacher.backbone.synthesis.b4.const += 1
    assert load_kin(teacher, identity, front, [tmp_path / "new"]) is None
    shutil.copy(BUNDLE / "README.md", tmp_path / "new" / FILE)  # no such file at all
    assert load_kin(teacher, identity, front, [tmp_path / "new"]) is None


def test_the_builtin_carries_its_own():
    from guide_hub.eg3d import EG3D
    from guide_hub.faces.registry import load_identity

    model = EG3D.from_pretrained(str(BUNDLE)).eval()
    front = yaw_cameras(model, load_recipe("heads-fast").camera, 1)
    kin = load_kin(model, load_identity("heads-a"), front, [BUNDLE])
    assert kin is not None
    strength = torch.linalg.svdvals(kin.double())
    assert 128 - int((strength > 1e-5 * strength[0]).sum()) == 31  # what 99.5 % of an identity hang on


def test_one_made_anew_is_the_same():
    eraser, _ = made()
    front = yaw_cameras(eraser.teacher, eraser.recipe.camera, 1)
    assert torch.equal(kin_of(eraser.teacher, eraser.loss.identity, front), eraser.kin)
