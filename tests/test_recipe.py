"""Recipes: the released code's values by default, strict reading, and a digest that means the options."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from guide_hub.errors import InputError
from guide_hub.recipe import Adjacency, Optim, Recipe, Target, list_recipes, load_recipe, recipe_text

HEAD = "schema: guide-hub/recipe/v1\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> Recipe:
        Path("mine.yaml").write_text(HEAD + text, encoding="utf-8")
        return load_recipe("mine.yaml")

    return load


def test_the_defaults_are_the_released_code():
    recipe = Recipe()
    assert recipe.target == Target("ufo", 30.0, "whole", "absolute")
    assert recipe.optim == Optim(1e-4, (0.9, 0.999), 1e-8, 1000, 1)
    assert dataclasses.astuple(recipe.local) == (1e-2, 1.0, 0.1)
    assert recipe.adjacency == Adjacency(1.0, 2, 15.0, "sum")
    assert dataclasses.astuple(recipe.bystanders) == (1.0, 2, "sum", False, 0.0)
    assert dataclasses.astuple(recipe.camera) == (math.pi / 12, -0.2, None, "origin", 18.837)
    assert (recipe.noise, recipe.deterministic_rays, recipe.shared_noise) == ("random", False, False)


def test_guide_spells_out_every_default():
    assert dataclasses.replace(load_recipe("guide"), name="custom") == Recipe()

    def keys(options: dict) -> dict:
        return {k: keys(v) if isinstance(v, dict) else None for k, v in options.items()}

    assert keys(yaml.safe_load(recipe_text("guide"))) == keys(Recipe().to_dict())


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes(name, load):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert f"--recipe {name}\n" in recipe_text(name).split("schema:")[0]  # the exact command, in the header
    Path("copy.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe("copy.yaml") == recipe
    assert load_recipe(Path("copy.yaml")).digest() == recipe.digest()


@pytest.mark.parametrize("base", ["guide", "heads"])
def test_the_papers_experiments_change_one_thing_each(base):
    """Targets, the baseline and the ablations of GUIDE's section 4, as differences from the whole method."""
    whole = load_recipe(base).to_dict()

    def flat(options: dict) -> dict:
        return {(k, i): v for k, s in options.items() if isinstance(s, dict) for i, v in s.items()}

    def changed(name: str) -> dict:
        options = load_recipe(f"{base}-{name}").to_dict()
        assert all(options[k] == v for k, v in whole.items() if k != "name" and not isinstance(v, dict))
        return {k: v for k, v in flat(options).items() if v != flat(whole)[k]}

    average, alone = {("target", "kind"): "average"}, {("adjacency", "weight"): 0, ("global", "weight"): 0}
    assert changed("baseline") == average | alone | {("replay", "weight"): 0}
    assert changed("target-average") == average
    assert changed("target-random") == {("target", "kind"): "random"}
    assert changed("local") == alone
    assert changed("no-adjacency") == {("adjacency", "weight"): 0}
    assert changed("no-global") == {("global", "weight"): 0}
    for key, prefix in {("target", "d"): "d-", ("adjacency", "alpha_max"): "alpha-"}.items():
        ablations = [n for n in list_recipes() if n.startswith(f"{base}-{prefix}")]
        assert len(ablations) == 3
        for name in ablations:
            assert changed(name.removeprefix(f"{base}-")) == {key: float(name.rpartition("-")[2])}


def test_a_recipe_may_start_from_a_packaged_one(load):
    recipe = load("extends: heads\ntarget: {d: 2}\ngate: {views: 3}\n")
    heads = load_recipe("heads")
    assert recipe.target == dataclasses.replace(heads.target, d=2.0)
    assert recipe.gate == dataclasses.replace(heads.gate, views=3)
    assert recipe.name == "custom"
    assert dataclasses.replace(heads, name="custom", target=recipe.target, gate=recipe.gate) == recipe
    assert "extends" not in recipe.to_yaml()  # a published recipe stands alone
    assert load("extends: heads\n").digest() == heads.digest()


def test_heads_can_be_repeated_exactly():
    recipe = load_recipe("heads")
    assert recipe.target.unit == "median_offset"
    assert (recipe.noise, recipe.deterministic_rays) == ("const", True)


def test_options_left_out_keep_their_defaults(load):
    recipe = load("optim: {lr: 1e-3}\nglobal: {samples: 4}\ncamera: {radius: 2}\n")
    assert recipe.optim == Optim(lr=1e-3)
    assert recipe.bystanders.samples == 4
    assert recipe.camera.radius == 2.0
    assert isinstance(recipe.camera.radius, float)
    assert recipe.target == Target()


def test_networks_may_name_their_files_which_stay_private(load):
    recipe = load("networks: {identity_loss: 'irse50:~/my weights/a.pth', perceptual: lpips-vgg}\n")
    assert recipe.networks.identity_loss == "irse50:~/my weights/a.pth"
    assert recipe.networks.perceptual == "lpips-vgg"
    Path("copy.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    published = load_recipe("copy.yaml")
    assert published.networks.identity_loss == "irse50"
    assert published.digest() == recipe.digest()


def test_digest_is_of_the_options_alone(load):
    plain = load("").digest()
    assert load("name: other\n# a comment\ntarget: {d: 30}\n").digest() == plain
    assert load("target: {d: 31}\n").digest() != plain
    assert plain == Recipe().digest()
    assert len(plain) == 64


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-04", ".0001", "0.0001"])
def test_ways_to_write_a_number(load, number):
    assert load(f"optim: {{lr: {number}}}\n").optim.lr == 1e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim: {lr: fast}", "2:13: optim.lr must be a number"),
        ("optim: {lr: '1e-4'}", "2:13: optim.lr must be a number"),
        ("optim: {lr: 1_000}", "2:13: optim.lr must be a number"),
        ("optim: {lr: 12:30}", "2:13: optim.lr must be a number"),
        ("optim: {lr: 010}", "2:13: optim.lr must be a number"),
        ("optim: {lr: .nan}", "2:13: optim.lr must be a number"),
        ("optim: {lr: 1e999}", "2:13: optim.lr must be a number > 0 and <= 1"),
        ("local: {l2: 1e999}", "2:13: local.l2 must be a number >= 0"),
        ("optim: {lr: 0}", "2:13: optim.lr must be a number > 0 and <= 1"),
        ("optim: {lr: null}", "2:13: optim.lr must be a number"),
        ("optim: {betas: [0.9]}", "2:16: optim.betas must be a list of 2 numbers"),
        ("optim: {betas: [0.9, 1]}", "2:22: optim.betas[1] must be a number >= 0 and < 1"),
        ("optim: {betas: 0.9}", "2:16: optim.betas must be a list"),
        ("optim: {iterations: 1.5}", "2:21: optim.iterations must be a whole number"),
        ("optim: {iterations: 0}", "2:21: optim.iterations must be a whole number >= 1 and <= 1e+06"),
        ("optim: {iterations: yes}", "2:21: optim.iterations must be a whole number"),
        ("optim: 1", "2:8: optim must be a mapping"),
        ("optim:", "2:7: optim must be a mapping"),
        ("optim: {lr: 1e-3, lr: 1e-4}", "2:19: duplicate key 'lr' in optim"),
        ("target: {kind: avg}", "2:16: target.kind must be one of ufo, average, random"),
        ("target: {kind: averge}", "2:16: target.kind must be one of ufo, average, random, mixture (did"),
        ("targt: {}", "2:1: unknown key 'targt' (did you mean 'target'?)"),
        ("global: {sample: 2}", "2:10: unknown key 'sample' in global (did you mean 'samples'?)"),
        ("bystanders: {}", "2:1: unknown key 'bystanders' (known keys: schema, name, target"),
        ("extends: head", "2:10: extends must be one of fast, guide, guide-alpha-10"),
        ("extends: ../mine", "2:10: extends must be one of fast, guide"),
        ("noise: yes", "2:8: noise must be one of random, const"),
        ("shared_noise: 1", "2:15: shared_noise must be true or false"),
        ("camera: {pitch: 1.6}", "2:17: camera.pitch must be a number > -1.5708 and < 1.5708"),
        ("gate: {retained_min: 1.5}", "2:22: gate.retained_min must be a number >= 0 and <= 1"),
        ("networks: {perceptual: '<b>'}", "2:24: networks.perceptual must be a name of letters"),
        ("networks: {perceptual: 'a b:/c'}", "2:24: networks.perceptual must be a name of letters"),
        ("inversion: {backend: latent}", "2:22: inversion.backend must be one of auto, encoder, optimize"),
        ("stop: {}", "2:1: unknown key 'stop'"),
        ("name: 'two words'", "2:7: name must be a name of letters"),
        ("schema: guide-hub/recipe/v1", "2:1: duplicate key 'schema'"),
    ],
)  # fmt: skip
def test_each_fault_at_its_place(load, text, expected):
    with pytest.raises(InputError) as caught:
        load(text)
    assert str(caught.value).startswith(f"mine.yaml:{expected}")
    assert len(caught.value.problems) == 1


def test_all_faults_at_once(load):
    with pytest.raises(InputError) as caught:
        load("nois: const\noptim:\n  lr: x\n  eps: -1\n")
    assert [(p.line, p.column) for p in caught.value.problems] == [(2, 1), (4, 7), (5, 8)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noise: const\n", "1:1: missing key 'schema'"),
        ("schema: guide-hub/recipe/v2\n", "1:9: schema must be guide-hub/recipe/v1"),
    ],
)
def test_schema_is_required(load, text, expected):
    Path("mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        load_recipe("mine.yaml")


def test_unknown_names_and_files(load):
    with pytest.raises(InputError, match=r"no recipe is called 'guid' \(did you mean 'guide'\?\)"):
        load_recipe("guid")
    with pytest.raises(InputError, match="there are: fast, guide, guide-alpha-10"):
        recipe_text("zzz")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        load_recipe("none.yaml")
    with pytest.raises(InputError, match="is not a file"):
        load_recipe(Path.cwd())


def test_reading_needs_no_torch():
    code = "import sys, guide_hub.request, guide_hub.recipe, guide_hub.record; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
