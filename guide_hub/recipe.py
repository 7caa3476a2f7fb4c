"""A recipe (guide-hub/recipe/v1): GUIDE's options. Defaults are what the released code of GUIDE does.

Each section of the file is a dataclass here; `_filled` checks a file against the dataclasses' types and
bounds, so an option exists in one place. A file may start from a packaged recipe: `extends: NAME`. GUIDE:
arXiv 2405.09879.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from guide_hub import _yaml
from guide_hub.errors import InputError, Problem

EXTENDS = "extends"  # a packaged recipe, whose options hold where the file gives none
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME_TEXT = (NAME, "a name of letters, digits, dots, hyphens and underscores")
NETWORK_TEXT = (rf"{NAME}(:.{{1,4096}})?", f"{NAME_TEXT[1]}, or NAME:PATH of its weights")

T = TypeVar("T")


def _option(default: Any, **bounds: float) -> Any:
    """A field with the bounds of `_yaml.Node.number`."""
    return field(default=default, metadata={"bounds": bounds})


@dataclass(frozen=True)
class Target:
    """Where w_u is sent: `ufo` w_avg - d w_id/||w_id||, `average` w_avg, `random` a sampled latent, `mixture`
    (ours) d away from w_avg towards a random mixture of three sampled ones, which is no function of w_u.

    `unit` of d and alpha_max: W itself, or the model's median ||w - w_avg||. `norm`: over the whole
    [num_ws, w_dim] tensor (released code) or each row.
    """

    kind: Literal["ufo", "average", "random", "mixture"] = "ufo"
    d: float = _option(30.0, low=0)
    norm: Literal["whole", "per_layer"] = "whole"
    unit: Literal["absolute", "median_offset"] = "absolute"


@dataclass(frozen=True)
class Optim:
    """Adam over `backbone.synthesis`. `micro_batch` latents go through at a time, 0 = all of a term.

    `average`, ours: the weights of an erasure are a moving average over its steps with this decay, 0 = the
    last step's. `cooldown`, ours: so many steps follow where an erasure would end, at a rate that falls from
    a third of `lr` towards 0; `iterations` do not count them, and nobody is looked at any more. `joint` has
    one for all.
    """

    lr: float = _option(1e-4, above=0, high=1)
    betas: tuple[float, float] = _option((0.9, 0.999), low=0, below=1)
    eps: float = _option(1e-8, above=0)
    iterations: int = _option(1000, low=1, high=1_000_000)
    micro_batch: int = _option(1, low=0)
    average: float = _option(0.0, low=0, below=1)
    cooldown: int = _option(0, low=0, high=1_000_000)

    @property
    def steps(self) -> int:
        """The most steps that an erasure takes, the cooldown's included."""
        return self.iterations + self.cooldown


@dataclass(frozen=True)
class Local:
    """Weights of L_local: tri-plane MSE, LPIPS, 1 - cos. L_adj and the replay use the same three."""

    l2: float = _option(1e-2, low=0)
    perceptual: float = _option(1.0, low=0)
    identity: float = _option(0.1, low=0)


@dataclass(frozen=True)
class Adjacency:
    """L_adj: `samples` neighbours at alpha ~ U(0, alpha_max), `towards` random latents (GUIDE). Ours: in any
    direction of W or of W+; `kin`, where the loss's recogniser takes a person for the same (`guide.kin`),
    turned by 0 to 45 degrees towards random latents.

    `reach`, ours, stands in for alpha_max there; alpha_max stays the radius of the person's ball. `photos`,
    ours: one neighbour of each step lies towards one of the photos that found the person, each inverted for
    itself as well; held-out photos never take part.
    """

    weight: float = _option(1.0, low=0)
    samples: int = _option(2, low=0, high=1024)
    alpha_max: float = _option(15.0, low=0)
    reduce: Literal["sum", "mean"] = "sum"
    towards: Literal["people", "w", "wplus", "kin"] = "people"
    reach: float | None = _option(None, above=0)
    photos: bool = False


@dataclass(frozen=True)
class Global:
    """L_global: LPIPS on `samples` random latents; with the flag, only those outside the adjacency ball.

    `identity`, ours, adds so much of their `1 - cos` to each one's LPIPS.
    """

    weight: float = _option(1.0, low=0)
    samples: int = _option(2, low=0, high=1024)
    reduce: Literal["sum", "mean"] = "sum"
    exclude_adjacency_ball: bool = False
    identity: float = _option(0.0, low=0)


@dataclass(frozen=True)
class Camera:
    """One camera a step: yaw ~ U(-yaw_range, yaw_range), fixed pitch, radians off the front; fov in degrees.

    `radius` null is the model's own. `pivot`: the origin (released code) or the model's avg_camera_pivot.
    """

    yaw_range: float = _option(math.pi / 12, low=0, high=math.pi)
    pitch: float = _option(-0.2, above=-math.pi / 2, below=math.pi / 2)
    radius: float | None = _option(None, above=0)
    pivot: Literal["origin", "checkpoint"] = "origin"
    fov: float = _option(18.837, above=0, below=180)


@dataclass(frozen=True)
class Replay:
    """L_local of `per_step` earlier identities in every step, and L_adj of `neighbours` of each.

    Ours, not GUIDE's: the teacher still shows the people who went before. With `speed.check_every` an erasure
    does not end while one of them is more alike than `enough` (cosine, to the loss's own recogniser).
    """

    weight: float = _option(1.0, low=0)
    per_step: int = _option(1, low=0, high=1024)
    neighbours: int = _option(0, low=0, high=1024)
    enough: float = _option(0.4, low=-1, high=1)


@dataclass(frozen=True)
class Robust:
    """What makes the person harder to find at another latent, ours; nothing of it by default.

    `mine_every` so many steps an attacker's search of `mine_steps` steps is made on the student as it is; of
    the `mined` latents found last, one a step joins L_adj. `repel` weighs, in L_local and L_adj, by how much
    the student's picture is more alike to the source's person than `repel_above` (cosine, to the loss's
    recogniser). `decoys`: so many random people are erased along with each person, so that a look for what
    was changed most finds them too.
    """

    mine_every: int = _option(0, low=0, high=100_000)
    mine_steps: int = _option(20, low=1, high=10_000)
    mined: int = _option(4, low=1, high=1024)
    repel: float = _option(0.0, low=0)
    repel_above: float = _option(0.2, low=-1, high=1)
    decoys: int = _option(0, low=0, high=100)


@dataclass(frozen=True)
class Sequential:
    """How people are erased one after the other (`guide_hub.modes`), ours but for the two papers named.

    `mode`: `chain`, GUIDE after GUIDE; `replay`, as the section of that name says; `project` (CORTIS, arXiv
    2605.25962), no update in the directions of earlier erasures; `joint`, all at once from the original;
    `merge`, each from the original, their changes merged (TIES); `sugar` (arXiv 2512.06562), the rival.
    `protect`: so many of the people most like the erased one are in L_global, `protect_per_step` of them in
    each step, 0 = all.

    project: the basis of an erasure has `rank` directions, and it trains the `salient` share of the numbers.
    joint: `per_step` people a step. merge: TIES keeps the `density` share of every change and multiplies the
    merged one by `scale`. sugar: `surrogate_steps` of the network that finds the target, weight `fisher` of
    the Fisher penalty.
    """

    mode: Literal["chain", "replay", "project", "joint", "merge", "sugar"] = "replay"
    protect: int = _option(0, low=0, high=100)
    protect_per_step: int = _option(0, low=0, high=100)
    rank: int = _option(40, low=1, high=1000)
    salient: float = _option(0.3, above=0, high=1)
    per_step: int = _option(2, low=1, high=1024)
    density: float = _option(1.0, above=0, high=1)
    scale: float = _option(1.0, above=0, high=10)
    surrogate_steps: int = _option(50, low=1, high=100_000)
    fisher: float = _option(50.0, low=0)


@dataclass(frozen=True)
class Speed:
    """Less work for the same end, ours; nothing of it by default.

    `rays`: the side of the pictures that the losses' volume rendering makes, null: the model's. `pool`: after
    so many steps the draws come round again, and the teacher's pictures of them are kept; 0: all are new.
    With `new_neighbours` L_adj has new ones all the same, as rehearsals always have, and one where the latest
    check saw most of the person. `check_every` so many steps the erasure ends where the loss's own recogniser
    finds the person, the photos' places and 20 neighbours, of which the share `spared` is left out, no more
    alike than `enough` (cosine); 0: after all iterations. `precision`: tf32, of CUDA's products;
    bfloat16, of the losses' networks as well, on any device. `compile` has torch.compile build these.
    `whole_step`: all latents of a step go through the networks at once, whatever `micro_batch` says, unless
    noise is random, on CUDA random and shared.
    """

    rays: int | None = _option(None, low=8, high=1024)
    pool: int = _option(0, low=0, high=100_000)
    new_neighbours: bool = False
    check_every: int = _option(0, low=0, high=100_000)
    enough: float = _option(0.3, low=-1, high=1)
    spared: float = _option(0.0, low=0, high=1)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    compile: bool = False
    whole_step: bool = False


@dataclass(frozen=True)
class Networks:
    """The networks that the losses, the judge and the inversion use; null = those of the model's config.json.

    A name, or NAME:PATH of its weight file.
    """

    identity_loss: str | None = field(default=None, metadata={"text": NETWORK_TEXT})
    identity_judge: str | None = field(default=None, metadata={"text": NETWORK_TEXT})
    perceptual: str | None = field(default=None, metadata={"text": NETWORK_TEXT})
    inversion: str | None = field(default=None, metadata={"text": NETWORK_TEXT})


@dataclass(frozen=True)
class Inversion:
    """Photo to latent: by `encoder` alone, by `optimize` from the mean face, or `auto`, both in turn.

    Adam: `camera_steps` of the camera alone, `steps` in W, `wplus_steps` in W+, and where the gate does not
    hold then, `more_steps` in W+. `lr` is the length of a first step in medians of ||w - w_avg||, `noise` a
    standard deviation in that of W.
    """

    backend: Literal["auto", "encoder", "optimize"] = "auto"
    camera_steps: int = _option(50, low=0, high=100_000)
    steps: int = _option(400, low=1, high=100_000)
    wplus_steps: int = _option(200, low=0, high=100_000)
    more_steps: int = _option(200, low=0, high=100_000)
    lr: float = _option(1e-2, above=0, high=10)
    noise: float = _option(0.05, low=0, high=1)


@dataclass(frozen=True)
class Gate:
    """What an erasure must reach before it is pushed.

    Thresholds are calibrated at the false accept rate `far`. Of the person's own `views`, and of those of
    held-out photos, at most these shares may still be verified; of `retained_people`, at least `retained_min`
    must be. `attacks`: whether the quick ones of `guide_hub.attacks` are run on the final weights; some gate.
    """

    far: float = _option(1e-3, above=0, below=1)
    erased_views_max: float = _option(0.0, low=0, high=1)
    held_out_views_max: float = _option(0.10, low=0, high=1)
    retained_min: float = _option(0.95, low=0, high=1)
    retained_people: int = _option(100, low=1, high=100_000)
    views: int = _option(11, low=1, high=1000)
    attacks: Literal["quick", "none"] = "quick"

    def gone(self, own: float, held_out: float | None) -> bool:
        """Whether so few of a person's views are still verified, and of those of held-out photos."""
        return own <= self.erased_views_max and (held_out or 0.0) <= self.held_out_views_max


@dataclass(frozen=True)
class Recipe:
    """All options of a run. `noise`: the backbone's mode; `shared_noise`: both sides draw the same."""

    schema: Literal["guide-hub/recipe/v1"] = "guide-hub/recipe/v1"
    name: str = "custom"
    target: Target = Target()
    optim: Optim = Optim()
    local: Local = Local()
    adjacency: Adjacency = Adjacency()
    bystanders: Global = field(default=Global(), metadata={"key": "global"})  # `global` is a Python keyword
    camera: Camera = Camera()
    noise: Literal["random", "const"] = "random"
    deterministic_rays: bool = False
    shared_noise: bool = False
    replay: Replay = Replay()
    robust: Robust = Robust()
    sequence: Sequential = Sequential()
    speed: Speed = Speed()
    networks: Networks = Networks()
    inversion: Inversion = Inversion()
    gate: Gate = Gate()

    def to_dict(self) -> dict[str, Any]:
        """Every option under its name in the file."""
        return _plain(self)

    def to_yaml(self) -> str:
        """The whole recipe as a file for `load_recipe`, fit to publish: networks by name, without paths."""
        return yaml.safe_dump(self._published(), sort_keys=False, default_flow_style=None, width=100)

    def digest(self) -> str:
        """SHA-256 of the options in `to_yaml` as canonical JSON, but for the name."""
        options = {k: v for k, v in self._published().items() if k != "name"}
        text = json.dumps(options, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _published(self) -> dict[str, Any]:
        options = self.to_dict()
        options["networks"] = {k: v and v.partition(":")[0] for k, v in options["networks"].items()}
        for section, default, names in _YOUNGER:
            for name in names:
                if options[section][name] == getattr(default, name):
                    del options[section][name]
        if self.speed == Speed():
            del options["speed"]
        if self.sequence == Sequential():
            del options["sequence"]
        if self.robust == Robust():
            del options["robust"]
        return options


# Options that came later: they are left out where they do nothing, so that digests of before stay.
_YOUNGER = (
    ("optim", Optim(), ("average", "cooldown")),
    ("speed", Speed(), ("precision", "compile", "new_neighbours", "whole_step", "spared")),
    ("global", Global(), ("identity",)),
    ("adjacency", Adjacency(), ("towards", "reach", "photos")),
    ("replay", Replay(), ("enough",)),
    ("sequence", Sequential(), ("protect_per_step",)),
    ("gate", Gate(), ("attacks",)),
)


def _key(option: dataclasses.Field[Any]) -> str:
    return option.metadata.get("key", option.name)


def _plain(section: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for option in dataclasses.fields(section):
        value = getattr(section, option.name)
        if dataclasses.is_dataclass(value):
            value = _plain(value)
        plain[_key(option)] = list(value) if isinstance(value, tuple) else value
    return plain


def _value(node: _yaml.Node, wanted: Any, limits: Mapping[str, Any]) -> Any:
    """The node's value as type `wanted`; None where it is null, or no such thing, which is noted."""
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in typing.get_args(wanted) if a is not type(None)]
        return None if node.is_null else _value(node, inner, limits)
    if origin is Literal:
        return node.choice(typing.get_args(wanted))
    if origin is tuple:
        kinds = typing.get_args(wanted)
        items = node.items()
        if len(items) != len(kinds):
            if items:
                node.note(f"must be a list of {len(kinds)} numbers")
            return None
        return tuple(_value(item, kind, limits) for item, kind in zip(items, kinds, strict=True))
    if wanted is bool:
        return node.boolean()
    if wanted is str:
        return node.text(*limits.get("text", NAME_TEXT))
    return node.number(**limits.get("bounds", {}), integer=wanted is int)


def _options(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {_key(option): option for option in dataclasses.fields(cls)}


def _filled(base: T, given: Mapping[str, _yaml.Node]) -> T:
    """The dataclass `base` with the options that are given, by their names in the file."""
    cls = type(base)
    hints, options, found = typing.get_type_hints(cls), _options(cls), dict[str, Any]()
    for key, node in given.items():
        option, wanted = options[key], hints[options[key].name]
        if dataclasses.is_dataclass(wanted):
            section = getattr(base, option.name)
            found[option.name] = _filled(section, node.mapping(_options(type(section))))
        else:
            found[option.name] = _value(node, wanted, option.metadata)
    return dataclasses.replace(base, **found)  # type: ignore[type-var]


def _parse(root: _yaml.Node) -> Recipe:
    given = root.mapping([*_options(Recipe), EXTENDS], required=("schema",))
    base, extended = Recipe(), given.pop(EXTENDS, None)
    name = extended.choice(list_recipes()) if extended else None
    if name:
        base = dataclasses.replace(load_recipe(name), name=Recipe.name)
    recipe = _filled(base, given)
    root.document.close()
    return recipe


def _folder() -> Path:
    """The packaged recipes: inside an installed package, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "recipes" if (here / "recipes").is_dir() else here.parent / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that come with guide-hub."""
    return sorted(p.stem for p in _folder().glob("*.yaml"))


def _packaged(name: str) -> Path:
    if name in list_recipes():
        return _folder() / f"{name}.yaml"
    close = difflib.get_close_matches(name, list_recipes(), n=1)
    remedy = (
        f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(list_recipes())}; or give a file"
    )
    raise InputError(Problem(f"no recipe is called '{name}'", remedy))


def recipe_text(name: str) -> str:
    """The file of a packaged recipe, comments included. InputError for an unknown name."""
    return _packaged(name).read_text(encoding="utf-8")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A packaged recipe by name, or one from a file (anything with a suffix .yaml/.yml or a folder in it).

    Raises one InputError with every problem at its line and column.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml") and path.name == name_or_path:
        path = _packaged(name_or_path)
    return _parse(_yaml.read(path))
