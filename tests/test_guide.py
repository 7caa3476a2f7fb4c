"""GUIDE against the reference: two deterministic steps, and what the equations promise on their own."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import warnings

import pytest
import torch
import yaml
from eg3d_golden import seeded, tiny2x
from safetensors.torch import load_file
from tiny_erasure import Pixels
from tiny_erasure import config as tiny_config

from guide_hub.eg3d import EG3D
from guide_hub.eg3d.camera import camera_label
from guide_hub.errors import InputError, RefusedError
from guide_hub.evaluation.calibration import Calibration, orbit, shipped, threshold_at
from guide_hub.faces import registry
from guide_hub.faces.perceptual import Lpips
from guide_hub.guide import Draws, Eraser, Erasure, average_target, ufo_target
from guide_hub.guide import eraser as erasing
from guide_hub.guide.latents import bystanders, neighbour_offset, outside
from guide_hub.guide.losses import View, Weights
from guide_hub.guide.target import norm_of
from guide_hub.inversion import Inverter, projector
from guide_hub.networks import choose, default_recipe
from guide_hub.recipe import Camera, Global, Inversion, Local, Networks, Recipe, Speed, load_recipe
from guide_hub.sequence import pick_device

RELATIVE = 1e-3


def close(ours, golden, relative: float = RELATIVE) -> None:
    """Within `relative` of the golden's largest value."""
    ours, golden = torch.as_tensor(ours).float(), torch.as_tensor(golden).float()
    assert (ours - golden).abs().max() <= relative * golden.abs().max() + 1e-12


def no_identity(images):
    raise AssertionError("the identity network has weight 0 and must not run")


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "golden" / "guide_step" / "guide_step.safetensors")


@pytest.fixture(scope="module")
def lpips_seeded(shared):
    """LPIPS-VGG with the goldens' trunk (seed 11) and the package's own linear heads."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    shapes = {name: tuple(value.shape) for name, value in module.net.state_dict().items()}
    weights = seeded(shared).seeded_network(shapes, 11, "lpips.net.")
    module.net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return Lpips(module.eval().requires_grad_(False))


@pytest.fixture
def released() -> Recipe:
    """The released code's settings, without identity and randomness, as the goldens were made."""
    recipe = load_recipe("guide")
    return dataclasses.replace(
        recipe, noise="const", deterministic_rays=True, local=dataclasses.replace(recipe.local, identity=0.0)
    )


def test_targets(golden):
    w_u, w_avg = golden["w_u"], golden["w_avg"]
    close(norm_of(w_u - w_avg, "whole").flatten(), golden["w_id_norm"])
    close(ufo_target(w_u, w_avg, 30.0), golden["w_t_d30"])


@pytest.fixture
def one_thread():
    """Several sum gradients in another order than the reference's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_steps(shared, golden, lpips_seeded, released):
    student, teacher = tiny2x(shared), tiny2x(shared)
    meta = json.loads((shared / "golden" / "guide_step" / "guide_step.json").read_text())["meta"]
    eraser = Eraser(student, teacher, released, lpips_seeded, no_identity)
    erasure = Erasure(golden["w_u"], golden["w_t_d30"])
    cond = golden["cond"]
    names = {id(p): f"backbone.synthesis.{n}" for n, p in student.backbone.synthesis.named_parameters()}
    for s in range(2):
        before = {names[id(p)]: p.detach().clone() for p in eraser.parameters}
        z = {kind: torch.cat([golden[f"s{s}.z_{kind}{i}"] for i in range(2)]) for kind in ("ra", "rg")}
        draws = Draws(
            c=golden[f"s{s}.c"],
            z_adjacent=z["ra"],
            alpha=torch.tensor(meta["alpha"][s]),
            w_global=teacher.mapping(z["rg"], cond.expand(2, -1)).detach(),
        )
        close(camera_label(meta["yaw"][s], meta["pitch"]), golden[f"s{s}.c"], 1e-5)
        offsets = neighbour_offset(erasure.w_u, teacher.mapping(z["ra"], cond.expand(2, -1)), draws.alpha)
        for i in range(2):
            close(offsets[i], golden[f"s{s}.delta{i}"][0])
        losses = eraser.step(erasure, draws)
        close(losses.terms["local.l2"], golden[f"s{s}.local.mse"].reshape(1))
        close(losses.terms["local.perceptual"], golden[f"s{s}.local.lpips"].reshape(1))
        for i in range(2):
            close(losses.terms["adjacency.l2"][i], golden[f"s{s}.adj{i}.mse"])
            close(losses.terms["adjacency.perceptual"][i], golden[f"s{s}.adj{i}.lpips"])
            reference = float(golden[f"s{s}.glob{i}.lpips"])
            assert losses.terms["bystanders.perceptual"][i] == pytest.approx(
                reference, rel=RELATIVE, abs=1e-7
            )
        close(losses.local, golden[f"s{s}.loss_local"])
        close(losses.adjacency, golden[f"s{s}.loss_adj"])
        assert losses.bystanders == pytest.approx(float(golden[f"s{s}.loss_glob"]), rel=RELATIVE, abs=1e-7)
        close(losses.total, golden[f"s{s}.loss_total"])
        squared = torch.zeros(2)  # of all updates' errors, of all updates
        for p in eraser.parameters:
            name = names[id(p)]
            norm, reference = float(p.grad.norm()), float(golden[f"s{s}.gradnorm/{name}"])
            # noise_strength is one number a layer, a sum of cancelling terms: rounding reaches 1.5e-3
            size = max(2 * reference, 0.02) if name.endswith("noise_strength") else reference
            assert abs(norm - reference) <= RELATIVE * size, name
            previous = before[name] if s == 0 else golden[f"s{s - 1}.param_after/{name}"]
            update = golden[f"s{s}.param_after/{name}"] - previous
            error = (p.detach() - before[name]) - update
            off = error.abs() > RELATIVE * update.abs().max()
            # Adam's first step is the gradient's sign: where a gradient is all rounding, it may flip
            plain = p.grad.abs() > 0.02 * p.grad.abs().max()
            assert int((off & plain).sum()) <= max(1, 0.03 * off.numel()), name
            assert int(off.sum()) <= max(2, 0.03 * off.numel()), name
            squared += torch.stack([error.square().sum(), update.square().sum()])
        assert (squared[0] / squared[1]).sqrt() < 1e-2
        assert all(torch.equal(a, b) for a, b in zip(frozen(student), frozen(teacher), strict=True))


def frozen(model):
    return [v for n, v in model.state_dict().items() if "backbone.synthesis" not in n]


def test_trains_what_the_release_trains(shared):
    shapes = json.loads((shared / "golden" / "ffhq512" / "shapes.json").read_text())
    model = tiny2x(shared)
    eraser = Eraser(model, tiny2x(shared), Recipe(), Pixels(), no_identity)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n in dict(model.named_parameters()) if n.startswith("backbone.synthesis")}
    official = {n for n, t in shapes["tensors"].items() if t.get("guide_trainable")}
    assert trained <= official or {n.rsplit(".", 2)[-1] for n in trained} <= {
        n.rsplit(".", 2)[-1] for n in official
    }
    assert len(eraser.parameters) == len(trained)


def test_ufo_norms():
    w_avg, w_u = torch.zeros(1, 4, 3), torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    whole = ufo_target(w_u, w_avg, 2.0)
    assert whole.norm() == pytest.approx(2.0)
    assert torch.allclose(whole / whole.norm(), -w_u / w_u.norm(), atol=1e-6)
    rows = ufo_target(w_u, w_avg, 2.0, "per_layer").norm(dim=2)
    assert torch.allclose(rows, torch.full((1, 4), 2.0))
    assert torch.equal(average_target(w_u, w_avg), torch.zeros_like(w_u))
    with pytest.raises(ValueError, match="no identity direction"):
        ufo_target(w_avg, w_avg, 2.0)


def test_neighbours_lie_at_alpha():
    rng = torch.Generator().manual_seed(1)
    w_u, w_r = torch.randn(1, 4, 3, generator=rng), torch.randn(5, 4, 3, generator=rng)
    alpha = torch.rand(5, generator=rng)
    assert torch.allclose(norm_of(neighbour_offset(w_u, w_r, alpha), "whole").flatten(), alpha, atol=1e-6)


class Line:
    """A latent space whose random latents are the numbers that the generator gives."""

    def random(self, n, generator):
        return torch.rand(n, 1, 1, generator=generator)


def test_bystanders_stay_out_of_the_balls():
    w = bystanders(Line(), 64, [torch.full((1, 1, 1), 0.2)], 0.3, torch.Generator().manual_seed(0))
    assert len(w) == 64
    assert bool(outside(w, [torch.full((1, 1, 1), 0.2)], 0.3).all())
    with pytest.raises(InputError, match="alpha_max"):
        bystanders(Line(), 2, [torch.zeros(1, 1, 1)], 2.0, torch.Generator().manual_seed(0))


def test_reduce_mean_is_half_the_sum(shared, golden, lpips_seeded, released):
    """With two samples, the paper's means at weight 2 are the release's sums."""
    mean = dataclasses.replace(
        released,
        adjacency=dataclasses.replace(released.adjacency, reduce="mean", weight=2.0),
        bystanders=dataclasses.replace(released.bystanders, reduce="mean", weight=2.0),
    )
    erasure, teacher = Erasure(golden["w_u"], golden["w_t_d30"]), tiny2x(shared)
    summed, averaged = (
        Eraser(tiny2x(shared), teacher, r, lpips_seeded, no_identity) for r in (released, mean)
    )
    draws = summed.draw(erasure, 3)
    weights = [[p.weights for p in e.pairs(erasure, draws)] for e in (summed, averaged)]
    assert weights[0] == weights[1]


def test_earlier_people_are_replayed_and_kept_out(shared, golden, lpips_seeded, released):
    erasure = Erasure(golden["w_u"], golden["w_t_d30"])
    first = Erasure(golden["w_u"] + 1.0, golden["w_t_d30"])
    eraser = Eraser(tiny2x(shared), tiny2x(shared), released, lpips_seeded, no_identity, earlier=[first])
    draws = eraser.draw(erasure, 5)
    assert draws.replayed == (0,)
    replay = next(p for p in eraser.pairs(erasure, draws) if p.name == "replay")
    assert torch.equal(replay.w_student, first.w_u)
    assert torch.equal(replay.w_teacher, first.w_t)
    assert bool(outside(draws.w_global, [first.w_u], eraser.alpha_max).all())


def test_neighbours_of_earlier_people_are_replayed(shared, golden, lpips_seeded, released):
    recipe = dataclasses.replace(released, replay=dataclasses.replace(released.replay, neighbours=2))
    first = Erasure(golden["w_u"] + 1.0, golden["w_t_d30"])
    eraser = Eraser(tiny2x(shared), tiny2x(shared), recipe, lpips_seeded, no_identity, earlier=[first])
    erasure = Erasure(golden["w_u"], golden["w_t_d30"])
    around = [p for p in eraser.pairs(erasure, eraser.draw(erasure, 5)) if p.name == "replay"][1]
    assert len(around.w_student) == 2
    offset = around.w_student - first.w_u
    assert torch.allclose(around.w_teacher - first.w_t, offset, atol=1e-4)
    assert bool((norm_of(offset, "whole").flatten() <= eraser.alpha_max).all())


def test_lpips_golden(golden, lpips_seeded):
    ours = lpips_seeded(golden["lpips.a"], golden["lpips.b"])
    close(ours, golden["lpips.out"].flatten())


def test_local_weights_default_to_the_release():
    assert Local() == load_recipe("guide").local == Local(1e-2, 1.0, 0.1)


# ----------------------------------------------------------------------------
# On a tiny random model, with a network that has nothing to load


@pytest.fixture
def model():
    torch.manual_seed(1)
    return EG3D(tiny_config()).eval().requires_grad_(False)


def tiny_eraser(recipe: Recipe, perceptual=None, identity=None) -> Eraser:
    torch.manual_seed(1)
    student = EG3D(tiny_config())
    for name, parameter in student.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    teacher = EG3D(tiny_config())
    teacher.load_state_dict(student.state_dict())
    return Eraser(student, teacher, recipe, perceptual or Pixels(), identity or Pixels())


def with_micro_batch(recipe: Recipe, size: int) -> Recipe:
    return dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, micro_batch=size))


def test_micro_batch_changes_memory_alone():
    gradients = []
    for size in (0, 1):
        eraser = tiny_eraser(with_micro_batch(load_recipe("heads"), size))
        erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
        eraser.step(erasure, eraser.draw(erasure, 3))
        gradients.append(torch.cat([p.grad.flatten() for p in eraser.parameters]))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


def test_every_chunk_of_a_step_draws_its_own_noise():
    """Two equal bystanders in two chunks would have equal losses if they shared their noise."""
    eraser = tiny_eraser(with_micro_batch(load_recipe("guide"), 1))
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    draws = eraser.draw(erasure, 3)
    draws = dataclasses.replace(draws, w_global=draws.w_global[:1].repeat(2, 1, 1))
    first, second = eraser.step(erasure, draws).terms["bystanders.perceptual"]
    assert first != second
    assert first == pytest.approx(second, rel=0.9)


def test_a_loss_that_is_not_finite_is_refused(monkeypatch):
    eraser = tiny_eraser(load_recipe("heads"))
    pixels = Pixels()
    monkeypatch.setattr(pixels, "distance", lambda a, b: Pixels()(a[0], b[0]) * float("nan"))
    eraser.loss.perceptual = pixels
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    with pytest.raises(RefusedError, match=r"optim\.lr"):
        eraser.step(erasure, eraser.draw(erasure, 3))


def test_a_ball_of_rows_holds_what_every_row_is_within():
    w = torch.tensor([[[3.0, 0.0], [0.0, 3.0]], [[3.0, 0.0], [0.0, 5.0]]])
    centre = [torch.zeros(1, 2, 2)]
    assert outside(w, centre, 4.0, "per_layer").tolist() == [False, True]
    assert outside(w, centre, 4.0).tolist() == [True, True]


def test_photos_are_fitted_apart(model, monkeypatch):
    assert [projector.chunk_of(size) for size in (64, 128, 256, 512)] == [32, 8, 2, 1]
    rng = torch.Generator().manual_seed(4)
    photos, pose = torch.rand(3, 3, 64, 64, generator=rng) * 2 - 1, torch.zeros(3, 3)
    ws = model.w_avg.repeat(3, model.num_ws, 1)
    schedule, found = projector.Schedule(steps=2, lr=0.1), []
    for chunk in (8, 2):
        monkeypatch.setattr(projector, "chunk_of", lambda size, chunk=chunk: chunk)
        found.append(projector.refine(model, photos, ws, pose, Pixels(), Pixels(), schedule))
    for together, apart in zip(*found, strict=True):
        assert not torch.equal(together[0], together[1])
        torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-5)


def test_the_encoder_backend_needs_an_encoder(model):
    with pytest.raises(InputError, match="auto or optimize"):
        Inverter(model, Inversion(backend="encoder"), Pixels(), Pixels())


def test_a_models_config_names_packaged_things_alone():
    def config(**domain):
        return dataclasses.replace(tiny_config(), domain=domain)

    assert default_recipe(config()) == "guide"
    assert default_recipe(config(recipe="heads")) == "heads"
    for name in ("../heads.yaml", "mine.yaml", 3, ["heads"]):
        with pytest.raises(InputError, match=r"domain\.recipe"):
            default_recipe(config(recipe=name))
    for key in ("identity_loss", "identity_judge", "perceptual", "inversion"):
        for name in ("heads-a:/etc/passwd", "unheard-of", 3, {"heads-a": 1}):
            with pytest.raises(InputError, match=rf"domain\.{key}"):
                choose(config(**{key: name}), Recipe())
    given = Recipe(networks=Networks(identity_loss="irse50:mine.pth"))
    assert choose(config(identity_judge="heads-b"), given).identity_loss == "irse50:mine.pth"


def test_a_calibration_is_for_one_judge_file_and_one_orbit(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tmp_path))
    (tmp_path / "encoder_b.safetensors").write_bytes(b"judge")
    own, orbit_of = hashlib.sha256(b"judge").hexdigest(), Camera()

    def look(**more):
        made = Calibration("heads-b", 1e-3, 0.5, 1.0, 400, 3, **more)
        text = json.dumps({"calibrations": [{"model_sha256": "m", **made.to_dict()}]})
        (tmp_path / "calibration.json").write_text(text)
        return shipped(tmp_path, "m", "heads-b", 1e-3, orbit_of) == made

    assert look()
    assert look(judge_sha256=own, camera=orbit(orbit_of))
    assert not look(judge_sha256="0" * 64)
    assert not look(camera=orbit(dataclasses.replace(orbit_of, pitch=0.0)))
    assert registry.weights_file("heads-b").parent == tmp_path
    (tmp_path / "calibration.json").write_text("[")
    assert shipped(tmp_path, "m", "heads-b", 1e-3) is None


def test_what_cannot_be_used_is_said():
    embeddings = torch.nn.functional.normalize(torch.randn(4, 2, 8), dim=2)
    with pytest.raises(InputError, match=r"gate\.far"):
        threshold_at(embeddings, 1e-3)
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "xpu", "abacus"):
        with pytest.raises(InputError):
            pick_device(name)


# ----------------------------------------------------------------------------
# Less work


def with_speed(**options) -> Recipe:
    return dataclasses.replace(load_recipe("heads"), speed=Speed(**options))


def counted(eraser: Eraser, monkeypatch) -> list[int]:
    """How many latents the teacher makes planes of, call by call."""
    calls, planes = [], eraser.teacher.planes
    monkeypatch.setattr(
        eraser.teacher, "planes", lambda ws, **how: calls.append(len(ws)) or planes(ws, **how)
    )
    return calls


def test_nothing_is_saved_by_default():
    assert load_recipe("heads").speed == load_recipe("guide").speed == Speed()
    assert "speed" not in load_recipe("heads").to_yaml()  # digests of before this option stay
    assert load_recipe("heads").digest() != with_speed(pool=3).digest()
    assert "pool: 3" in with_speed(pool=3).to_yaml()
    assert "precision" not in with_speed(pool=3).to_yaml()
    kept = dataclasses.replace(load_recipe("heads"), bystanders=Global(identity=0.5))
    assert "identity: 0.5" in kept.to_yaml()
    assert "identity" not in yaml.safe_load(load_recipe("heads").to_yaml())["global"]


def test_bystanders_keep_their_identity_where_asked():
    recipe = load_recipe("heads")
    recipe = dataclasses.replace(recipe, bystanders=dataclasses.replace(recipe.bystanders, identity=0.5))
    eraser = tiny_eraser(recipe)
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    losses = eraser.step(erasure, eraser.draw(erasure, 3))
    found = [losses.terms[f"bystanders.{name}"] for name in ("perceptual", "identity")]
    expected = sum(a + 0.5 * b for a, b in zip(*found, strict=True)) * recipe.bystanders.weight
    assert losses.bystanders == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert [p.weights.l2 for p in eraser.pairs(erasure, eraser.draw(erasure, 3))][2] == 0


def test_draws_of_a_pool_come_round_and_the_teacher_shows_them_once(monkeypatch):
    eraser = tiny_eraser(with_speed(pool=2))
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    draws = [eraser.draw_at(erasure, 5, 0, step) for step in range(4)]
    assert torch.equal(draws[0].w_global, draws[2].w_global)
    assert not torch.equal(draws[0].w_global, draws[1].w_global)
    calls = counted(eraser, monkeypatch)
    for step in draws:
        eraser.step(erasure, step)
    assert sum(calls) == 2 * (1 + 3 + 6)


@pytest.mark.parametrize("new", [False, True])
def test_what_does_not_come_round_with_a_pool(new, monkeypatch):
    recipe = with_speed(pool=2, new_neighbours=new)
    eraser = tiny_eraser(recipe)
    w = eraser.space.random(3, torch.Generator().manual_seed(2)).split(1)
    eraser.earlier = [Erasure(x, x.flip(2)) for x in w[1:]]
    erasure = eraser.target(w[0])
    draws = [eraser.draw_at(erasure, 5, 0, step) for step in (0, 2, 4)]
    for name in ("c", "w_global", "seed"):
        assert len({str(getattr(d, name)) for d in draws}) == 1
    assert len({str(d.z_replay) for d in draws}) == 3
    assert len({str(d.z_adjacent) for d in draws}) == (3 if new else 1)
    calls = counted(eraser, monkeypatch)
    eraser.step(erasure, draws[0])
    everything, kept = sum(calls), dict(eraser.aims)
    eraser.step(erasure, draws[1])
    rehearsed = 1 + recipe.replay.neighbours
    assert sum(calls) - everything == rehearsed + (recipe.adjacency.samples if new else 0)
    assert eraser.aims == kept


def test_a_kept_teacher_changes_no_loss(monkeypatch):
    """The second step of a pool that has come round: with the teacher's side kept, kept but for the large
    maps, and made anew."""
    losses = []
    for kept in ("all", "pictures", "nothing"):
        if kept == "pictures":
            monkeypatch.setattr(erasing, "MAPS_KEPT", 0)
        eraser = tiny_eraser(with_speed(pool=1))
        erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
        draws = eraser.draw_at(erasure, 5, 0, 0)
        eraser.step(erasure, draws)
        assert {aim.maps is None for aim in eraser.aims.values()} == {kept != "all"}
        assert any(aim.planes is None for aim in eraser.aims.values())  # bystanders' planes are not compared
        if kept == "nothing":
            eraser.aims.clear()
        losses.append(eraser.step(erasure, draws).total)
    assert losses[0] == losses[1] == losses[2]


def test_fewer_rays_are_rendered_on_both_sides(monkeypatch):
    eraser, sizes = tiny_eraser(with_speed(rays=8)), []
    for model in (eraser.student, eraser.teacher):
        render = model.render

        def seen(*arguments, render=render, **how):
            sizes.append(how["neural_rendering_resolution"])
            return render(*arguments, **how)

        monkeypatch.setattr(model, "render", seen)
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    eraser.step(erasure, eraser.draw(erasure, 3))
    assert set(sizes) == {8}
    assert len(sizes) == 6


def test_an_erasure_ends_when_it_is_enough():
    erasure_at = torch.Generator().manual_seed(2)
    eraser = tiny_eraser(with_speed(check_every=2, enough=1.0))
    erasure = eraser.target(eraser.space.random(1, erasure_at))
    assert [eraser.finished(erasure, step) for step in (0, 1, 2, 3, 60)] == [False, False, True, False, True]
    eraser.recipe = with_speed(check_every=2, enough=-1.0)
    assert [eraser.finished(erasure, step) for step in (0, 2, 58, 60)] == [False, False, False, True]
    eraser.recipe = load_recipe("heads")
    assert [eraser.finished(erasure, step) for step in (2, 59, 60)] == [False, False, True]


@pytest.mark.parametrize(
    ("place", "counts"), [(0, True), (1, False), (7, False), (21, True)], ids=["w_u", "one", "two", "a photo"]
)
def test_a_check_spares_neighbours_and_nothing_else(place, counts, monkeypatch):
    """Two of 20 at 0.10, the most alike. Training goes where most is seen, spared or not."""
    plan = with_speed(check_every=2, enough=0.5, spared=0.1)
    adjacency = dataclasses.replace(plan.adjacency, photos=True)
    eraser = tiny_eraser(dataclasses.replace(plan, adjacency=adjacency))
    ws = eraser.space.random(2, torch.Generator().manual_seed(2))
    erasure = dataclasses.replace(eraser.target(ws[:1]), photos=ws[1:])
    cosines = torch.full((22,), 0.4)
    cosines[place], cosines[12] = 0.9, 0.6
    monkeypatch.setattr(eraser, "faces", lambda model, ws: cosines[:, None])
    monkeypatch.setattr(eraser, "shown", lambda erasure: torch.ones(3, 1))
    assert eraser.enough(erasure, 2) is not counts
    worst = place or 12  # w_u itself is trained in every step
    around = eraser.around(erasure, 20, erasing.step_seed(-3, 2))
    assert torch.equal(eraser.shown_at[1], around[worst : worst + 1] - ws[:1])
    eraser.recipe = dataclasses.replace(eraser.recipe, speed=with_speed(check_every=2, enough=0.5).speed)
    assert not eraser.enough(erasure, 2)  # by default none is spared


def test_a_third_neighbour_counts():
    eraser = tiny_eraser(with_speed(spared=0.1))
    likeness = torch.full((21,), 0.2)
    likeness[[3, 9, 20]] = torch.tensor([0.9, 0.7, 0.8])
    assert eraser.counted(likeness) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("options", "tolerance"), [({"precision": "tf32"}, 0.0), ({"precision": "bfloat16"}, 0.05)]
)
def test_precision_of_the_losses(options, tolerance):
    """On a CPU: TF32 changes nothing, bfloat16 rounds the networks and leaves float32 behind."""
    networks = registry.load_perceptual("heads-features"), registry.load_identity("heads-a")
    losses = []
    for speed in ({}, options):
        eraser = tiny_eraser(with_speed(**speed), *networks)
        erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
        losses.append(eraser.step(erasure, eraser.draw_at(erasure, 5, 0, 0)))
        assert {p.grad.dtype for p in eraser.parameters if p.grad is not None} == {torch.float32}
        aim = eraser.loss.aim(View(torch.zeros(1), torch.rand(1, 3, 64, 64)), Weights(1, 1, 1))
        assert {maps.dtype for maps in [*aim.maps, aim.embedding]} == {torch.float32}
    assert losses[1].total == pytest.approx(losses[0].total, rel=tolerance)
    assert (losses[1].terms == losses[0].terms) == (not tolerance)
    assert not torch.backends.cuda.matmul.allow_tf32


def test_compiled_networks(monkeypatch):
    """The path, without the compiler's minutes."""
    compiled, losses = [], []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    for speed in ({}, {"compile": True}):
        eraser = tiny_eraser(with_speed(**speed))
        erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
        losses.append(eraser.step(erasure, eraser.draw_at(erasure, 5, 0, 0)).total)
    assert losses[0] == losses[1]
    assert compiled == [eraser.loss.perceptual.features, eraser.loss.identity]


def averaging(decay: float) -> Recipe:
    recipe = load_recipe("heads")
    optim = dataclasses.replace(recipe.optim, average=decay, iterations=4, lr=1e-2)
    return dataclasses.replace(recipe, optim=optim)


def weights_of(eraser: Eraser) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in eraser.parameters])


def test_the_weights_of_an_erasure_are_an_average_over_its_steps():
    plain, averaged = tiny_eraser(averaging(0.0)), tiny_eraser(averaging(0.6))
    w_u = plain.space.random(1, torch.Generator().manual_seed(2))
    path, target = [], plain.target(w_u)
    plain.after_step = lambda: path.append(weights_of(plain))
    for step in range(4):
        draws = plain.draw_at(target, 0, 0, step)
        plain.step(target, draws)
        averaged.step(target, draws)
        with averaged.averaged():
            seen = weights_of(averaged)
        assert torch.equal(weights_of(averaged), path[-1])  # the steps themselves are the same
    averaged.settle()
    mean = path[0]
    for step, share in ((1, 1 / 2), (2, 0.4), (3, 0.4)):
        mean = mean.lerp(path[step], share)
    assert torch.allclose(weights_of(averaged), mean, atol=1e-6)
    assert torch.equal(seen, weights_of(averaged))
    assert not torch.allclose(mean, path[-1], atol=1e-4)


def test_averages_survive_in_the_state():
    first, second = tiny_eraser(averaging(0.6)), tiny_eraser(averaging(0.6))
    target = first.target(first.space.random(1, torch.Generator().manual_seed(2)))
    for step in range(4):
        if step == 2:
            second.load_state(copy.deepcopy(first.state()))
            first = second
        first.step(target, first.draw_at(target, 0, 0, step))
    first.settle()
    whole = tiny_eraser(averaging(0.6))
    whole.erase(target.w_u, seed=0)
    assert torch.equal(weights_of(whole), weights_of(first))


def cooling(steps: int, **speed) -> Recipe:
    recipe = averaging(0.6)
    optim = dataclasses.replace(recipe.optim, cooldown=steps)
    return dataclasses.replace(recipe, optim=optim, speed=dataclasses.replace(recipe.speed, **speed))


def test_an_erasure_that_is_done_has_its_cooldown_first():
    eraser = tiny_eraser(cooling(4, check_every=1, enough=1.0))
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    lr, rates, looks = eraser.recipe.optim.lr, [], []
    eraser.after_step = lambda: rates.append(eraser.optimizer.param_groups[0]["lr"])
    look = eraser.look

    def noted(*of):
        looks.append(len(rates))
        return look(*of)

    eraser.look = noted
    step = 0
    while not eraser.finished(erasure, step):
        eraser.step(erasure, eraser.draw_at(erasure, 0, 0, step))
        step += 1
    assert step == 5  # one until nobody is seen any more, and the four
    assert looks == [1]
    assert rates == pytest.approx([lr, *(lr / 3 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))])
    assert eraser.finished(erasure, step)


def test_at_the_last_iteration_the_cooldown_follows_too():
    eraser = tiny_eraser(cooling(3))
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    eraser.erase(erasure.w_u, seed=0)
    assert eraser.taken == 4 + 3


@pytest.mark.parametrize("at", [1, 4, 5, 7])
def test_a_cooldown_goes_on_where_it_stood(at):
    """From what a run saves after each step: before the cooldown, right before it, inside, at its end."""
    first, second = tiny_eraser(cooling(3)), tiny_eraser(cooling(3))
    target, step = first.target(first.space.random(1, torch.Generator().manual_seed(2))), 0
    while not first.finished(target, step):
        first.step(target, first.draw_at(target, 0, 0, step))
        step += 1
        if step == at:
            second.load_state(copy.deepcopy(first.state()))
            first = second
    assert step == 7
    first.settle()
    whole = tiny_eraser(cooling(3))
    whole.erase(target.w_u, seed=0)
    assert torch.equal(weights_of(whole), weights_of(first))


# ------------------------------------------------------------------------------------------------------------
# A whole step at once


@pytest.mark.parametrize("pool", [0, 1])
def test_a_whole_step_at_once_is_the_same_step(pool, monkeypatch):
    """In one batch instead of six chunks: the same losses and gradients up to rounding, twice with a pool."""
    batches, batch = [], Eraser._batch
    monkeypatch.setattr(
        Eraser,
        "_batch",
        lambda self, chunks, draws: batches.append(len(chunks)) or batch(self, chunks, draws),
    )
    recipe = with_speed(pool=pool, whole_step=True)
    recipe = dataclasses.replace(
        with_micro_batch(recipe, 1), bystanders=dataclasses.replace(recipe.bystanders, identity=0.2)
    )
    found = []
    for whole in (False, True):
        monkeypatch.setattr(Eraser, "whole", whole)
        eraser = tiny_eraser(recipe)
        w_u, other = eraser.space.random(2, torch.Generator().manual_seed(2)).split(1)
        eraser.earlier = [eraser.target(other)]
        erasure, steps = eraser.target(w_u), []
        for step in range(2):
            losses = eraser.step(erasure, eraser.draw_at(erasure, 5, 0, step))
            steps.append((losses, torch.cat([p.grad.flatten() for p in eraser.parameters])))
        found.append(steps)
    kept = [x for aim in eraser.aims.values() for x in (aim.planes, aim.image, *aim.maps) if x is not None]
    assert bool(kept) == bool(pool)
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in kept)  # and nothing of the rest of the batch
    assert set(batches[: len(batches) // 2]) == {1}
    assert batches[-1] > 4
    for (apart, its_grad), (together, grad) in zip(*found, strict=True):
        assert together.total == pytest.approx(apart.total, rel=1e-4)
        assert together.terms.keys() == apart.terms.keys()
        for name, values in apart.terms.items():
            assert together.terms[name] == pytest.approx(values, rel=1e-3, abs=1e-6)
        assert torch.nn.functional.cosine_similarity(grad, its_grad, dim=0) > 0.999


def test_whole_steps_are_for_noise_that_is_not_shared():
    eraser = tiny_eraser(with_speed(whole_step=True))
    assert eraser.whole
    eraser.space.device = torch.device("cuda")
    assert eraser.whole
    eraser.recipe = dataclasses.replace(eraser.recipe, noise="random")
    assert eraser.recipe.shared_noise
    assert not eraser.whole
    eraser.recipe = dataclasses.replace(eraser.recipe, shared_noise=False)
    assert eraser.whole
    eraser.space.device = torch.device("cpu")
    assert not eraser.whole
    eraser.recipe = with_speed()
    assert not eraser.whole


# ------------------------------------------------------------------------------------------------------------
# Towards the photos that found the person


def near_photos(**options) -> Recipe:
    recipe = with_speed()
    return dataclasses.replace(
        recipe, adjacency=dataclasses.replace(recipe.adjacency, photos=True, **options)
    )


def test_one_neighbour_lies_towards_a_photo():
    eraser = tiny_eraser(near_photos(samples=3))
    ws = eraser.space.random(4, torch.Generator().manual_seed(2))
    plain = eraser.target(ws[:1])
    erasure = dataclasses.replace(plain, photos=ws[1:])
    chosen = set()
    for step in range(12):
        draws, without = (eraser.draw_at(e, 5, 0, step) for e in (erasure, plain))
        assert without.photo is None
        assert 0.6 <= draws.photo_reach <= 1.3
        chosen.add(draws.photo)
        pairs, as_before = (
            {p.name: p for p in eraser.pairs(e, d)}["adjacency"]
            for e, d in ((erasure, draws), (plain, without))
        )
        assert torch.equal(pairs.w_student[:2], as_before.w_student[:2])  # all else is drawn as it was
        way, offset = ws[1 + draws.photo] - ws[0], pairs.w_student[2] - ws[0]
        aside = as_before.w_student[2] - ws[0]
        torch.testing.assert_close(offset, draws.photo_reach * way + 0.4 * aside)
        torch.testing.assert_close(pairs.w_teacher - pairs.w_student, (plain.w_t - ws[:1]).expand(3, -1, -1))
    assert chosen == {0, 1, 2}


def test_a_check_looks_where_the_photos_are():
    eraser = tiny_eraser(near_photos())
    ws = eraser.space.random(3, torch.Generator().manual_seed(2))
    erasure = dataclasses.replace(eraser.target(ws[:1]), photos=ws[1:])
    around = eraser.around(erasure, 4, 0)
    assert len(around) == 7
    assert torch.equal(around[5:], ws[1:])
    eraser.recipe = with_speed()  # nobody asked for it
    assert len(eraser.around(erasure, 4, 0)) == 5
    assert eraser.draw(erasure, 1).photo is None
