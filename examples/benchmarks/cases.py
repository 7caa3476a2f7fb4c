"""What is compared: models (`CONFIGS`) and ways to do the same work (`ROWS`), one case each pair.

A new option of the engine gets a row here, as changes of its recipe. Within a group and model, the first row
in plain operations is what the others are compared with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

import networks
from guide_hub.eg3d import EG3D, EG3DConfig, RenderingConfig
from guide_hub.eg3d.presets import PRESETS
from guide_hub.faces.registry import BUNDLE
from guide_hub.networks import Networks
from guide_hub.recipe import Recipe, load_recipe

Changes = dict[str, dict[str, Any]]  # recipe section -> option -> value

GROUPS = {
    "step": "One step",
    "erasure": "A whole erasure",
    "inversion": "Photos to latents",
    "verification": "Full verification",
}


@dataclass(frozen=True, eq=False)
class Config:
    """A model with its recipe and networks. `rounds` are timed after `warmup` more; `people` are retained."""

    name: str
    title: str
    model: Callable[[], EG3D]
    recipe: str
    networks: Callable[[EG3DConfig, Recipe], Networks]
    rounds: int
    warmup: int
    people: int
    views: int = 11
    changes: Changes = field(default_factory=dict)
    request: bool = False  # inversion takes the photos of ../takedown, else the model's own renders

    def build(self, changes: Changes | None = None, device: str = "cpu") -> Setup:
        """The same model, networks and recipe for every row, but for the row's `changes` of the recipe."""
        recipe = changed(changed(load_recipe(self.recipe), self.changes), changes or {})
        with torch.device(device):
            teacher = self.model().to(device).eval().requires_grad_(False)
            nets = self.networks(teacher.config, recipe)
        for network in (nets.identity_loss, nets.identity_judge, nets.perceptual, nets.inversion):
            if isinstance(network, torch.nn.Module):
                network.to(device)
        return Setup(self, teacher, recipe, nets)


@dataclass(frozen=True)
class Setup:
    """A config, built."""

    config: Config
    teacher: EG3D
    recipe: Recipe
    networks: Networks

    def student(self) -> EG3D:
        return copy.deepcopy(self.teacher)


@dataclass(frozen=True, eq=False)
class Row:
    """One way to do a group's work on the models named. `plain`: in plain operations (plain.py).

    `engine` is read by the group's bench file. `needs_gib`: memory that a model takes at least; a machine
    with less passes over the row. `device`: the only kind that it is of use on.
    """

    group: str
    name: str
    title: str
    configs: tuple[str, ...]
    engine: str = "ours"
    plain: bool = False
    changes: Changes = field(default_factory=dict)
    needs_gib: dict[str, float] = field(default_factory=dict)
    device: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    config: Config
    row: Row
    device: str = "cpu"

    def build(self) -> Setup:
        return self.config.build(self.row.changes, self.device)

    @property
    def name(self) -> str:
        return f"{self.config.name}-{self.row.group}-{self.row.name}"


def changed(recipe: Recipe, changes: Changes) -> Recipe:
    return replace(recipe, **{k: replace(getattr(recipe, k), **options) for k, options in changes.items()})


# ----------------------------------------------------------------------------
# Models


def _seeded(config: EG3DConfig) -> Callable[[], EG3D]:
    def make() -> EG3D:
        torch.manual_seed(0)
        return EG3D(config)

    return make


def _short(camera: int, steps: int, wplus: int) -> dict[str, Any]:
    return {"camera_steps": camera, "steps": steps, "wplus_steps": wplus, "more_steps": 0}


TINY = EG3DConfig(
    z_dim=64, w_dim=32, img_resolution=64, channel_base=512, channel_max=16, plane_resolution=16,
    plane_channels=8, decoder_hidden=16, decoder_features=8, neural_rendering_resolution=16,
    superresolution="SuperresolutionHybrid2X", sr_widths=(8, 8), sr_input_resolution=32,
    rendering=RenderingConfig(4, 4),
)  # fmt: skip
MEDIUM = EG3DConfig(
    z_dim=32, img_resolution=128, channel_base=8192, channel_max=128, neural_rendering_resolution=64,
    superresolution="SuperresolutionHybrid2X", sr_num_fp16_res=4, image_raw_with_skip=True,
    rendering=RenderingConfig(24, 24),
)  # fmt: skip

CONFIGS = {
    c.name: c
    for c in (
        Config(
            "tiny", "64 px, random, small networks: tries the benchmarks, its figures mean nothing",
            _seeded(TINY), "guide", networks.small_shapes, rounds=2, warmup=1, people=2, views=3,
            changes={"optim": {"iterations": 3}, "inversion": _short(1, 2, 1)},
        ),
        Config(
            "builtin", "`builtin:synthetic-heads`, 128 px, recipe `heads`, its own networks",
            lambda: EG3D.from_pretrained(str(BUNDLE)), "heads", networks.of_model,
            rounds=5, warmup=2, people=100, request=True,
        ),
        Config(
            "medium", "128 px, 64 x 64 rays of 24 + 24 samples, 256 px planes, seeded, recipe `guide`",
            _seeded(MEDIUM), "guide", networks.released_shapes, rounds=5, warmup=1, people=5,
            changes={"inversion": _short(2, 4, 2)},
        ),
        Config(
            "full512", "FFHQ's 512 px, 128 x 128 rays of 48 + 48 samples, seeded, recipe `guide`",
            _seeded(PRESETS["ffhqrebalanced512-128"].config), "guide", networks.released_shapes,
            rounds=1, warmup=0, people=1, changes={"inversion": _short(0, 2, 1)},
        ),
    )
}  # fmt: skip
ALL = tuple(CONFIGS)
TRAINED = ("tiny", "builtin")  # where a result's quality can be seen; tiny stands in for trying
LARGE = ("tiny", "full512")

# ----------------------------------------------------------------------------
# Rows

HEADS_FAST, HEADS_FEW = load_recipe("heads-fast"), load_recipe("heads-few")
PARTS = ("optim", "local", "adjacency", "bystanders", "sequence", "speed")
FAST, FEW = ({part: asdict(getattr(recipe, part)) for part in PARTS} for recipe in (HEADS_FAST, HEADS_FEW))
ENOUGH = {"check_every": HEADS_FAST.speed.check_every, "enough": HEADS_FAST.speed.enough}
GUIDE = load_recipe("guide")
GUIDES = {  # the paper's weights, samples and step size; its distances are of another model
    "optim": {"lr": GUIDE.optim.lr, "iterations": GUIDE.optim.iterations},
    "adjacency": {"weight": GUIDE.adjacency.weight, "samples": GUIDE.adjacency.samples},
    "bystanders": {"weight": GUIDE.bystanders.weight, "samples": GUIDE.bystanders.samples},
    "speed": {**ENOUGH, "check_every": 25},
}
WHOLE = {"whole_step": True}
SUM = {"full512": 24.0}  # five graphs at once: estimated, one of them measured 4.6

ROWS = (
    Row("step", "released", "released structure, plain operations", ALL, "released", True, needs_gib=SUM),
    Row(
        "step", "released-pairs", "released structure, plain operations, backward after each pair", LARGE,
        "released-pairs", True,
    ),
    Row("step", "released-our-ops", "released structure, our operations", ALL, "released", needs_gib=SUM),
    Row(
        "step", "released-pairs-our-ops", "released structure, our operations, backward after each pair",
        LARGE, "released-pairs",
    ),
    Row("step", "ours", "ours, all draws new: same maths, nothing kept", ALL),
    Row("step", "ours-pool", "ours, the teacher's pictures kept", ALL, changes={"speed": {"pool": 2}}),
    Row(
        "step", "ours-whole", "ours, all draws new, all latents at once", ALL, changes={"speed": WHOLE},
        device="cuda",
    ),
    Row(
        "step", "ours-tf32", "the same, matrix products in TF32", ALL,
        changes={"speed": {**WHOLE, "precision": "tf32"}}, device="cuda",
    ),
    Row(
        "step", "ours-bf16", "the same, the losses' networks in bfloat16 too", ALL,
        changes={"speed": {**WHOLE, "precision": "bfloat16"}}, device="cuda",
    ),
    Row(
        "step", "ours-bf16-pool", "the same, the teacher's pictures kept", ALL,
        changes={"speed": {**WHOLE, "precision": "bfloat16", "pool": 2}}, device="cuda",
    ),
    Row(
        "step", "heads-fast", "ours, recipe `heads-fast`: kept, and half the rays", ("builtin",),
        changes={**FAST, "speed": {**FAST["speed"], "pool": 2}},
    ),
    Row("step", "heads-few", "ours, recipe `heads-few`: half the rays", ("builtin",), changes=FEW),
    Row("erasure", "released", "released structure, plain operations, all steps", TRAINED, "released", True),
    Row(
        "erasure", "released-enough", "released structure, plain operations, ended by our check", TRAINED,
        "released", True, changes={"speed": ENOUGH},
    ),
    Row("erasure", "released-our-ops", "released structure, our operations, all steps", TRAINED, "released"),
    Row("erasure", "ours", "ours, all draws new, all steps", TRAINED),
    Row(
        "erasure", "ours-enough", "ours, all draws new, ended by our check", TRAINED,
        changes={"speed": ENOUGH},
    ),
    Row(
        "erasure", "released-fixed", "released structure, plain operations, but const noise, all steps",
        TRAINED, "released-fixed", True,
    ),
    Row(
        "erasure", "released-settings", "the same with GUIDE's own weights, samples and step size, at most "
        "1,000 steps, ended by our check", ("builtin",), "released-fixed", True, changes=GUIDES,
    ),
    Row(
        "erasure", "ours-settings", "ours, all draws new, with GUIDE's own weights, samples and step size, "
        "all of 1,000 steps", ("builtin",), changes={**GUIDES, "speed": {}},
    ),
    Row("erasure", "heads-fast", "ours, recipe `heads-fast`", ("builtin",), changes=FAST),
    Row("erasure", "heads-few", "ours, recipe `heads-few`", ("builtin",), changes=FEW),
    Row(
        "inversion", "w-avg", "optimisation from w_avg, plain operations", ALL, plain=True,
        changes={"inversion": {"backend": "optimize"}},
    ),
    Row(
        "inversion", "w-avg-our-ops", "optimisation from w_avg, our operations", ALL,
        changes={"inversion": {"backend": "optimize"}},
    ),
    Row(
        "inversion", "w-avg-long", "optimisation from w_avg, our operations, recipe `guide`'s 650 steps",
        ("builtin",),
        changes={
            "inversion": {
                "backend": "optimize", "camera_steps": 50, "steps": 400, "wplus_steps": 200, "lr": 1e-2,
                "noise": 0.05,
            }
        },
    ),
    Row("inversion", "ours", "ours: the encoder's answer, refined in as many steps", TRAINED),
    Row(
        "inversion", "encoder", "ours, the encoder's answer alone", TRAINED,
        changes={"inversion": {"backend": "encoder"}},
    ),
    Row("verification", "by-view", "view by view, plain operations", ALL, "by-view", True),
    Row("verification", "by-view-our-ops", "view by view, our operations", ALL, "by-view"),
    Row("verification", "ours", "ours: planes once a person, views together", ALL),
)  # fmt: skip


def cases(
    configs: list[str] | None = None,
    groups: list[str] | None = None,
    rows: list[str] | None = None,
    device: str = "cpu",
) -> list[Case]:
    """All pairs that are named, in the order of `CONFIGS` and `ROWS`; None: all."""
    return [
        Case(config, row, device)
        for config in CONFIGS.values()
        for row in ROWS
        if config.name in row.configs
        and row.device in (None, device.partition(":")[0])
        and (configs is None or config.name in configs)
        and (groups is None or row.group in groups)
        and (rows is None or row.name in rows)
    ]
