"""The folder that is to be published: does a file of it hold something of the person?

Looked for are latents and embeddings as numbers of any width, photos and their names, pictures inside other
files, tensors that no model has, long lists of numbers in text, and the person in the pictures for the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from guide_hub.attacks.base import Case, Finding
from guide_hub.attacks.budget import FULL, Budget
from guide_hub.attacks.sight import person
from guide_hub.errors import InputError
from guide_hub.evaluation.identity import embed
from guide_hub.faces.crops import to_tensor
from guide_hub.hub import PUBLIC_FILES
from guide_hub.sheets import LABEL
from guide_hub.verify import header_faults, read_header

WINDOW = 6  # numbers in a row that are nobody else's
LIST = 24  # numbers in a row that no text of ours has
MAGIC = (b"\x89PNG\r\n\x1a\n", b"JFIF\x00", b"Exif\x00\x00", b"WEBPVP8")
NUMBERS = re.compile(rb"(?:-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?[,;\s]+){%d}" % LIST)
BLOB = re.compile(rb"[A-Za-z0-9+/]{200,}")  # base64
TEXTS = (".json", ".yaml", ".md", "")


def run(case: Case, done: Callable[[float], None] = lambda share: None, budget: Budget = FULL) -> Finding:
    """Every file of `case.folder`. Without a folder nothing is judged."""
    title = "What is to be published"
    if case.folder is None:
        return Finding("leaks", title, None, "there is no folder to look through", {})
    files = sorted(p for p in case.folder.rglob("*") if p.is_file())
    found, alike = list(_foreign(case.folder, files)), 0
    wanted = patterns(case)
    for k, path in enumerate(files):
        found += _faults(case, path, path.read_bytes(), wanted)
        alike += _alike(case, path) if path.suffix == ".png" else 0
        done((k + 1) / len(files))
    kinds = {kind: found.count(kind) for kind in sorted(set(found))}
    rule = (
        "no file holds latents, embeddings, photos or names of photos; of pictures that are like the person, "
        "as strangers can be, the number is reported"
    )
    figures: dict[str, float | int | None] = {"files": len(files), "faults": len(found)}
    figures |= {"pictures_like_the_person": alike, **kinds}
    return Finding("leaks", title, not found, rule, figures)


def patterns(case: Case) -> list[bytes]:
    """Bytes that tell a latent or an embedding: a few numbers in a row as float32, float16 and bfloat16."""
    judge, other = case.networks.identity_judge, case.networks.identity_loss
    rows = [case.ws[:, 0], case.ws[:, -1], *(embed(e, case.photos) for e in (judge, other))]
    rows += [ws[:, 0] for ws in (case.w_t, case.apart) if ws is not None]
    numbers = torch.cat([row.detach().float().cpu()[:, :WINDOW] for row in rows])
    found = [row.numpy().tobytes() for row in numbers]
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        found += [row.to(kind).view(torch.uint8).numpy().tobytes() for row in numbers]
    return found


def _foreign(folder: Path, files: list[Path]) -> Iterator[str]:
    """Files that nobody may push. By kind: a name could be a person's."""
    public = {path for pattern in PUBLIC_FILES for path in folder.glob(pattern)}
    yield from ("foreign_files" for path in files if path not in public and ".cache" not in path.parts)


def _faults(case: Case, path: Path, data: bytes, wanted: list[bytes]) -> Iterator[str]:
    yield from ("numbers" for pattern in wanted if pattern in data)
    yield from ("photos_or_names" for secret in case.secrets if secret in data)
    if path.suffix == ".png":
        with Image.open(path) as picture:
            yield from ("metadata" for _ in picture.info)
        return
    yield from ("pictures" for magic in MAGIC if magic in data)
    if path.suffix == ".safetensors":
        yield from _tensors(case, path)
    elif path.suffix in TEXTS and path.name != "LICENSE":
        if path.name == "config.json":  # the model's own settings have lists
            data = json.dumps({k: v for k, v in json.loads(data).items() if not isinstance(v, list)}).encode()
        yield from ("lists_of_numbers" for _ in NUMBERS.finditer(data))
        yield from ("blobs" for _ in BLOB.finditer(data))


def _tensors(case: Case, path: Path) -> Iterator[str]:
    try:
        header = read_header(path)
    except InputError:
        yield "tensors"
        return
    yield from ("metadata" for _ in header_faults(header, path.stat().st_size))
    yield from ("tensors" for name in header.keys() - {"", "__metadata__"} - case.source.state_dict().keys())


def _alike(case: Case, path: Path) -> int:
    """How many renders of the card's picture the judge takes for the person."""
    with Image.open(path) as picture:
        tiles = list(_tiles(picture.convert("RGB"), case.source.config.img_resolution))
    if not tiles:
        return 0
    cosine = embed(case.networks.identity_judge, torch.stack(tiles).to(case.photos)) @ person(case)
    return int((cosine >= case.threshold).sum())


def _tiles(picture: Image.Image, size: int) -> Iterator[Tensor]:
    """The renders of a contact sheet, [3, size, size]."""
    for top in range(LABEL, picture.height - size + 1, size + LABEL):
        for left in range(0, picture.width - size + 1, size):
            yield to_tensor(np.asarray(picture.crop((left, top, left + size, top + size))))
