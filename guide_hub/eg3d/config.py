"""Every size and setting of an EG3D generator, with a strict JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from guide_hub.errors import InputError

MIN_RESOLUTION = 4


@dataclass(frozen=True)
class SuperresolutionKind:
    """One of the official super-resolution modules (EG3D, supplement; widths are of the two blocks' outputs)."""

    img_resolution: int
    input_resolution: int
    widths: tuple[int, int]
    first_block_upsamples: bool
    resize: Literal["always", "enlarge"]  # `enlarge`: only inputs smaller than input_resolution are resized
    owns_filter: bool = True  # a `resample_filter` buffer of its own in the state dict


SUPERRESOLUTION = {
    "SuperresolutionHybrid8XDC": SuperresolutionKind(512, 128, (256, 128), True, "always", owns_filter=False),
    "SuperresolutionHybrid8X": SuperresolutionKind(512, 128, (128, 64), True, "always"),
    "SuperresolutionHybrid4X": SuperresolutionKind(256, 128, (128, 64), False, "enlarge"),
    "SuperresolutionHybrid2X": SuperresolutionKind(128, 64, (128, 64), False, "always"),
    "SuperresolutionHybridDeepfp32": SuperresolutionKind(256, 128, (128, 64), False, "enlarge"),
}


@dataclass(frozen=True)
class RenderingConfig:
    """Volume rendering (EG3D section 4.2): samples a ray, its limits in world units, and how it is conditioned.

    `ray_start` and `ray_end` are distances from the camera or both "auto" (the cube of side `box_warp`). `c_scale`
    multiplies the mapping network's camera condition; `c_gen_conditioning_zero` sets it to 0.
    """

    depth_resolution: int = 48
    depth_resolution_importance: int = 48
    ray_start: float | Literal["auto"] = 2.25
    ray_end: float | Literal["auto"] = 3.3
    box_warp: float = 1.0
    disparity_space_sampling: bool = False
    white_back: bool = False
    density_noise: float = 0.0
    c_gen_conditioning_zero: bool = False
    c_scale: float = 1.0
    superresolution_noise_mode: str = "none"
    sr_antialias: bool = True
    decoder_lr_mul: float = 1.0
    avg_camera_radius: float = 2.7
    avg_camera_pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)


@dataclass(frozen=True)
class EG3DConfig:
    """Sizes of the whole generator. Official checkpoints: `from_official`; small models: any other values.

    `plane_channels` is a plane's depth C, so the backbone makes 3 C channels at `plane_resolution`. `superresolution`
    names an official module; `sr_widths` and `sr_input_resolution` override its own. `domain` is carried along for
    the caller (which encoders fit, which recipe) and never read here.
    """

    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    img_resolution: int = 512
    img_channels: int = 3
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    num_fp16_res: int = 0
    plane_resolution: int = 256
    plane_channels: int = 32
    decoder_hidden: int = 64
    decoder_features: int = 32
    neural_rendering_resolution: int = 64
    superresolution: str = "SuperresolutionHybrid8XDC"
    sr_widths: tuple[int, int] | None = None
    sr_input_resolution: int | None = None
    sr_num_fp16_res: int = 0
    rendering: RenderingConfig = field(default_factory=RenderingConfig)
    domain: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if self.superresolution not in SUPERRESOLUTION:
            names = ", ".join(SUPERRESOLUTION)
            problems.append(f"unknown super-resolution module {self.superresolution!r} (one of {names})")
        size = self.plane_resolution
        if size < MIN_RESOLUTION * 2 or size & (size - 1):
            problems.append(f"plane_resolution must be a power of two >= 8, not {size}")
        auto = [self.rendering.ray_start == "auto", self.rendering.ray_end == "auto"]
        if any(auto) and not all(auto):
            problems.append("ray_start and ray_end must both be 'auto' or both be numbers")
        if self.decoder_features < self.img_channels:
            problems.append("decoder_features must be at least img_channels")
        if problems:
            raise InputError(*(f"model configuration: {p}" for p in problems))

    @property
    def num_ws(self) -> int:
        """Rows of `ws`: one a convolution of the backbone and one for its last toRGB (14 at 256 x 256 planes)."""
        return 2 * (self.plane_resolution.bit_length() - MIN_RESOLUTION.bit_length() + 1)

    @property
    def sr_kind(self) -> SuperresolutionKind:
        """The official module with this model's own widths and resolutions."""
        kind = SUPERRESOLUTION[self.superresolution]
        if self.sr_widths is None and self.sr_input_resolution is None:
            return kind
        return replace(
            kind,
            img_resolution=self.img_resolution,
            input_resolution=self.sr_input_resolution or kind.input_resolution,
            widths=self.sr_widths or kind.widths,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EG3DConfig:
        """Raises InputError for unknown keys or values of the wrong kind."""
        data = dict(data)
        rendering = _build(RenderingConfig, dict(data.pop("rendering", {})), "rendering.")
        return _build(cls, {**data, "rendering": rendering})

    @classmethod
    def from_official(
        cls,
        init_kwargs: dict[str, Any],
        neural_rendering_resolution: int = 64,
        rendering_kwargs: dict[str, Any] | None = None,
    ) -> EG3DConfig:
        """From the dicts inside an official pickle.

        `rendering_kwargs` is the live attribute, which wins over the one in `init_kwargs`. Training-only keys are
        dropped. A missing `c_scale` means 0, as the reference reads it. Raises InputError for a missing required key.
        """
        official = rendering_kwargs if rendering_kwargs is not None else init_kwargs.get("rendering_kwargs", {})
        required = (
            "superresolution_module", "superresolution_noise_mode", "sr_antialias", "c_gen_conditioning_zero",
            "depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp",
            "disparity_space_sampling", "clamp_mode",
        )  # fmt: skip
        missing = [key for key in required if key not in official]
        if missing:
            raise InputError(f"official rendering_kwargs lack {', '.join(missing)}")
        if official["clamp_mode"] != "softplus":
            raise InputError(f"density clamp {official['clamp_mode']!r} is not one that EG3D has (softplus)")
        known = {f.name for f in fields(RenderingConfig)}
        rendering = {"c_scale": 0.0, **{k: v for k, v in official.items() if k in known}}
        mapping = init_kwargs.get("mapping_kwargs", {})
        passed = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max",
                  "conv_clamp", "num_fp16_res", "sr_num_fp16_res")  # fmt: skip
        values: dict[str, Any] = {"num_fp16_res": 4, "conv_clamp": 256}  # the backbone class's own defaults
        values |= {key: init_kwargs[key] for key in passed if key in init_kwargs}
        return cls.from_dict(
            {
                **values,
                "mapping_layers": mapping.get("num_layers", 8),
                "mapping_lr_multiplier": mapping.get("lr_multiplier", 0.01),
                "neural_rendering_resolution": neural_rendering_resolution,
                "superresolution": str(official["superresolution_module"]).rsplit(".", 1)[-1],
                "rendering": rendering,
            }
        )


def _build(cls: type, data: dict[str, Any], prefix: str = "") -> Any:
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        names = ", ".join(prefix + key for key in unknown)
        raise InputError(f"model configuration: unknown {names}", remedy="was it written by a newer version?")
    for name, value in data.items():
        expected = str(known[name].type)
        if isinstance(value, list):
            data[name] = value = tuple(value)
        if expected in {"int", "float"} and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"model configuration: {prefix}{name} must be a number, not {value!r}")
        if expected == "int" and value != int(value):
            raise InputError(f"model configuration: {prefix}{name} must be a whole number, not {value!r}")
        if expected == "bool" and not isinstance(value, (bool, int)):
            raise InputError(f"model configuration: {prefix}{name} must be true or false, not {value!r}")
    return cls(**data)
