"""What an erased model was made from: its base, and the recipe that came with it."""

from __future__ import annotations

from guide_hub import hub
from guide_hub import record as records
from guide_hub.errors import InputError
from guide_hub.networks import KINDS
from guide_hub.recipe import Recipe, load_recipe
from guide_hub.sequence import Progress

NAME_IT = "name the model that it was made from with --base"


def find_base(
    model: hub.Source, model_sha256: str, given: str | None, progress: Progress
) -> tuple[hub.Source, str]:
    """The base and the SHA-256 of its weights. InputError or HubError where it can't be had."""
    statement = records.read_record(model.record_file) if model.record_file else None
    said = statement["predicate"]["base"] if statement is not None else None
    if given is not None:
        found = hub.resolve(given)
    elif said is None:
        raise InputError("the model has no record that names its base", remedy=NAME_IT)
    elif said["uri"].startswith("hf://"):
        found = hub.resolve(said["uri"].removeprefix("hf://"), said.get("revision"))
    elif said["uri"].startswith(hub.BUILTIN):
        found = hub.resolve(said["uri"])
    else:
        raise InputError("the model's record names a base that only its maker has", remedy=NAME_IT)
    sha256 = records.file_sha256(found.weights_file)
    if sha256 == model_sha256:
        raise InputError("the base and the model are the same weights", remedy=NAME_IT)
    if said is not None and said["digest"]["sha256"] != sha256:
        if given is None:
            raise InputError("the base has changed since the model was made from it", remedy=NAME_IT)
        progress.warn("the base is not the one that the model's record names")
    return found, sha256


def read_recipe(model: hub.Source) -> Recipe:
    """The recipe that `model`, which anybody may have written, carries. InputError: it names files."""
    recipe = load_recipe(model.folder / "recipe.yaml")
    if any(":" in (getattr(recipe.networks, key, None) or "") for key in KINDS):
        raise InputError(
            "the model's recipe names files of a machine",
            remedy="use one of your own: guide-hub evaluate --recipe",
        )
    return recipe
