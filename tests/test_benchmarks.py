"""examples/benchmarks: the baseline computes what the engine does, in operations that are not its own."""

import copy
import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guide_hub.eg3d import EG3D, RaySampling
from guide_hub.eg3d.camera import camera_label
from guide_hub.evaluation.identity import measure_person, measure_retained
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.guide import Eraser

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
GROUPS = ("step", "erasure", "inversion", "verification")
MODULES = ("plain", "released", "networks", "cases", "table", "run", *(f"bench_{group}" for group in GROUPS))


@pytest.fixture(scope="module")
def bench():
    """The folder's modules by name, out of the way of other examples' of the same names."""
    kept = {name: sys.modules.pop(name, None) for name in MODULES}
    path = sys.path[:]
    sys.path.insert(0, str(FOLDER))
    found = {name: importlib.import_module(name) for name in MODULES}
    sys.path[:] = path
    for name in MODULES:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in kept.items() if module is not None})
    return found


@pytest.fixture(scope="module")
def setup(bench):
    """The tiny model with noise that counts, and a recipe without randomness beyond its draws."""
    built = bench["cases"].CONFIGS["tiny"].build()
    for name, value in built.teacher.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.1)
    recipe = dataclasses.replace(built.recipe, noise="const", deterministic_rays=True)
    return dataclasses.replace(built, recipe=recipe)


def networks_of(setup):
    """Copies: the released structure unfreezes its own."""
    return tuple(copy.deepcopy(n) for n in (setup.networks.perceptual, setup.networks.identity_loss))


def stepped(bench, setup, make, plain=False):
    """Losses, gradients and the eraser after one step with the same draws."""
    eraser = make(setup.student(), setup.teacher, setup.recipe, *networks_of(setup))
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(3)))
    with bench["plain"].plain_operations(plain):
        losses = eraser.step(erasure, eraser.draw(erasure, 4))
    gradients = torch.cat([p.grad.flatten() for p in eraser.parameters])
    return losses, gradients, eraser


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("backward", ["sum", "pair"])
def test_released_structure_has_our_losses_and_gradients(bench, setup, plain, backward):
    def released(*args):
        return bench["released"].Released(*args, fixed_noise=True, backward=backward)

    ours, our_gradients, _ = stepped(bench, setup, Eraser)
    theirs, gradients, eraser = stepped(bench, setup, released, plain)
    assert theirs.terms.keys() == ours.terms.keys()
    for name, values in ours.terms.items():
        assert theirs.terms[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    for name in ("local", "adjacency", "bystanders", "total"):
        assert getattr(theirs, name) == pytest.approx(getattr(ours, name), rel=1e-4, abs=1e-6), name
    assert our_gradients.norm() > 0
    assert (gradients - our_gradients).norm() < 1e-3 * our_gradients.norm()
    # what the released loop computes for nothing
    assert all(p.grad is not None for p in eraser.identity.parameters())


def test_released_structure_does_the_released_work(bench, setup, monkeypatch):
    """8 passes of the backbone and 5 renderings a side, one latent at a time, with noise; ours 5 and 5."""
    counted, modes, dtypes, sizes = [], set(), set(), set()
    planes, render = EG3D.planes, EG3D.render

    def count_planes(self, ws, noise_mode="const", generator=None):
        counted.extend([(id(self), "planes")] * len(ws))
        modes.add(noise_mode)
        sizes.add(len(ws))
        dtypes.add(ws.dtype)
        return planes(self, ws, noise_mode, generator)

    def count_renders(self, made, *args, **how):
        counted.extend([(id(self), "render")] * len(made))
        modes.add(f"deterministic {how['deterministic']}")
        return render(self, made, *args, **how)

    monkeypatch.setattr(EG3D, "planes", count_planes)
    monkeypatch.setattr(EG3D, "render", count_renders)
    _, _, eraser = stepped(bench, setup, bench["released"].Released)
    for model in (eraser.student, eraser.teacher):
        assert counted.count((id(model), "planes")) == 8
        assert counted.count((id(model), "render")) == 5
    assert modes == {"random", "deterministic False"}
    assert sizes == {1}
    assert dtypes == {torch.float32, torch.float64}
    counted.clear()
    _, _, eraser = stepped(bench, setup, Eraser)
    for model in (eraser.student, eraser.teacher):
        assert counted.count((id(model), "planes")) == counted.count((id(model), "render")) == 5


def pictures(model, plain, bench, **how):
    z = torch.randn(2, model.config.z_dim, generator=torch.Generator().manual_seed(0))
    c = camera_label(torch.tensor([0.1, -0.2]))
    with bench["plain"].plain_operations(plain):
        generator = torch.Generator().manual_seed(1)
        return model.synthesis(model.mapping(z, c), c, generator=generator, **how)


@pytest.mark.parametrize("how", [{"deterministic": True}, {"noise_mode": "random"}])
@pytest.mark.parametrize("white_back", [False, True])
def test_plain_operations_make_the_same_pictures(bench, setup, how, white_back):
    model = setup.student()
    rendering = dataclasses.replace(model.config.rendering, white_back=white_back)
    other = EG3D(dataclasses.replace(model.config, rendering=rendering)).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        ours, plain = (pictures(other, side, bench, **how) for side in (False, True))
    for name, value in ours.items():
        torch.testing.assert_close(plain[name], value, atol=3e-4, rtol=0, msg=name)


def test_plain_operations_make_the_golden_pictures(bench, shared):
    """Against the reference's numbers, so that plain and ours are not wrong together."""
    from eg3d_golden import part, vectors

    from guide_hub.eg3d import EG3DConfig, RenderingConfig
    from guide_hub.eg3d.camera import rays
    from guide_hub.eg3d.rendering import Decoder, Renderer

    ops = vectors(shared, "ops")
    decoder = Decoder(EG3DConfig())
    decoder.load_state_dict(part(ops, "renderer/dec/"), strict=True)
    renderer = Renderer(RenderingConfig(depth_resolution=8, depth_resolution_importance=8))
    origins, directions = rays(ops["rays/c2w"], ops["rays/K"], 16)
    with bench["plain"].plain_operations():
        how = RaySampling(deterministic=True)
        rgb, depth, total = renderer(ops["renderer/planes"], decoder, origins, directions, how)
    for found, name in ((rgb, "rgb"), (depth, "depth"), (total, "weights_sum")):
        torch.testing.assert_close(found, ops[f"renderer/{name}"], atol=1e-5, rtol=0)


# What of guide_hub.eg3d may still run in plain operations: no arithmetic that was made quicker.
STILL_FILES = {"camera.py", "config.py", "mapping.py", "model.py"}
STILL = {"SynthesisNetwork.forward", "SynthesisLayer.noise", "Superresolution.resize", "draw", "ray_limits"}


def functions_of_eg3d(run):
    """Qualified names of the functions of guide_hub.eg3d that `run` calls, but for what may still run."""
    called, folder = set(), Path(inspect.getfile(EG3D)).parent

    def profile(frame, event, arg):
        code = frame.f_code
        file = Path(code.co_filename)
        if event != "call" or file.parent != folder or file.name in STILL_FILES or "<" in code.co_name:
            return
        owner = frame.f_locals.get("self")
        called.add(f"{type(owner).__name__}.{code.co_name}" if owner is not None else code.co_name)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return called - STILL


@pytest.mark.parametrize("deterministic", [False, True])
def test_nothing_of_ours_computes_in_plain_operations(bench, setup, deterministic):
    model = setup.student().requires_grad_(True)

    def run(plain):
        pictures(model, plain, bench, deterministic=deterministic)["image"].sum().backward()

    assert functions_of_eg3d(lambda: run(True)) == set()
    assert len(functions_of_eg3d(lambda: run(False))) >= 10, "there would be nothing to replace"


def test_every_plain_operation_is_reached(bench, setup, monkeypatch):
    """An engine that no longer calls what is replaced would be benchmarked against itself."""
    plain, reached = bench["plain"], set()

    def counting(place, operation):
        def call(*args, **options):
            reached.add(place)
            return operation(*args, **options)

        return call

    for place, operation in plain.PLAIN.items():
        monkeypatch.setitem(plain.PLAIN, place, counting(place, operation))
    before = {place: place[0].__dict__[place[1]] for place in plain.PLAIN}
    pictures(setup.student(), True, bench)
    assert reached == set(plain.PLAIN)
    with pytest.raises(RuntimeError), plain.plain_operations():
        raise RuntimeError
    assert {place: place[0].__dict__[place[1]] for place in plain.PLAIN} == before


@pytest.mark.parametrize("plain", [False, True])
def test_view_by_view_measures_what_the_engine_measures(bench, setup, plain):
    source, erased, nets = setup.teacher, setup.student(), setup.networks
    with torch.no_grad():
        erased.backbone.synthesis.b4.const.mul_(1.5)
    w = source.mapping(
        torch.randn(5, 64, generator=torch.Generator().manual_seed(6)), camera_label(0.0).repeat(5, 1)
    )
    c, three = (yaw_cameras(source, setup.recipe.camera, n) for n in (3, 2))
    photos = render_views(source, w[:3], c[:1])[:, 0]
    judge, perceptual = nets.identity_judge, nets.perceptual
    person = measure_person(source, erased, judge, photos, w[:3], c, 0.5)
    kept = measure_retained(source, erased, judge, perceptual, w[3:], three, 0.5)
    with bench["plain"].plain_operations(plain):
        found = bench["released"].measure_view_by_view(
            source, erased, judge, perceptual, (photos, w[:3], c), (w[3:], three), 0.5
        )
    for ours, theirs in zip((person, kept), found, strict=True):
        a, b = (flat(dataclasses.asdict(m)) for m in (ours, theirs))
        assert b == pytest.approx(a, abs=1e-4)


def flat(values, prefix=""):
    out = {}
    for key, value in values.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


# ----------------------------------------------------------------------------
# Cases, results and tables


def test_every_group_has_a_bench_file_and_every_model_a_baseline(bench):
    cases = bench["cases"]
    names = [case.name for case in cases.cases()]
    assert len(set(names)) == len(names)
    assert set(cases.GROUPS) == set(GROUPS)
    for group in GROUPS:
        assert group == bench[f"bench_{group}"].GROUP
        for config in cases.CONFIGS:
            found = cases.cases([config], [group])
            assert not found or (found[0].row.plain and len(found) > 1)
    for case in cases.cases():
        cases.changed(cases.load_recipe(case.config.recipe), case.row.changes)  # TypeError: no such option


def result(wall, **more):
    machine = {"torch": "2.14.1", "threads": 1, "cpu": "A", "commit": "abc1234"}
    return {"wall_s": wall, "cpu_s": [2 * w for w in wall], "peak_gib": 2.0, "machine": machine, **more}


def test_table_has_ratios_to_the_released_structure(bench, tmp_path):
    table = bench["table"]

    def store(name, value):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))

    store("medium-step-released", result([9.0, 8.0, 7.0]))
    store("medium-step-ours", result([4.0]))
    store(
        "medium-step-ours-pool",
        result([2.0], kept_draws=2, warmup_wall_s=[5.0, 4.5], warmup_cpu_s=[9.0, 9.0]),
    )
    store("medium-step-released-our-ops", {"failed": "it ended with signal 9"})
    store("builtin-erasure-ours", result([60.0], steps=25, figures={"id": 0.1, "retained": 0.975}))
    store("of-another-time", result([1.0]))
    text = table.tables(tmp_path)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    cells = [
        cell.strip() for cell in lines["ours, all draws new: same maths, nothing kept"].strip("|").split("|")
    ]
    assert cells[1:6] == ["4", "2.00", "8", "2.00", "2.00"]
    assert "it ended with signal 9" in lines["released structure, our operations"]
    assert "4.5 s, CPU 9 s" in lines["ours, the teacher's pictures kept"]
    assert "25 steps" in text
    assert "0.975" in text
    assert "of-another-time" not in text


def test_a_report_of_many_rows_is_stored_row_by_row(bench, tmp_path):
    """As a GPU's are, that pytest ran in one process; RESULTS.md names the GPU, and the rows of it alone."""
    info = {"wall_s": [0.31], "cpu_s": [0.3], "peak_gib": 3.0, "torch": "2.11.0", "gpu": "A GPU"}
    rows = [{"extra_info": {**info, "case": f"medium-step-{name}"}} for name in ("released", "ours-whole")]
    machine = {"python_version": "3.12.3", "cpu": {"brand_raw": "A/B", "count": 16}}
    (tmp_path / "report.json").write_text(json.dumps({"machine_info": machine, "benchmarks": rows}))
    out = tmp_path / "gpu" / "results"
    options = ("--take", tmp_path / "report.json", "--device", "cuda", "--out", out)
    subprocess.run([sys.executable, FOLDER / "run.py", *options], check=True, timeout=120)
    stored = json.loads((out / "medium-step-ours-whole.json").read_text())
    assert stored["wall_s"] == [0.31]
    assert stored["machine"] | {"commit": ""} == {
        "GPU": "A GPU", "CPU": "A-B", "cores": 16, "threads": 1, "Python": "3.12.3", "commit": "",
        "torch": "2.11.0",
    }  # fmt: skip
    text = (out.parent / "RESULTS.md").read_text()
    assert "ours, all draws new, all latents at once | 0.31 | 1.00" in text
    assert "GPU A GPU" in text
    names = [case.row.name for case in bench["cases"].cases(["medium"], ["step"])]
    assert "ours-whole" not in names  # on a CPU `heads-fast` has it


def test_run_lists_what_is_missing(tmp_path):
    (tmp_path / "tiny-step-ours.json").write_text(json.dumps(result([1.0])))
    (tmp_path / "tiny-step-released.json").write_text(json.dumps({"failed": "no"}))
    options = ("--config", "tiny", "--group", "step", "--out", tmp_path)
    listed = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--list", *options],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert "there    tiny-step-ours" in listed
    assert "failed   tiny-step-released" in listed
    assert "missing  tiny-step-ours-pool" in listed
    assert len(listed) == 6


def test_results_are_figures_alone():
    """What is committed names no file, folder or machine."""
    files = [*(FOLDER / "results").glob("*.json"), *(FOLDER / "gpu" / "results").glob("*.json")]
    assert len(files) > 30
    for file in files:
        text = file.read_text()
        assert len(text) < 4000
        assert "/" not in text
