"""Every size and setting of an EG3D generator, with a strict JSON form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal

from guide_hub.errors import InputError, Problem

MIN_RESOLUTION = 4
NOISE_MODES = ("random", "const", "none")


@dataclass(frozen=True)
class SuperresolutionKind:
    """What sets EG3D's super-resolution modules apart; `widths` are the channels that the two blocks make."""

    input_resolution: int
    widths: tuple[int, int]
    first_block_upsamples: bool  # the second one always does
    resize: Literal["always", "enlarge"] = "always"  # `enlarge`: larger inputs are an error
    owns_filter: bool = True  # has a `resample_filter` of its own in the state dict

    @property
    def upsampling(self) -> int:
        """Output size over input size."""
        return 4 if self.first_block_upsamples else 2


SUPERRESOLUTION = {
    "SuperresolutionHybrid8XDC": SuperresolutionKind(128, (256, 128), True, owns_filter=False),
    "SuperresolutionHybrid8X": SuperresolutionKind(128, (128, 64), True),
    "SuperresolutionHybrid4X": SuperresolutionKind(128, (128, 64), False, "enlarge"),
    "SuperresolutionHybrid2X": SuperresolutionKind(64, (128, 64), False),
    "SuperresolutionHybridDeepfp32": SuperresolutionKind(128, (128, 64), False, "enlarge"),
}


@dataclass(frozen=True)
class RenderingConfig:
    """Volume rendering (EG3D section 4.2) and conditioning.

    `depth_resolution` coarse and `depth_resolution_importance` fine samples a ray (0: no fine pass) lie
    between `ray_start` and `ray_end`, in world units along the ray; both "auto" means where the ray meets
    the cube of side `box_warp`, which the tri-planes span. `c_scale` multiplies the mapping network's
    camera condition, and `c_gen_conditioning_zero` sets it to 0. `avg_camera_*`, in world units, is the
    dataset's orbit, for callers.
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

    def __post_init__(self) -> None:
        problems = _coerce(self, "rendering.")
        if not problems:
            problems += self._faults()
        _raise(problems)

    def _faults(self) -> list[str]:
        auto = [limit for limit in (self.ray_start, self.ray_end) if limit == "auto"]
        least = 4 if self.depth_resolution_importance else 2  # the importance sampler has S - 3 weights
        faults = {
            "ray_start and ray_end must both be 'auto' or both be numbers": len(auto) == 1,
            f"depth_resolution must be at least {least}": self.depth_resolution < least,
            "depth_resolution_importance must not be negative": self.depth_resolution_importance < 0,
            "box_warp must be positive": self.box_warp <= 0,
            f"superresolution_noise_mode must be one of {', '.join(NOISE_MODES)}": (
                self.superresolution_noise_mode not in NOISE_MODES
            ),
        }
        return [f"rendering.{text}" for text, wrong in faults.items() if wrong]


@dataclass(frozen=True)
class EG3DConfig:
    """Sizes of the whole generator. Official checkpoints: `from_official`; small models: any other values.

    `plane_channels` is a plane's depth C, so the backbone makes 3 C channels of `plane_resolution` pixels.
    `superresolution` names an official module; `sr_widths` and `sr_input_resolution` override its own, and
    `img_resolution` is 2 or 4 times the latter. `neural_rendering_resolution` is the side of the rendered
    feature image, in rays. `image_raw_with_skip`: where the super-resolution's first block keeps the size and
    nothing is resized, `image_raw` shows that block's result, as the reference's does by adding in place.
    `domain` is the caller's (which encoders fit, say) and never read here. Raises InputError for values that
    make no model.
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
    image_raw_with_skip: bool = False
    rendering: RenderingConfig = field(default_factory=RenderingConfig)
    domain: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = _coerce(self)
        if not problems:
            problems += self._faults()
        _raise(problems)

    def _faults(self) -> list[str]:
        if self.superresolution not in SUPERRESOLUTION:
            names = ", ".join(SUPERRESOLUTION)
            return [f"unknown super-resolution module {self.superresolution!r} (one of {names})"]
        plane, made = self.plane_resolution, self.sr_kind.input_resolution * self.sr_kind.upsampling
        faults = {
            f"plane_resolution must be a power of two from 8, not {plane}": (
                plane < 8 or plane.bit_count() != 1
            ),
            "img_channels must be 3": self.img_channels != 3,
            f"img_resolution must be {made}, which {self.superresolution} makes": made != self.img_resolution,
            "sr_widths must be at least 1": min(self.sr_kind.widths) < 1,
        } | {
            f"{name} must be at least {least}, not {getattr(self, name)}": getattr(self, name) < least
            for name, least in {
                "z_dim": 1,
                "c_dim": 0,
                "w_dim": 1,
                "mapping_layers": 1,
                "channel_base": plane,
                "channel_max": 1,
                "num_fp16_res": 0,
                "plane_channels": 1,
                "decoder_hidden": 1,
                "decoder_features": 3,
                "neural_rendering_resolution": 1,
                "sr_num_fp16_res": 0,
            }.items()
        }
        return [text for text, wrong in faults.items() if wrong]

    @property
    def num_ws(self) -> int:
        """Rows of `ws`: one a convolution of the backbone, one for its last toRGB (14 with 256 px planes)."""
        return 2 * (self.plane_resolution.bit_length() - MIN_RESOLUTION.bit_length() + 1)

    @property
    def sr_kind(self) -> SuperresolutionKind:
        """The official module with this model's own widths and input size."""
        kind = SUPERRESOLUTION[self.superresolution]
        return replace(
            kind,
            input_resolution=self.sr_input_resolution or kind.input_resolution,
            widths=self.sr_widths or kind.widths,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` reads it back equal."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EG3DConfig:
        """Missing keys take their defaults. Raises InputError for unknown keys and unusable values."""
        values = dict(data)
        rendering = values.get("rendering", {})
        if isinstance(rendering, Mapping):
            _refuse_unknown(RenderingConfig, rendering, "rendering.")
            values["rendering"] = RenderingConfig(**rendering)
        _refuse_unknown(cls, values)
        return cls(**values)

    @classmethod
    def from_official(
        cls,
        init_kwargs: Mapping[str, Any],
        neural_rendering_resolution: int = 64,
        rendering_kwargs: Mapping[str, Any] | None = None,
    ) -> EG3DConfig:
        """From the dicts inside an official pickle.

        `rendering_kwargs` is the generator's live attribute, which wins over that among `init_kwargs`.
        Options of training alone are dropped. A missing `c_scale` means 0, as the reference reads it, and a
        missing pivot the origin. Raises InputError for other missing keys, and for options that the released
        models do not have.
        """
        official = init_kwargs.get("rendering_kwargs", {}) if rendering_kwargs is None else rendering_kwargs
        missing = [key for key in _REQUIRED if key not in official]
        if missing:
            raise InputError(f"the official rendering_kwargs lack {', '.join(missing)}")
        if official["clamp_mode"] != "softplus":
            raise InputError(f"official model: unknown density clamp {official['clamp_mode']!r}")
        groups = ("mapping_kwargs", "rendering_kwargs", "sr_kwargs")
        mapping, _, sr = (init_kwargs.get(key, {}) for key in groups)
        width = init_kwargs.get("w_dim")
        widths = {"embed_features": width, "layer_features": width, "activation": "lrelu"}
        _refuse_foreign(init_kwargs, {*_PASSED, *groups}, _CONVOLUTIONS)
        _refuse_foreign(mapping, {"num_layers", "lr_multiplier", "w_avg_beta"}, widths)
        _refuse_foreign(sr, {"channel_base", "channel_max", "num_fp16_res", "conv_clamp"}, _CONVOLUTIONS)
        values: dict[str, Any] = {"num_fp16_res": 4, "conv_clamp": 256}  # the reference's defaults
        values |= {key: init_kwargs[key] for key in _PASSED if key in init_kwargs}
        rendering = {f.name: official[f.name] for f in fields(RenderingConfig) if f.name in official}
        return cls(
            **values,
            mapping_layers=mapping.get("num_layers", 8),
            mapping_lr_multiplier=mapping.get("lr_multiplier", 0.01),
            neural_rendering_resolution=neural_rendering_resolution,
            superresolution=str(official["superresolution_module"]).rsplit(".", 1)[-1],
            image_raw_with_skip=True,
            rendering=RenderingConfig(**{"c_scale": 0.0, "avg_camera_pivot": (0, 0, 0), **rendering}),
        )


# What an official pickle must say, what is taken over as it is, and its convolutions' options, which have
# one known value or (...) change nothing but rounding and memory layout.
_REQUIRED = (
    "superresolution_module", "superresolution_noise_mode", "sr_antialias", "c_gen_conditioning_zero",
    "depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp",
    "disparity_space_sampling", "clamp_mode",
)  # fmt: skip
_PASSED = (
    "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "conv_clamp",
    "num_fp16_res", "sr_num_fp16_res",
)  # fmt: skip
_CONVOLUTIONS = {
    "architecture": "skip",
    "activation": "lrelu",
    "resample_filter": [1, 3, 3, 1],
    "use_noise": True,
    "fused_modconv_default": ...,
    "fp16_channels_last": ...,
}


def _refuse_foreign(data: Mapping[str, Any], free: set[str], fixed: Mapping[str, Any]) -> None:
    """Raise InputError for keys of `data` that are neither free nor fixed at the value that they have."""
    for key, value in data.items():
        if key in fixed:
            expected = fixed[key]
            same = list(value) == expected if isinstance(value, (list, tuple)) else value == expected
            if expected is not ... and value is not None and not same:
                raise InputError(f"official model: {key} is {value!r}; guide-hub has only {expected!r}")
        elif key not in free:
            raise InputError(f"official model: unknown option {key}")


def _refuse_unknown(cls: type, data: Mapping[str, Any], prefix: str = "") -> None:
    unknown = sorted(set(data) - {f.name for f in fields(cls)})
    if unknown:
        names = ", ".join(prefix + str(key) for key in unknown)
        raise InputError(f"model configuration: unknown {names}", remedy="was it written by a newer version?")


def _raise(problems: list[str]) -> None:
    if problems:
        raise InputError(*(Problem(f"model configuration: {text}") for text in problems))


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


# ----------------------------------------------------------------------------
# Values of the annotated types: numbers of any library become Python's own, lists become tuples.


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value).is_integer():
        raise ValueError("a whole number")
    return int(float(value))


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _limit(value: Any) -> float | str:
    if value == "auto":
        return "auto"
    try:
        return _float(value)
    except ValueError:
        raise ValueError("a number or 'auto'") from None


def _bool(value: Any) -> bool:
    if not isinstance(value, bool) and not (isinstance(value, Integral) and value in (0, 1)):
        raise ValueError("true or false")
    return bool(value)


def _instance(kind: type, name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(name)
        return value

    return read


def _tuple(read: Callable[[Any], Any], length: int) -> Callable[[Any], tuple[Any, ...]]:
    def read_all(value: Any) -> tuple[Any, ...]:
        try:
            if not isinstance(value, (str, Mapping)) and len(value) == length:
                return tuple(read(item) for item in value)
        except (TypeError, ValueError):
            pass
        raise ValueError(f"{length} numbers")

    return read_all


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _instance(str, "text"),
    "float | Literal['auto']": _limit,
    "tuple[int, int]": _tuple(_int, 2),
    "tuple[float, float, float]": _tuple(_float, 3),
    "dict[str, Any]": _instance(dict, "a mapping"),
    "RenderingConfig": _instance(RenderingConfig, "a mapping"),
}


def _coerce(config: Any, prefix: str = "") -> list[str]:
    """Bring every field of a frozen dataclass to its annotated type, in place; what is wrong with them."""
    problems = []
    for f in fields(config):
        value, annotation = getattr(config, f.name), str(f.type)
        if value is None and annotation.endswith(" | None"):
            continue
        try:
            object.__setattr__(config, f.name, _READERS[annotation.removesuffix(" | None")](value))
        except ValueError as error:
            problems.append(f"{prefix}{f.name} must be {error}, not {value!r}")
    return problems
