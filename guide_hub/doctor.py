"""What an erasure needs and this machine has: weight files, device, token, state folder.

Only looks. It fetches no weights, makes no key and asks the Hub for nothing but a Hub model's config.json.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from guide_hub import hub
from guide_hub.checkpoint import default_state
from guide_hub.errors import InputError, Problem, RefusedError
from guide_hub.recipe import load_recipe
from guide_hub.record.commitments import find_key

PRESENT, FETCHED, MISSING = "present", "fetched at first use", "missing"


@dataclass(frozen=True)
class NetworkState:
    """A network's weight file.

    `path`: where it lies, or will lie once it is fetched. `source`: where it is published; `put_into`: the
    folder for it, None for a file of the package. `sha256`: the published file's, or how that begins; `fits`:
    whether the file is that one, where both are known. `required`: the examined model and recipe use it.
    `problem`: why an erasure that uses it would not start.
    """

    name: str
    kind: str
    state: str
    file: str
    path: str | None
    source: str
    put_into: str | None
    sha256: str | None
    fits: bool | None = None
    required: bool = False
    problem: Problem | None = None


@dataclass
class Diagnosis:
    """`status`: `ok`, or `missing` where the examined model and recipe could not be used."""

    status: str
    networks: list[NetworkState]
    device: dict[str, Any]
    token: bool
    state: dict[str, Any]
    offline: bool
    errors: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        out = asdict(self)
        for network in out["networks"]:
            del network["problem"]
        return out


def examine(repo: str | None = None, recipe: str | None = None) -> Diagnosis:
    """Looks at this machine and, with a model or a recipe, for what an erasure with them would use.

    `repo` is a Hub id, a folder or `builtin:NAME`; its own recipe is taken where none is given. A recipe
    alone requires the networks that it names. Raises RefusedError, with the diagnosis in its `report`, where
    something required is missing; InputError and HubError for a model or recipe that cannot be read.
    """
    from guide_hub.faces.registry import names, offline

    required = _required(repo, recipe)
    networks = []
    for name in names():
        wanted = [r for r in required if r.partition(":")[0] == name]
        networks += [replace(look(r), required=True) for r in wanted] or [look(name)]
    state, trouble = _state()
    found = Diagnosis("ok", networks, _device(), get_token() is not None, state, offline())
    if repo is not None or recipe is not None:
        problems = [n.problem for n in networks if n.required and n.problem is not None] + trouble
        if problems:
            found.status = "missing"
            refused = RefusedError(*problems)
            refused.report = found
            raise refused
    return found


def look(name: str) -> NetworkState:
    """The weight file of a known network, given as NAME or NAME:PATH."""
    from guide_hub.faces.registry import NETWORKS, offline, own_folders, weights_of

    known, _, given = name.partition(":")
    weights = weights_of(known)
    path = Path(given).expanduser() if given else weights.find()
    found = NetworkState(
        known,
        NETWORKS[known].kind,
        MISSING,
        given or weights.file,
        None,
        weights.source,
        None if given or weights.bundled else str(own_folders()[0]),
        weights.hash_prefix or None,
    )
    if path is not None and path.is_file():
        found = replace(found, state=PRESENT, path=str(path), fits=weights.fits(path))
        if found.fits is False and weights.url is not None and not given:
            other = f"{known}: {path} is not the published file, whose SHA-256 {weights.hash_text}"
            found = replace(found, problem=Problem(other, f"delete it, or name it as {known}:PATH"))
        return found
    if weights.url is not None and not given and not offline():
        return replace(found, state=FETCHED, path=str(weights.target))
    remedy = weights.source if given else weights.remedy
    return replace(found, problem=Problem(f"{known} needs {found.file}, which is not here", remedy))


def _required(repo: str | None, recipe: str | None) -> list[str]:
    """The networks, as NAME or NAME:PATH, that a model and a recipe use."""
    from guide_hub.faces.registry import check_name
    from guide_hub.networks import KINDS, choose, default_recipe

    if repo is not None:
        config = _config(repo)
        chosen = asdict(choose(config, load_recipe(recipe or default_recipe(config))))
    elif recipe is not None:
        chosen = asdict(load_recipe(recipe).networks)
    else:
        return []
    for key, name in chosen.items():
        if name is not None:
            check_name(name, KINDS[key])
    return [name for name in dict.fromkeys(chosen.values()) if name is not None]


def _config(repo: str) -> Any:
    """The model's EG3DConfig; of a Hub model, config.json alone is pulled."""
    from guide_hub.eg3d.pretrained import read_config

    if repo.startswith((hub.BUILTIN, "/", ".", "~")) or Path(repo).is_dir():
        return read_config(hub.resolve(repo).config_file)
    data = hub.read_file(repo, "config.json", None)
    if data is None:
        raise InputError("the model has no config.json", remedy="check that --repo names an EG3D model")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_bytes(data)
        return read_config(file)


def _device() -> dict[str, Any]:
    import torch

    from guide_hub.sequence import pick_device

    return {
        "auto": pick_device("auto").type,
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _state() -> tuple[dict[str, Any], list[Problem]]:
    """The state folder and whether it has a key, and what is wrong with that."""
    folder = default_state()
    try:
        key, trouble = find_key(folder) is not None, list[Problem]()
    except InputError as error:
        key, trouble = False, error.problems
    return {"folder": str(folder), "exists": folder.is_dir(), "key": key}, trouble
