"""Plain state dicts as torch.save writes them, read with `weights_only=True` and within the file's size."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d.official_pickle import LEGACY_MAGIC
from guide_hub.errors import InputError, Problem


def is_torch_file(file: Path) -> bool:
    """Whether torch.save wrote it: as a zip archive, or before 1.6 behind its magic number."""
    try:
        with file.open("rb") as stream:
            head = stream.read(14)
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise InputError(Problem(what, "check the file", file=file.name)) from None
    legacy = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[2:] == legacy)


def read_state_dict(file: Path, network: str) -> dict[str, Tensor]:
    """A dict of tensors by name: the whole file, or what stands under `network` or `state_dict` in it."""
    content = _load(file)
    for key in (network, "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(_is_named_tensor(*i) for i in content.items()):
        remedy = f"looked for a dict of tensors at its top, under {network} and under state_dict"
        raise InputError(Problem("holds no state dict", remedy, file=file.name))
    return {name: value.detach() for name, value in content.items()}


def _is_named_tensor(name: Any, value: Any) -> bool:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_complex()
    return plain and re.fullmatch(r"[\w.]{1,200}", name, re.ASCII) is not None


def _load(file: Path) -> Any:
    zipped = zipfile.is_zipfile(file)
    try:
        unpacked = 0
        if zipped:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked <= file.stat().st_size:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
        fault, remedy = "unpacks to more than it is", "download it again"
    except Exception:  # torch and zipfile raise pickle, zip, runtime, key, value and other errors
        fault = "is no state dict that torch reads safely"
        remedy = "give a state dict of tensors alone: torch.save(model.state_dict(), FILE)"
    raise InputError(Problem(fault, remedy, file=file.name))
