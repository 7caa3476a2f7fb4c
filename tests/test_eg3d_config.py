"""The generator's configuration: official dicts, JSON, and what it refuses."""

import json
from dataclasses import replace

import pytest

from guide_hub.eg3d import EG3DConfig, RenderingConfig
from guide_hub.errors import InputError

RENDERING = {
    "image_resolution": 512, "disparity_space_sampling": False, "clamp_mode": "softplus",
    "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
    "c_gen_conditioning_zero": False, "gpc_reg_prob": 0.5, "c_scale": 1,
    "superresolution_noise_mode": "none", "density_reg": 0.25, "density_reg_p_dist": 0.004,
    "reg_type": "l1", "decoder_lr_mul": 1, "sr_antialias": True, "depth_resolution": 48,
    "depth_resolution_importance": 48, "ray_start": 2.25, "ray_end": 3.3, "box_warp": 1,
    "avg_camera_radius": 2.7, "avg_camera_pivot": [0, 0, 0.2],
}  # fmt: skip
OFFICIAL = {
    "z_dim": 512, "c_dim": 25, "w_dim": 512, "img_resolution": 512, "img_channels": 3, "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2}, "rendering_kwargs": RENDERING,
    "sr_kwargs": {"channel_base": 32768, "channel_max": 512, "fused_modconv_default": "inference_only"},
    "channel_base": 32768, "channel_max": 512, "fused_modconv_default": "inference_only", "num_fp16_res": 0,
    "conv_clamp": None,
}  # fmt: skip


def official(**changes: object) -> dict:
    return {**OFFICIAL, **changes}


def rendering(*without: str, **changes: object) -> dict:
    return {k: v for k, v in {**RENDERING, **changes}.items() if k not in without}


def test_ffhq_is_the_default():
    config = EG3DConfig.from_official(OFFICIAL, 128)
    expected = EG3DConfig(sr_num_fp16_res=4, neural_rendering_resolution=128, image_raw_with_skip=True)
    assert config == expected
    assert EG3DConfig.from_official(OFFICIAL).neural_rendering_resolution == 64


def test_shapenet():
    live = rendering(
        superresolution_module="training.superresolution.SuperresolutionHybrid2X", depth_resolution=64,
        depth_resolution_importance=64, ray_start="auto", ray_end="auto", box_warp=1.6, white_back=True,
        avg_camera_radius=1.7, avg_camera_pivot=[0, 0, 0],
    )  # fmt: skip
    config = EG3DConfig.from_official(official(img_resolution=128), 64, live)
    assert config.superresolution == "SuperresolutionHybrid2X"
    assert config.rendering == RenderingConfig(
        depth_resolution=64, depth_resolution_importance=64, ray_start="auto", ray_end="auto", box_warp=1.6,
        white_back=True, avg_camera_radius=1.7, avg_camera_pivot=(0.0, 0.0, 0.0),
    )  # fmt: skip


def test_live_rendering_options_win():
    config = EG3DConfig.from_official(OFFICIAL, 64, rendering(c_gen_conditioning_zero=True))
    assert config.rendering.c_gen_conditioning_zero
    assert not EG3DConfig.from_official(OFFICIAL).rendering.c_gen_conditioning_zero


def test_missing_options_are_read_as_the_reference_reads_them():
    optional = ("c_scale", "decoder_lr_mul", "avg_camera_pivot", "avg_camera_radius")
    options = EG3DConfig.from_official(OFFICIAL, 64, rendering(*optional)).rendering
    assert (options.c_scale, options.decoder_lr_mul, options.white_back, options.density_noise) == (
        0,
        1,
        False,
        0,
    )
    assert options.avg_camera_pivot == (0, 0, 0)
    bare = {k: v for k, v in OFFICIAL.items() if k not in ("mapping_kwargs", "sr_kwargs", "sr_num_fp16_res")}
    config = EG3DConfig.from_official(bare)
    assert (config.mapping_layers, config.mapping_lr_multiplier, config.sr_num_fp16_res) == (8, 0.01, 0)


@pytest.mark.parametrize(
    "key",
    ["superresolution_module", "superresolution_noise_mode", "sr_antialias", "c_gen_conditioning_zero",
     "depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp",
     "disparity_space_sampling", "clamp_mode"],
)  # fmt: skip
def test_required_options(key):
    with pytest.raises(InputError, match=key):
        EG3DConfig.from_official(official(rendering_kwargs=rendering(key)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (official(architecture="resnet"), "architecture is 'resnet'"),
        (official(magic=1), "unknown option magic"),
        (official(mapping_kwargs={"num_layers": 2, "layer_features": 256}), "layer_features"),
        (official(img_resolution=256), "img_resolution must be 512"),
        (official(rendering_kwargs=rendering(clamp_mode="relu")), "relu"),
        (official(rendering_kwargs=rendering(ray_start="auto")), "both be 'auto'"),
        (official(rendering_kwargs=rendering(superresolution_module="a.b.Other")), "Other"),
    ],
)
def test_foreign_models_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        EG3DConfig.from_official(kwargs)


@pytest.mark.parametrize(
    ("name", "size"),
    [("8XDC", 512), ("8X", 512), ("4X", 256), ("2X", 128), ("Deepfp32", 256)],
)
def test_every_superresolution(name, size):
    module = f"training.superresolution.SuperresolutionHybrid{name}"
    kwargs = official(img_resolution=size, rendering_kwargs=rendering(superresolution_module=module))
    assert EG3DConfig.from_official(kwargs).img_resolution == size


def test_json_round_trip():
    config = EG3DConfig(
        w_dim=128, img_resolution=64, superresolution="SuperresolutionHybrid2X", sr_input_resolution=32,
        sr_widths=(8, 4), conv_clamp=256, domain={"identity": ["a", "b"], "nested": {"x": None}},
        rendering=RenderingConfig(ray_start="auto", ray_end="auto"),
    )  # fmt: skip
    text = json.dumps(config.to_dict())
    assert EG3DConfig.from_dict(json.loads(text)) == config
    assert json.dumps(EG3DConfig.from_dict(json.loads(text)).to_dict()) == text
    assert EG3DConfig.from_dict({}) == EG3DConfig()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"w_dims": 5}, "unknown w_dims"),
        ({"rendering": {"box": 5}}, "unknown rendering.box"),
        ({"rendering": 5}, "rendering must be a mapping"),
        ({"w_dim": "5"}, "w_dim must be a whole number, not '5'"),
        ({"w_dim": 5.5}, "w_dim must be a whole number"),
        ({"w_dim": True}, "w_dim must be a whole number"),
        ({"w_dim": 0}, "w_dim must be at least 1, not 0"),
        ({"plane_resolution": 96}, "power of two"),
        ({"sr_widths": [1, 2, 3]}, "sr_widths must be 2 numbers"),
        ({"rendering": {"box_warp": 0}}, "rendering.box_warp must be positive"),
        ({"rendering": {"white_back": "yes"}}, "rendering.white_back must be true or false"),
        ({"rendering": {"ray_start": "early"}}, "rendering.ray_start must be a number or 'auto'"),
        ({"rendering": {"depth_resolution": 3}}, "depth_resolution must be at least 4"),
        ({"rendering": {"superresolution_noise_mode": "some"}}, "random, const, none"),
    ],
)
def test_unusable_values(data, message):
    with pytest.raises(InputError, match=message):
        EG3DConfig.from_dict(data)


def test_all_problems_come_at_once():
    with pytest.raises(InputError) as caught:
        EG3DConfig(z_dim=0, img_channels=4)
    assert len(caught.value.problems) == 2


def test_rows_of_ws():
    sizes = {8: 4, 64: 10, 128: 12, 256: 14}
    assert {size: replace(EG3DConfig(), plane_resolution=size).num_ws for size in sizes} == sizes
