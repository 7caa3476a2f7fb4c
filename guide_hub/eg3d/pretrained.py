"""from_pretrained, save_pretrained and push_to_hub: huggingface_hub's mixin with its unsafe defaults closed.

Strict loading, safetensors only, bytes that repeat, nothing on stdout, one commit a push.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import CommitOperationAdd, HfApi, PyTorchModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guide_hub.eg3d.config import EG3DConfig
from guide_hub.errors import InputError, Problem

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE, LIBRARY = "eg3d", "guide-hub"  # how config.json says whose it is

MAX_NAMED = 8

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(
    nn.Module,
    PyTorchModelHubMixin,
    library_name=LIBRARY,
    tags=["eg3d"],
    pipeline_tag="unconditional-image-generation",
):
    """A module whose constructor takes `config` alone and keeps it as `self.config`."""

    config: EG3DConfig

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[Model],
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
    ) -> Model:
        """The model of a Hub repository at `revision`, or of a folder, in eval mode on `map_location`.

        Both files come from one commit. Raises InputError without config.json or model.safetensors, where
        tensors do not fit exactly, and for `strict=False`, which does not exist here; huggingface_hub's own
        errors for the rest.
        """
        if not strict:
            raise InputError("weights are loaded strictly or not at all", remedy="leave strict out")
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _pull(
                str(pretrained_model_name_or_path), revision=revision, token=token, cache_dir=cache_dir,
                force_download=force_download, local_files_only=local_files_only,
            )  # fmt: skip
        config = read_config(folder / CONFIG)
        with torch.device("meta"):  # names and shapes alone; the file's tensors are put in their place
            model = cls(config)
        load_strictly(model, folder / WEIGHTS, map_location)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override]
        """Writes config.json and model.safetensors to a folder, each whole or not at all.

        Equal weights give equal bytes: safetensors writes several metadata keys in a random order, so there
        is one.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        _replace(folder / WEIGHTS, lambda file: save_file(state, file, metadata={"format": "pt"}))
        _replace(folder / CONFIG, lambda file: file.write_bytes(config_bytes(self.config)))

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using guide-hub",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        parent_commit: str | None = None,
    ) -> str:
        """Creates the repository if need be and pushes both files in one commit; returns its address."""
        api = HfApi(token=token, library_name=LIBRARY)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.create_commit(
                repo,
                [CommitOperationAdd(name, str(Path(folder, name))) for name in (CONFIG, WEIGHTS)],
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                parent_commit=parent_commit,
            )
        return str(commit.commit_url)


def _pull(repo_id: str, **options: Any) -> Path:
    try:
        return Path(
            snapshot_download(repo_id, allow_patterns=[CONFIG, WEIGHTS], library_name=LIBRARY, **options)
        )
    except HFValidationError:
        raise InputError(
            f"{repo_id!r} is neither a folder nor a repository",
            remedy="give an existing folder or a Hub id such as org/eg3d",
        ) from None


def read_config(file: str | Path) -> EG3DConfig:
    """The configuration in a model folder's config.json. Raises InputError where it is none of ours."""
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"the model has no {CONFIG}",
            remedy="convert it first: guide-hub convert FILE DIR",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG} cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{CONFIG} does not describe an EG3D model (model_type is not {MODEL_TYPE!r})",
            remedy="check that this is the repository or folder that you mean",
        )
    return EG3DConfig.from_dict({k: v for k, v in data.items() if k not in ("model_type", "library_name")})


def config_bytes(config: EG3DConfig) -> bytes:
    """The one form in which a configuration is written."""
    data = {"model_type": MODEL_TYPE, "library_name": LIBRARY, **config.to_dict()}
    return json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"


def load_strictly(model: nn.Module, file: str | Path, device: str | torch.device = "cpu") -> None:
    """Put a safetensors file's tensors in the place of the model's, which ends up on `device`.

    Every one by name and shape, none missing, none left over, brought to the model's dtype. Raises
    InputError that names what does not fit.
    """
    if not Path(file).is_file():
        raise InputError(
            f"the model has no {WEIGHTS}",
            remedy="convert it first: guide-hub convert FILE DIR",
        )
    try:
        state = load_file(file, device=str(device))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{WEIGHTS} cannot be read: {error}", remedy="download it again") from None
    wanted = model.state_dict()
    faults = misfits(wanted, state)
    if faults:
        more = [f"and {len(faults) - MAX_NAMED} more tensors"] if len(faults) > MAX_NAMED else []
        remedy = f"{WEIGHTS} and {CONFIG} must come from the same model"
        raise InputError(*(Problem(f"{WEIGHTS}: {text}", remedy) for text in faults[:MAX_NAMED] + more))
    # copied, so that nothing keeps the file mapped: it could not be replaced on Windows
    own = {name: state[name].to(value.dtype, copy=True) for name, value in wanted.items()}
    model.load_state_dict(own, assign=True)


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from taking the place of `wanted`, one line a tensor."""
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} does not belong to this model" for name in state if name not in wanted]
    faults += [
        f"{name} is {list(state[name].shape)}, not {list(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    return faults


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `file` and rename: readers and crashes see the old one or the new one."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # what the umask allows; safetensors makes its files private
        write(temporary)
        temporary.chmod(mode)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
