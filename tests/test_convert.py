"""`guide-hub convert`: from an official file or plain state dict to a folder that everything else reads."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eg3d_golden import IMAGE, close, part, tiny2x_official, vectors
from official_files import FULL, RENDERING, SMALL, Official, dumps, official_file, small_model, toy_state
from safetensors.torch import load_file

from guide_hub import hub
from guide_hub.convert import MEASURED, W_AVG, convert, measure_w_avg
from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.eg3d.camera import camera_label
from guide_hub.eg3d.presets import PRESETS, config_misfits, recognise
from guide_hub.eg3d.pretrained import config_bytes, read_config
from guide_hub.errors import InputError
from guide_hub.record.card import check_front_matter

LICENCE = "NVIDIA Source Code License for EG3D\n\n1. Definitions\n..."


@pytest.fixture(scope="module")
def model() -> EG3D:
    return small_model()


@pytest.fixture
def pickled(model: EG3D, tmp_path: Path) -> Path:
    return written(tmp_path, Official(model.state_dict()))


@pytest.fixture
def licence(tmp_path: Path) -> Path:
    (tmp_path / "LICENSE.txt").write_text(LICENCE)
    return tmp_path / "LICENSE.txt"


def written(folder: Path, official: Official) -> Path:
    (folder / "network.pkl").write_bytes(official_file(official))
    return folder / "network.pkl"


def saved(folder: Path, content: object, **how: object) -> Path:
    torch.save(content, folder / "weights.pt", **how)
    return folder / "weights.pt"


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(state: dict, expected: dict, *but: str) -> None:
    assert state.keys() == expected.keys()
    assert {name for name in state if not torch.equal(state[name], expected[name])} == {*but}


# ----------------------------------------------------------------------------
# Official files.


@pytest.mark.parametrize("name", ["eg3d_tiny2x.pkl", "eg3d_tiny2x_cuda_storage.pkl"])
def test_golden_files_give_the_golden_weights_and_pictures(shared, tmp_path, name):
    file = shared / "golden" / "pickles" / name
    done = convert(file, tmp_path / "model")
    golden, official = vectors(shared, "tiny2x"), tiny2x_official(shared)
    same(state_of(tmp_path / "model"), load_file(shared / "golden" / "tiny2x" / "state.safetensors"))
    loaded = EG3D.from_pretrained(tmp_path / "model")
    config = EG3DConfig.from_official(official["init_kwargs"], official["neural_rendering_resolution"])
    assert replace(loaded.config, domain={}) == config
    assert (done.preset, done.w_avg, done.licensed) == (None, "checkpoint", False)
    with torch.no_grad():
        out = loaded.synthesis(golden["ws"], golden["c"], deterministic=True)
    for key, value in part(golden, "nojitter/").items():
        if not key.startswith("u_"):
            close(out[key], value, IMAGE)


def test_what_is_written(model, pickled, licence, tmp_path):
    done = convert(pickled, tmp_path / "model", license_file=licence)
    folder = tmp_path / "model"
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "LICENSE"}
    assert (folder / "LICENSE").read_text() == LICENCE
    same(state_of(folder), model.state_dict())
    assert done.sha256 == file_sha256(folder / "model.safetensors")
    assert done.parameters == sum(p.numel() for p in model.parameters())
    card = (folder / "README.md").read_text()
    assert check_front_matter(card) == {
        "license": "other", "license_name": "nvidia-source-code-license-for-eg3d", "license_link": "LICENSE",
        "library_name": "guide-hub", "pipeline_tag": "unconditional-image-generation",
        "tags": ["guide-hub", "eg3d"],
    }  # fmt: skip
    for fact in (file_sha256(pickled), "`G_ema`", "TriPlaneGenerator", "unknown configuration", "checkpoint"):
        assert fact in card
    assert str(tmp_path) not in card
    assert pickled.name not in card
    assert read_config(folder / "config.json").domain == {"w_avg": "checkpoint"}
    source = hub.resolve(str(folder))
    assert source.license_fields["license"] == "other"
    assert source.license_file == folder / "LICENSE"


def test_without_its_text_there_is_no_licence(pickled, licence, tmp_path):
    folder = tmp_path / "model"
    assert not convert(pickled, folder).licensed
    assert not (folder / "LICENSE").exists()
    card = (folder / "README.md").read_text()
    assert "license" not in check_front_matter(card)
    assert "must not be published" in card
    with pytest.raises(InputError, match="--license FILE"):
        hub.require_licence(hub.resolve(str(folder)))
    assert hub.resolve(str(folder), license_file=licence).license_file == licence
    (folder / "LICENSE").write_text(LICENCE)
    assert hub.resolve(str(folder)).license_file == folder / "LICENSE"


def test_the_raw_generator(model, tmp_path):
    raw = {name: value + 1 for name, value in model.state_dict().items()}
    file = tmp_path / "network.pkl"
    file.write_bytes(
        dumps({"G": Official(raw).generator(), "G_ema": Official(model.state_dict()).generator()})
    )
    assert convert(file, tmp_path / "raw", network="G").network == "G"
    same(state_of(tmp_path / "raw"), raw)
    assert "`G`" in (tmp_path / "raw" / "README.md").read_text()


def test_other_precisions_become_float32(model, tmp_path):
    half = {name: value.half() for name, value in model.state_dict().items()}
    convert(written(tmp_path, Official(half)), tmp_path / "model")
    same(state_of(tmp_path / "model"), {name: value.float() for name, value in half.items()})


def test_equal_files_give_equal_folders(pickled, tmp_path):
    for name in ("a", "b"):
        convert(pickled, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


# ----------------------------------------------------------------------------
# The mean latent.


@pytest.mark.parametrize("fault", ["zero", "nan", "missing", "unwanted"])
def test_w_avg_is_measured_where_the_file_has_none(model, tmp_path, fault):
    state = dict(model.state_dict())
    if fault == "missing":
        del state[W_AVG]
    elif fault != "unwanted":
        state[W_AVG] = torch.full_like(state[W_AVG], 0 if fault == "zero" else torch.nan)
    done = convert(
        written(tmp_path, Official(state)),
        tmp_path / "model",
        w_avg="measured" if fault == "unwanted" else "auto",
    )
    assert done.w_avg == MEASURED == "measured: 10000 z, frontal camera, seed 0"
    assert read_config(tmp_path / "model" / "config.json").domain == {"w_avg": MEASURED}
    assert MEASURED in (tmp_path / "model" / "README.md").read_text()
    same(state_of(tmp_path / "model"), model.state_dict(), W_AVG)
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(9))
    other = model.mapping(z, camera_label(0.0, pivot=(0, 0, 0.2)).expand(4000, -1))[:, 0]
    error = other.std(0) / 4000**0.5
    assert ((state_of(tmp_path / "model")[W_AVG] - other.mean(0)).abs() < 6 * error).all()
    assert torch.equal(state_of(tmp_path / "model")[W_AVG], measure_w_avg(model))


def test_w_avg_of_the_checkpoint_on_demand(model, pickled, tmp_path):
    assert convert(pickled, tmp_path / "model", w_avg="checkpoint").w_avg == "checkpoint"
    empty = written(tmp_path, Official({**model.state_dict(), W_AVG: torch.zeros(16)}))
    with pytest.raises(InputError, match="--w-avg measured"):
        convert(empty, tmp_path / "other", w_avg="checkpoint")
    assert not (tmp_path / "other").exists()


# ----------------------------------------------------------------------------
# Which model it is.

CARS = {
    "image_resolution": 128, "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "depth_resolution": 64, "depth_resolution_importance": 64, "ray_start": 0.1, "ray_end": 2.6,
    "box_warp": 1.6, "white_back": True, "avg_camera_radius": 1.7, "avg_camera_pivot": [0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rays", "size", "options"),
    [
        ("ffhq512-64", 64, 512, {}),
        ("ffhq512-128", 128, 512, {}),
        ("ffhqrebalanced512-64", 64, 512, {"gpc_reg_prob": 0.8}),
        ("ffhqrebalanced512-128", 128, 512, {"gpc_reg_prob": 0.8}),
        ("afhqcats512-128", 128, 512, {"avg_camera_pivot": [0, 0, -0.06]}),
        ("shapenetcars128-64", 64, 128, CARS),
        ("shapenetcars128-64", 64, 128, {**CARS, "ray_start": "auto", "ray_end": "auto"}),
        (None, 96, 512, {}),
        (None, 128, 512, {"gpc_reg_prob": 0.7}),
        (None, 128, 512, {"box_warp": 1.1}),
        (None, 64, 128, {**CARS, "white_back": False}),
    ],
)
def test_released_models_are_recognised_by_their_options(name, rays, size, options):
    live = FULL["rendering_kwargs"] | options
    config = EG3DConfig.from_official({**FULL, "img_resolution": size, "rendering_kwargs": live}, rays)
    assert recognise(replace(config, domain={"w_avg": "checkpoint"}), live["gpc_reg_prob"]) == name
    assert name is None or name in PRESETS


def test_the_reference_table_is_of_a_released_model(shared):
    table = json.loads((shared / "golden" / "ffhq512" / "shapes.json").read_text())
    kwargs = table["meta"]["init_kwargs"]
    config = EG3DConfig.from_official(kwargs, 128)
    assert recognise(config, kwargs["rendering_kwargs"]["gpc_reg_prob"]) == "ffhq512-128"
    state = {name: torch.ones(()).expand(row["shape"]) for name, row in table["tensors"].items()}
    assert config_misfits(config, state) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sr_num_fp16_res": 1 << 20}, "sr_num_fp16_res is impossible"),
        ({"w_dim": 1 << 20}, "w_dim is impossible"),
        ({"w_dim": 24}, r"b4\.conv1\.affine\.weight is \[2, 16\], not \[2, 24\]"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "mapping_layers is impossible"),
        ({"mapping_kwargs": {"num_layers": 5_000}}, "fewer than 5000 mapping layers"),
        ({"mapping_kwargs": {"num_layers": 1}}, "does not belong"),
        ({"mapping_kwargs": [1]}, "options that are no EG3D's"),
        ({"surprise": 1}, "unknown option surprise"),
        ({"rendering_kwargs": {**RENDERING, "clamp_mode": "relu"}}, "density clamp"),
        ({"rendering_kwargs": {}}, "lack superresolution_module"),
    ],
)
def test_options_that_do_not_fit(model, tmp_path, change, message):
    file = written(tmp_path, Official(model.state_dict(), init_kwargs={**SMALL, **change}))
    with pytest.raises(InputError, match=message):
        convert(file, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_impossible_width_is_not_made_for_a_missing_w_avg(model, tmp_path):
    state = {name: value for name, value in model.state_dict().items() if name != W_AVG}
    file = written(tmp_path, Official(state, init_kwargs={**SMALL, "w_dim": 1 << 50}))
    with pytest.raises(InputError, match="w_dim is impossible"):
        convert(file, tmp_path / "model")


def test_a_network_that_is_not_whole(model, tmp_path):
    state = {name: value for name, value in model.state_dict().items() if ".b4." not in name}
    with pytest.raises(InputError) as caught:
        convert(written(tmp_path, Official(state)), tmp_path / "model")
    assert "backbone.synthesis.b4.const is missing" in str(caught.value)
    assert len(caught.value.problems) == 5
    assert "more do not fit" in caught.value.problems[-1].message


# ----------------------------------------------------------------------------
# Plain state dicts.


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("key", [None, "state_dict", "G_ema"])
def test_plain_state_dicts(model, tmp_path, form, key):
    state = model.state_dict()
    content = state if key is None else {key: state, "step": 7}
    file = saved(tmp_path, content, _use_new_zipfile_serialization=form == "zip")
    (tmp_path / "config.json").write_bytes(config_bytes(model.config))
    done = convert(file, tmp_path / "model", config=tmp_path / "config.json")
    same(state_of(tmp_path / "model"), state)
    assert replace(read_config(tmp_path / "model" / "config.json"), domain={}) == model.config
    assert done.preset is None
    assert "config.json of the user" in (tmp_path / "model" / "README.md").read_text()


def empty_state(preset: str) -> dict[str, torch.Tensor]:
    """Tensors of the right shapes in a file of some KB: one number each, repeated."""
    with torch.device("meta"):
        state = EG3D(PRESETS[preset].config).state_dict()
    return {name: torch.ones(()).expand(value.shape) for name, value in state.items() if name != W_AVG}


def test_a_state_dict_without_options_names_the_presets_that_fit(tmp_path):
    file = saved(tmp_path, empty_state("ffhq512-64"))
    with pytest.raises(InputError, match="ffhq512-64, ffhq512-128, ffhqrebalanced512-64") as caught:
        convert(file, tmp_path / "model")
    assert "shapenet" not in str(caught.value)
    with pytest.raises(InputError, match="afhqcats512-128; name the right one"):
        convert(file, tmp_path / "model", preset="shapenetcars128-64")
    with pytest.raises(InputError, match="known: ffhq512-64"):
        convert(file, tmp_path / "model", preset="ffhq")
    with pytest.raises(InputError, match="no preset fits its tensors"):
        convert(saved(tmp_path, toy_state()), tmp_path / "model")


def test_a_named_preset(tmp_path):
    file = saved(tmp_path, empty_state("shapenetcars128-64"))
    done = convert(file, tmp_path / "model", preset="shapenetcars128-64")
    assert (done.preset, done.w_avg) == ("shapenetcars128-64", MEASURED)
    config = PRESETS["shapenetcars128-64"].config
    assert EG3D.from_pretrained(tmp_path / "model").config == replace(config, domain={"w_avg": MEASURED})
    assert "assumed: ray_start" in (tmp_path / "model" / "README.md").read_text()


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize(
    "content", [{"w": Bomb()}, Bomb(), [1], {}, {"w": 1}, {"a b": torch.ones(1)}, {1: torch.ones(1)}]
)
def test_state_dicts_that_are_none(tmp_path, monkeypatch, form, content):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, content, _use_new_zipfile_serialization=form)
    with pytest.raises(InputError, match="no state dict"):
        convert(file, tmp_path / "model", preset="ffhq512-64")
    assert not (tmp_path / "exploded").exists()


def test_damaged_archives(tmp_path):
    whole = saved(tmp_path, toy_state()).read_bytes()
    for data in (
        whole[:-100],
        whole[: len(whole) // 2],
        b"PK\x03\x04",
        whole.replace(b"data.pkl", b"atad.pkl"),
    ):
        (tmp_path / "weights.pt").write_bytes(data)
        with pytest.raises(InputError, match="no state dict"):
            convert(tmp_path / "weights.pt", tmp_path / "model", preset="ffhq512-64")
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(InputError, match="unpacks to more"):
        convert(tmp_path / "weights.pt", tmp_path / "model", preset="ffhq512-64")


# ----------------------------------------------------------------------------
# Places and options.


def test_a_folder_in_use_is_left_alone(pickled, tmp_path):
    (tmp_path / "model").mkdir()
    convert(pickled, tmp_path / "model")  # empty is fine
    before = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}
    for place in (tmp_path / "model", pickled):
        with pytest.raises(InputError, match="not empty"):
            convert(pickled, place)
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == before


def test_a_failure_leaves_nothing(pickled, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(EG3D, "save_pretrained", full)
    before = {*tmp_path.iterdir()}
    with pytest.raises(OSError, match="disk full"):
        convert(pickled, tmp_path / "model")
    assert {*tmp_path.iterdir()} == before


def test_options_that_exclude_one_another(pickled, model, tmp_path):
    with pytest.raises(InputError, match="describes itself"):
        convert(pickled, tmp_path / "model", preset="ffhq512-64")
    with pytest.raises(InputError, match="exclude one another"):
        convert(saved(tmp_path, model.state_dict()), tmp_path / "model", preset="ffhq512-64", config="c.json")
    for content in (b"", b" \n", b"\xff\xfe\xff", None):
        text = tmp_path / "licence.txt"
        text.unlink(missing_ok=True)
        if content is not None:
            text.write_bytes(content)
        with pytest.raises(InputError, match="licence file"):
            convert(pickled, tmp_path / "model", license_file=text)


@pytest.fixture
def run(call):
    """`guide-hub convert ARGUMENTS` in this process: code, out, err."""

    def run(*words: object) -> tuple[int, str, str]:
        done = call("convert", *words)
        return done.code, done.out, done.err

    return run


def test_command_line(run, pickled, licence, tmp_path):
    code, out, err = run(pickled, tmp_path / "a", "--license-file", licence, "--json")
    assert (code, err) == (0, "")
    done = json.loads(out)
    assert done.pop("sha256") == file_sha256(tmp_path / "a" / "model.safetensors")
    parameters = done.pop("parameters")
    assert done == {
        "status": "converted", "network": "G_ema", "preset": None, "w_avg": "checkpoint", "licensed": True,
        "output": str(tmp_path / "a"),
    }  # fmt: skip
    code, out, err = run(pickled, tmp_path / "b", "--w-avg", "measured")
    assert (code, len(out.splitlines())) == (0, 1)
    assert f"{parameters:,} parameters" in out
    assert "no licence text" in err
    code, out, err = run(pickled, tmp_path / "a", "--json")
    assert code == 2
    assert json.loads(out)["errors"][0]["message"] == "the output folder is not empty"


def test_command_line_refuses_a_hostile_file(run, tmp_path):
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    code, out, err = run(tmp_path / "evil.pkl", tmp_path / "model")
    assert (code, out) == (2, "")
    assert err.startswith("evil.pkl: asks for posix.system, which no EG3D file needs\n")
    assert not (tmp_path / "model").exists()


# ----------------------------------------------------------------------------
# Memory.

BIG = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from official_files import FULL, Official, dumps
from guide_hub.eg3d import EG3D
from guide_hub.eg3d.presets import PRESETS
model = EG3D(PRESETS["ffhq512-128"].config).requires_grad_(False)
state = {n: v + 0.5 for n, v in model.state_dict().items()}
raw = Official({n: v + 1 for n, v in state.items()}, init_kwargs=FULL, rays=128)
weights = {f"b{i}.weight": torch.randn(512, 512, 3, 3) for i in range(12)}
other = Official(weights, class_name="DualDiscriminator")
ema = Official(state, init_kwargs=FULL, rays=128)
content = {"training_set_kwargs": {}, "G": raw.generator(), "D": other.generator(), "G_ema": ema.generator()}
with open(sys.argv[1], "wb") as file:
    file.write(dumps({**content, "augment_pipe": None}))
"""
PEAK = """
import resource, sys, time
from guide_hub.convert import convert
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
start = time.perf_counter()
done = convert(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - start
print(done.preset, before, peak(), round(seconds, 1))
"""


@pytest.mark.slow
def test_memory_of_a_full_size_file(tmp_path):
    """G, D and G_ema of FFHQ 512: about 370 MB in, less than 1.5 GB resident."""
    file, tests = tmp_path / "ffhq512-128.pkl", str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", BIG, file, tests], check=True)
    assert 350e6 < file.stat().st_size < 420e6
    done = subprocess.run(
        [sys.executable, "-c", PEAK, file, tmp_path / "model"], check=True, capture_output=True, text=True
    )
    print(file.stat().st_size // 1_000_000, "MB:", done.stdout)
    preset, _, peak, _ = done.stdout.split()
    assert preset == "ffhq512-128"
    assert int(peak) < 1500
