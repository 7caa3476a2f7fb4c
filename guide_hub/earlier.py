"""The people whom a model has lost before: what the ledger knows of them, and what a run adds to it.

A run that continues a record rehearses its people (`memories`) and measures them again (`measure`), as far
as the ledger of this machine has them. What it does not have is no reason to stop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guide_hub import hub
from guide_hub import record as records
from guide_hub.errors import HubError, InputError
from guide_hub.ledger import Entry, Ledger
from guide_hub.report import EarlierReport, ErasureReport, IdentityFigures

if TYPE_CHECKING:
    from torch import Tensor

    from guide_hub.eg3d import EG3D
    from guide_hub.evaluation.identity import Seen, Sitter
    from guide_hub.evaluation.reemergence import Matrix
    from guide_hub.faces.identity import IdentityEncoder
    from guide_hub.modes import Memory
    from guide_hub.recipe import Gate, Recipe
    from guide_hub.survey import Survey

PHOTOS = "photos"  # in an entry's `extra`: latents of the photos that found the person
MODEL = "model"  # in an entry's `extra`: SHA-256 of the weights that its run left
DIGEST = "recipe_sha256"  # the recipe's digest
STEP = "step"  # the number, on the record, of the last person whom the same step erased
ROW = "row"  # of the re-emergence matrix: what that step left; with the last person's entry alone
MAX_LINKS = 1000
_LEDGERS = "[0-9a-f]" * 64

Id = tuple[str, str]  # request and identity


@dataclass(frozen=True)
class Earlier:
    """Those who are on a model's record. `base_sha256`: the weights of the original, which name the ledger.

    `known` are in the ledger, in the order of the record; `lost` are not.
    """

    base_sha256: str
    known: tuple[Entry, ...] = ()
    lost: tuple[Id, ...] = ()


def recall(state: Path, record: bytes | None, weights_sha256: str, recipe_digest: str, seed: int) -> Earlier:
    """What the ledgers under `state` know of the people on `record`, that of the model to be changed.

    Raises InputError for a ledger that can't be opened: another key, damaged, open to others.
    """
    if record is None:
        open_ledger(state, weights_sha256).check()
        return Earlier(weights_sha256)
    base = _base_sha256(state, record, weights_sha256)
    entries = open_ledger(state, base).entries()
    known, lost = [], []
    for erasure in records.older(record):
        person = (erasure["requestId"], erasure["identityId"])
        found = [e for e in entries if id_of(e) == person]
        same = [e for e in found if (e.extra.get(DIGEST), e.seed) == (recipe_digest, seed)]
        if found:
            known.append((same or found)[-1])
        else:
            lost.append(person)
    return Earlier(base, tuple(known), tuple(lost))


def open_ledger(state: Path, base_sha256: str) -> Ledger:
    """The ledger of an original, under all keys that are here."""
    return Ledger(state, base_sha256, records.find_keys(state))


def id_of(entry: Entry) -> Id:
    return entry.request_id, entry.identity_id


def original(record: bytes) -> records.Base:
    """The model at the beginning of a record's chain, before the first erasure.

    Raises InputError or HubError where an earlier record is not to be had: purged, or of a folder.
    """
    statement = records.parse_record(record)
    for _ in range(MAX_LINKS):
        said, link = statement["predicate"]["base"], statement["predicate"].get("previousRecord")
        base = records.Base(said["uri"], said["digest"]["sha256"], said.get("revision"))
        if link is None:
            return base
        if not base.uri.startswith("hf://"):
            raise InputError("an earlier model was a folder, which the record cannot find")
        older = hub.read_file(base.uri.removeprefix("hf://"), records.record.FILE, base.revision)
        if older is None or link["digest"]["sha256"] != records.sha256(older):
            raise InputError("an earlier record is not the one that its successor continues")
        statement = records.parse_record(older)
    raise InputError("the chain of records does not end")


def pull(base: records.Base) -> hub.Source:
    """A model that a record names. InputError or HubError where it can't be had."""
    if base.uri.startswith("hf://"):
        return hub.resolve(base.uri.removeprefix("hf://"), base.revision)
    if base.uri.startswith(hub.BUILTIN):
        return hub.resolve(base.uri)
    raise InputError("the original was a folder, which the record cannot find")


def teacher(earlier: Earlier, record: bytes, given: str | None) -> tuple[hub.Source | None, str | None]:
    """The original, to erase by; or None, and why the model as it was pulled has to do.

    `given` names the original in place of the chain. InputError: it names something else.
    """
    if given is not None:
        found = hub.resolve(given)
        if records.file_sha256(found.weights_file) != earlier.base_sha256:
            raise InputError(
                "these weights are not the original that the record's chain or the ledger names",
                remedy="name the model from before the first erasure with --base",
            )
    if earlier.lost:
        return None, "it would bring back who is not in the ledger"
    if given is not None:
        return found, None
    try:
        found = pull(original(record))
        if records.file_sha256(found.weights_file) != earlier.base_sha256:
            raise InputError("it is no longer what the record names")
    except (InputError, HubError) as error:
        return None, error.problems[0].message
    return found, None


def _base_sha256(state: Path, record: bytes, weights_sha256: str) -> str:
    """The original's weights: as the chain says; where it is cut, of the ledger that knows the model."""
    try:
        return original(record).sha256
    except (InputError, HubError):
        for folder in sorted(state.glob(_LEDGERS)):
            entries = open_ledger(state, folder.name).entries()
            if any(entry.extra.get(MODEL) == weights_sha256 for entry in entries):
                return folder.name
        return weights_sha256


def memories(entries: Iterable[Entry]) -> list[Memory]:
    """The entries as a sequence takes them, on the CPU."""
    from guide_hub.modes import Memory

    return [Memory(e.w_u, e.w_t, e.basis or {}, e.extra.get(PHOTOS)) for e in entries]


def move(state: Path, base_sha256: str, known: Sequence[Entry], now: Sequence[Memory]) -> None:
    """Seals the surrogates that a run moved. Of `known`, what was changed or forgotten meanwhile stays so."""
    import torch

    moved = {
        id_of(entry): (entry.w_t, memory.w_t.cpu())
        for entry, memory in zip(known, now, strict=True)
        if entry.w_t is not None and memory.w_t is not None and not torch.equal(entry.w_t, memory.w_t.cpu())
    }
    if not moved:
        return
    ledger = open_ledger(state, base_sha256)
    for entry in ledger.entries():
        before, after = moved.get(id_of(entry), (None, None))
        if before is not None and entry.w_t is not None and torch.equal(entry.w_t, before):
            ledger.add(replace(entry, w_t=after))


def rehearses(recipe: Recipe) -> bool:
    """Whether a run by `recipe` takes the earlier people in again."""
    mode, replay = recipe.sequence.mode, recipe.replay
    return mode in ("joint", "merge") or (mode == "replay" and bool(replay.weight and replay.per_step))


def fingerprint(entries: Iterable[Entry], anew: bool = False) -> str | None:
    """Of what a run takes from the entries; None where there are none. Private, as they are.

    `anew`: of what an erasure that is done again takes, not of what it leaves.
    """
    import torch

    found = hashlib.sha256()
    entries = list(entries)
    for e in entries:
        left = {} if anew else {"w_t": e.w_t, **(e.basis or {})}
        photos = {PHOTOS: e.extra[PHOTOS]} if PHOTOS in e.extra else {}
        tensors = {"w_u": e.w_u, **photos, **left}
        found.update(repr([id_of(e), e.seed, e.mode, [*tensors]]).encode())
        for tensor in tensors.values():
            if tensor is not None:
                found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest() if entries else None


def judge_name(name: str, weights_sha256: str) -> str:
    """A judge as entries name it: two are one where the weights are. No path."""
    return f"{name.partition(':')[0]} sha256:{weights_sha256}"


def measurable(entry: Entry, judge: str) -> bool:
    """Whether the entry's people can be measured by the judge of that `judge_name`."""
    return entry.judge == judge and entry.w_u is not None and entry.embeddings is not None


def points_of(entry: Entry) -> Tensor:
    """Where an entry's person is measured: `w_u`, then the held-out photos' latents."""
    import torch

    assert entry.w_u is not None
    return entry.w_u if entry.points is None else torch.cat([entry.w_u, entry.points])


def places_of(entry: Entry) -> Tensor:
    """What an erasure of an entry's person is told: `w_u`, then where single photos lie."""
    import torch

    assert entry.w_u is not None
    return torch.cat([entry.w_u, entry.extra[PHOTOS]]) if PHOTOS in entry.extra else entry.w_u


def sitter(
    entry: Entry,
    judge: IdentityEncoder,
    cameras: Tensor,
    threshold: float | None = None,
    source: EG3D | None = None,
) -> Sitter:
    """One who is `measurable`, from the embeddings that the ledger keeps; `threshold`: other than then."""
    from guide_hub.evaluation.identity import Sitter

    assert entry.embeddings is not None
    device = cameras.device
    return Sitter(
        judge,
        entry.embeddings.to(device),
        points_of(entry).to(device),
        cameras,
        entry.threshold if threshold is None else threshold,
        entry.fitted,
        source,
    )


def join(
    survey: Survey,
    earlier: Earlier,
    record: bytes | None,
    judge: IdentityEncoder,
    name: str,
    cameras: Tensor,
) -> None:
    """Adds to `survey` everybody on `record`, and to be measured those who can be. `name`: a `judge_name`."""
    from guide_hub.evaluation.reemergence import Cell

    entries = {id_of(e): e for e in earlier.known}
    for said in records.older(record) if record is not None else []:
        number, entry = said["sequence"], entries.get((said["requestId"], said["identityId"]))
        extra = entry.extra if entry is not None and entry.sequence == number else {}
        survey.remember(
            number, extra.get(STEP, number), Cell(said["metrics"]["id"]["after"]), extra.get(ROW, [])
        )
        if entry is not None and measurable(entry, name):
            survey.add(number, sitter(entry, judge, cameras))


def reports(
    earlier: Earlier, seen: Mapping[int, Seen], gate: Gate, sequence: Mapping[Id, int]
) -> list[EarlierReport]:
    """Those who were measured, as `seen` by number. `sequence`: each one's number on the record."""
    found = []
    for e in earlier.known:
        number = sequence[id_of(e)]
        now = seen.get(number)
        if now is None:
            continue
        held_out = now.others.verified if now.others else None
        found.append(
            EarlierReport(
                e.request_id, e.identity_id, number, e.threshold, now.own.cosine, now.own.verified,
                now.others.cosine if now.others else None, held_out,
                "PASSED" if gate.gone(now.own.verified, held_out) else "FAILED",
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Made:
    """What this run's entries have in common. `judge` as in `judge_name`; `model`: its weights' SHA-256."""

    recipe: Recipe
    seed: int
    judge: str
    model: str
    matrix: Matrix


def entry(
    erasure: ErasureReport, memory: Memory, points: Tensor, faces: Tensor, fitted: int, made: Made
) -> Entry:
    """The ledger's entry of one identity of this run.

    points [1 + H, num_ws, w_dim]: the erased latent and the held-out photos'; faces [fitted + H, D]: the
    judge's embeddings of the photos. A mode that stores no person keeps neither.
    """
    stores = memory.w_u is not None
    figures: IdentityFigures = erasure.id
    step = made.matrix.steps[erasure.sequence]
    photos = {} if memory.photos is None else {PHOTOS: memory.photos}
    row = {ROW: made.matrix.row(step)} if step == erasure.sequence else {}
    return Entry(
        erasure.request_id,
        erasure.identity_id,
        erasure.sequence,
        made.seed,
        made.recipe.to_yaml(),
        made.recipe.sequence.mode,
        made.judge,
        figures.threshold,
        fitted,
        w_u=memory.w_u,
        w_t=memory.w_t,
        points=points[1:] if stores and len(points) > 1 else None,
        embeddings=faces if stores else None,
        basis=memory.tensors or None,
        extra={MODEL: made.model, DIGEST: made.recipe.digest(), STEP: step, **row, **photos},
    )


def add(state: Path, base_sha256: str, entries: Sequence[Entry]) -> None:
    """Seals the entries; those of the same identities are replaced. InputError: the disk is full, say."""
    records.load_key(state)
    ledger = open_ledger(state, base_sha256)
    for new in entries:
        ledger.add(new)
