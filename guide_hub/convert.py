"""`guide-hub convert`: official EG3D and GUIDE pickles, and plain state dicts, to a model folder.

Nothing in the file is executed. A file without a licence's text gives a folder without a licence, which
`guide-hub erase` refuses until it has one.
"""

from __future__ import annotations

import gc
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelCardData
from torch import Tensor

from guide_hub.digest import file_sha256
from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.eg3d.official_pickle import OfficialNetwork, read_official
from guide_hub.eg3d.presets import PRESETS, config_misfits, fitting, recognise
from guide_hub.eg3d.pretrained import WEIGHTS, read_config
from guide_hub.eg3d.torch_file import is_torch_file, read_state_dict
from guide_hub.errors import InputError, Problem
from guide_hub.latents import LatentSpace
from guide_hub.publish import building
from guide_hub.record.card import PIPELINE, check_front_matter

W_AVG = "backbone.mapping.w_avg"
W_AVG_DRAWS, W_AVG_CHUNK, W_AVG_SEED = 10_000, 1_000, 0
MEASURED = f"measured: {W_AVG_DRAWS} z, frontal camera, seed {W_AVG_SEED}"
LARGEST = 1 << 16  # of a width or resolution
MAX_SHOWN = 4
LICENCE_BYTES = 1 << 20

WAvg = Literal["auto", "checkpoint", "measured"]


@dataclass(frozen=True)
class Converted:
    """What came out. `preset` is None for options of no released model, `sha256` that of the weights."""

    output: str
    network: str
    preset: str | None
    parameters: int
    w_avg: str
    sha256: str
    licensed: bool


@dataclass(frozen=True)
class Weights:
    """What a file holds: the tensors of a model with `config`, and what is known of their origin.

    A `w_avg` that the file does not have is zero.
    """

    state: dict[str, Tensor]
    config: EG3DConfig
    preset: str | None
    configured_by: str
    class_name: str | None = None
    sources: dict[str, str] = field(default_factory=dict)


def convert(
    file: str | Path,
    folder: str | Path,
    *,
    network: str = "G_ema",
    license_file: str | Path | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    w_avg: WAvg = "auto",
) -> Converted:
    """Write the model in `file` to `folder` (new or empty), whole or not at all.

    `preset`, a name in PRESETS, or `config`, a config.json, describe a plain state dict; a pickle says itself
    what it is. `w_avg`: `auto` takes the checkpoint's unless it is missing, zero or not finite, and measures
    it then. InputError for all that cannot be read or does not fit.
    """
    file, folder = Path(file), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("the output folder is not empty", remedy="name a new one, or move it away")
    licence = None if license_file is None else _read_licence(Path(license_file))
    weights = read_weights(file, network, preset, config)
    origin = _w_avg_origin(weights.state[W_AVG], w_avg)
    with torch.device("meta"):
        model = EG3D(replace(weights.config, domain={**weights.config.domain, "w_avg": origin}))
    state = weights.state
    model.load_state_dict({name: value.to(torch.float32) for name, value in state.items()}, assign=True)
    state.clear()
    gc.collect()  # before another copy is made
    if origin == MEASURED:
        model.w_avg.copy_(measure_w_avg(model))
    parameters = sum(p.numel() for p in model.parameters())
    with building(folder) as draft:
        model.save_pretrained(draft)
        if license_file is not None:
            shutil.copyfile(license_file, draft / "LICENSE")
        card = _card(weights, file_sha256(file), network, origin, parameters, licence)
        (draft / "README.md").write_text(card, encoding="utf-8")
        sha256 = file_sha256(draft / WEIGHTS)
    return Converted(str(folder), network, weights.preset, parameters, origin, sha256, licence is not None)


# ----------------------------------------------------------------------------
# Reading.


def read_weights(
    file: Path, network: str = "G_ema", preset: str | None = None, config: str | Path | None = None
) -> Weights:
    """The tensors and configuration of a pickle or plain state dict. Raises InputError."""
    if is_torch_file(file):
        return _from_state_dict(file, network, preset, config)
    if preset is not None or config is not None:
        raise InputError(
            Problem("describes itself: --preset and --config are for plain state dicts", file=file.name)
        )
    official = read_official(file, network)
    made = _official_config(official, file.name)
    _check_fit(official.state, made, file.name, lambda: _NOT_ITS_OWN)
    live = official.rendering_kwargs or official.init_kwargs.get("rendering_kwargs") or {}
    name = recognise(made, live.get("gpc_reg_prob"))
    return Weights(
        official.state, made, name, "the options in the file", official.class_name, official.sources
    )


_NOT_ITS_OWN = "its options and weights are not of one model: download it again"


def _check_fit(state: dict[str, Tensor], config: EG3DConfig, name: str, remedy: Callable[[], str]) -> None:
    faults = _impossible(config)
    if not faults:
        state.setdefault(W_AVG, torch.zeros(config.w_dim))
        faults = config_misfits(config, state)
    if faults:
        more = [f"and {len(faults) - MAX_SHOWN} more do not fit"] if len(faults) > MAX_SHOWN else []
        raise InputError(*(Problem(text, remedy(), file=name) for text in faults[:MAX_SHOWN] + more))


def _official_config(official: OfficialNetwork, name: str) -> EG3DConfig:
    groups = ("mapping_kwargs", "sr_kwargs", "rendering_kwargs")
    if not all(isinstance(official.init_kwargs.get(group, {}), dict) for group in groups):
        raise InputError(Problem("has options that are no EG3D's", file=name))
    return EG3DConfig.from_official(
        official.init_kwargs, official.neural_rendering_resolution, official.rendering_kwargs
    )


def _from_state_dict(file: Path, network: str, preset: str | None, config: str | Path | None) -> Weights:
    if preset is not None and config is not None:
        raise InputError("--preset and --config exclude one another", remedy="leave one out")
    if preset is not None and preset not in PRESETS:
        raise InputError("there is no such preset", remedy=f"known: {', '.join(PRESETS)}")
    state = read_state_dict(file, network)
    if config is not None:
        made, how = read_config(config), "a config.json of the user's"
    elif preset is not None:
        made, how = PRESETS[preset].config, "the user, who named it"
        if PRESETS[preset].assumed:
            how += f"; assumed: {', '.join(PRESETS[preset].assumed)}"
    else:
        raise InputError(Problem("holds tensors and no options", _presets_for(state), file=file.name))
    _check_fit(state, made, file.name, lambda: _presets_for(state))
    return Weights(state, made, preset, how)


def _presets_for(state: Mapping[str, Tensor]) -> str:
    names = fitting({W_AVG: torch.zeros(512), **state})
    if not names:
        return "no preset fits its tensors: describe the model with --config FILE"
    return f"its tensors fit these presets: {', '.join(names)}; name the right one with --preset"


def _impossible(config: EG3DConfig) -> list[str]:
    """Sizes with which merely building the model would take for ever."""
    return [
        f"{name} is impossible: {value}"
        for name, value in vars(config).items()
        if name != "channel_base" and isinstance(value, int) and value > LARGEST
    ]


# ----------------------------------------------------------------------------
# The mean latent.


def _w_avg_origin(stored: Tensor, wanted: WAvg) -> str:
    usable = bool(stored.isfinite().all()) and bool(stored.any())
    if wanted == "checkpoint" and not usable:
        raise InputError("the checkpoint has no usable w_avg", remedy="use --w-avg measured")
    return "checkpoint" if usable and wanted != "measured" else MEASURED


@torch.no_grad()
def measure_w_avg(model: EG3D) -> Tensor:
    """Mean of W over 10,000 z, conditioned on the frontal camera as everywhere here: [w_dim]."""
    space, generator = LatentSpace(model), torch.Generator().manual_seed(W_AVG_SEED)
    total = torch.zeros(model.config.w_dim, dtype=torch.float64)
    for _ in range(W_AVG_DRAWS // W_AVG_CHUNK):
        total += space.random(W_AVG_CHUNK, generator)[:, 0].double().sum(0)
    return (total / W_AVG_DRAWS).float()


# ----------------------------------------------------------------------------
# Licence and card.


def _read_licence(file: Path) -> str:
    try:
        data = file.read_bytes() if file.stat().st_size <= LICENCE_BYTES else b""
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.strip():
        raise InputError("the licence file is no text", remedy="give the licence's full text in UTF-8")
    return text


def _licence_name(text: str) -> str:
    """The Hub's form of the text's first line."""
    first = next(line for line in text.splitlines() if line.strip())
    return re.sub(r"[^a-z0-9.]+", "-", first.lower())[:80].strip("-.") or "custom"


_CARD = """\
# {title}

A 3D-aware image generator (EG3D), converted to safetensors by guide-hub {version}. None of the code in the
original file was run. Nobody has been erased from this model.

## Where it comes from

{origin}

## Use

```python
from guide_hub import EG3D

model = EG3D.from_pretrained("FOLDER_OR_REPOSITORY")
```

## Licence

{licence}
"""
_LICENSED = "As in `LICENSE`, which whoever converted the file supplied. It binds every copy and derivative."
_UNLICENSED = """\
**The text of the licence is missing, and this model must not be published before it is here.** Put the full
text that came with the checkpoint in a file `LICENSE` beside this one; until then `guide-hub erase` asks for
it with `--license FILE`."""


def _card(
    weights: Weights, sha256: str, network: str, w_avg: str, parameters: int, licence: str | None
) -> str:
    from guide_hub.version import __version__

    fields: dict[str, Any] = {}
    if licence is not None:
        fields = {"license": "other", "license_name": _licence_name(licence), "license_link": "LICENSE"}
    fields |= {"library_name": "guide-hub", "pipeline_tag": PIPELINE, "tags": ["guide-hub", "eg3d"]}
    by_digest: dict[str, list[str]] = {}
    for name, digest in sorted(weights.sources.items()):
        by_digest.setdefault(digest, []).append(f"`{name}`")
    rows = [
        ("original file", f"SHA-256 `{sha256}`"),
        ("network", f"`{network}`" + (f", class `{weights.class_name}`" if weights.class_name else "")),
        ("configuration", f"{_preset_text(weights.preset)}, by {weights.configured_by}"),
        ("mean latent", "in the checkpoint" if w_avg == "checkpoint" else w_avg),
        ("parameters", f"{parameters:,}"),
        *((", ".join(names), f"source text in the file: SHA-256 `{d}`") for d, names in by_digest.items()),
    ]
    table = "\n".join(f"| {left} | {right} |" for left, right in [("", ""), ("---", "---"), *rows])
    body = _CARD.format(
        title=f"EG3D {weights.preset}" if weights.preset else "EG3D",
        version=__version__,
        origin=table,
        licence=_UNLICENSED if licence is None else _LICENSED,
    )
    card = f"---\n{ModelCardData(**fields).to_yaml()}\n---\n\n{body}"
    check_front_matter(card)
    return card


def _preset_text(preset: str | None) -> str:
    return f"`{preset}`" if preset else "unknown configuration"
