"""The private ledger: what a later run needs of the people that a model has lost, sealed with our key.

One file an erasure, `STATE/BASE_SHA/0001.sealed`, outside everything that gets published. BASE_SHA names the
model as it was before anybody was taken out of it. A file is encrypted with AES-256-GCM under keys that HKDF
derives from the key of the commitments. So whoever holds that key, such as an auditor, must not get the
folder, and a key file that lies beside the folder protects no better than its permissions do: GUIDE_HUB_KEY
keeps the two apart.

A file that was changed, renamed or moved to another model's folder is refused. Nothing tells that one was
deleted, or put back from a backup: compare the entries with the erasures of the model's record.

Losing the ledger is survivable. The published model stays as it is; later runs can neither rehearse nor
measure the lost people from here, and a rebuild needs their photos again.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from filelock import FileLock, Timeout

from guide_hub.checkpoint import default_state
from guide_hub.errors import InputError, Problem
from guide_hub.record.commitments import KEY_BYTES, KEY_VARIABLE

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".sealed"
LOCK_SECONDS = 60

_KIND = b"guide-hub/ledger/v"
_MAGIC = _KIND + b"1\n"
# magic, key, person, base, number, bytes of the body, nonce: all of it is authenticated with the body
_HEADER = struct.Struct(">20s8s16s32sQQ12s")
_TAG_BYTES = 16
_PIECE = 1 << 26  # bytes encrypted at once
_TENSORS = ("w_u", "w_t", "points", "embeddings")
_DICTS = ("basis", "extra")
_NAME = re.compile(r"(?!0000)[0-9]{4}|[1-9][0-9]{4,}")
_LOSABLE = "or remove it: the model stays as it is, and later runs do without this person's entry"
_RESTORE = f"restore it from your backup, {_LOSABLE}"


@dataclass(frozen=True, eq=False)
class Entry:
    """One erased identity as later runs need it. Tensors come back on the CPU, bit for bit, in their dtype.

    `request_id` and `identity_id` are the record's; `sequence` (from 1) is the place in the order over the
    model's whole life. `recipe` is the recipe's text or digest, `mode` the mode of the sequence. `judge` is
    the recogniser's name with the digest of its weights, `threshold` the cosine from which it takes two faces
    of this model for one at the gate's false accept rate, `fitted` the number of photos that found `w_u`.

    `w_u`, `w_t`: [1, num_ws, w_dim], both None where the mode stores no person. `points`: latents of held-out
    photos [P, num_ws, w_dim]. `embeddings`: [fitted + P, D], the judge's of the photos: those that found
    `w_u`, then the held-out ones.
    `basis`: gradient subspaces by parameter name. `extra`: anything else by name, JSON values or tensors.
    """

    request_id: str
    identity_id: str
    sequence: int
    seed: int
    recipe: str = field(repr=False)
    mode: str
    judge: str
    threshold: float
    fitted: int
    w_u: Tensor | None = field(default=None, repr=False)
    w_t: Tensor | None = field(default=None, repr=False)
    points: Tensor | None = field(default=None, repr=False)
    embeddings: Tensor | None = field(default=None, repr=False)
    basis: dict[str, Tensor] | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not (self.request_id and self.identity_id) or "\0" in self.request_id + self.identity_id:
            raise ValueError("ids are not empty and hold no NUL")
        if self.sequence < 1:
            raise ValueError("sequence counts from 1")
        if (self.w_u is None) != (self.w_t is None):
            raise ValueError("w_u and w_t belong together")
        for name, dims in (("w_u", 3), ("w_t", 3), ("points", 3), ("embeddings", 2)):
            value = getattr(self, name)
            if value is not None and value.ndim != dims:
                raise ValueError(f"{name} has {value.ndim} dimensions instead of {dims}")
        if self.w_u is not None and self.w_t is not None:
            latent = (1, *self.w_u.shape[1:])
            if {self.w_u.shape, self.w_t.shape} != {latent}:
                raise ValueError("w_u and w_t are one latent each, of one shape")
            if self.points is not None and self.points.shape[1:] != latent[1:]:
                raise ValueError("points are not of w_u's shape")


@dataclass(frozen=True)
class _Key:
    """From one key of the house: `cipher` seals, `names` marks whose a file is, `id` says which key it is."""

    cipher: bytes = field(repr=False)
    names: bytes = field(repr=False)
    id: bytes

    def person(self, request_id: str, identity_id: str) -> bytes:
        text = f"{request_id}\0{identity_id}".encode()
        return hmac.digest(self.names, text, "sha256")[:16]


def state_folder(option: Path | None = None) -> Path:
    """`option` (--state), else $GUIDE_HUB_STATE, $XDG_STATE_HOME/guide-hub or ~/.local/state/guide-hub."""
    return option or default_state()


class Ledger:
    """The sealed entries of the model whose weights have `base_sha256`, under `state`.

    `keys` are all keys of the deployment as `find_keys` has them, the newest first: it seals, all open.
    Nothing is made on disk before the first `add`. Every method raises InputError for a folder that others
    can enter.
    """

    def __init__(self, state: Path, base_sha256: str, keys: Sequence[bytes]):
        if not re.fullmatch(r"[0-9a-f]{64}", base_sha256):
            raise ValueError("a base is named by 64 lower-case hexadecimal digits")
        if any(len(key) < KEY_BYTES for key in keys):
            raise ValueError(f"a key must have at least {KEY_BYTES} bytes")
        self.path = state / base_sha256
        self._state = state
        self._base = bytes.fromhex(base_sha256)
        self._keys = [_derive(key) for key in keys]

    def check(self) -> None:
        """InputError for a folder that `add` would refuse."""
        if exposed := self._exposed():
            raise InputError(*exposed)

    @property
    def size(self) -> int:
        """Bytes of all entries on disk."""
        return sum(place.stat().st_size for place in self._files().values())

    def entries(self) -> list[Entry]:
        """All entries in the order of erasure; empty where there are none yet.

        Raises one InputError with every file that can't be used: of another key or base, changed, renamed,
        cut short, or open to others.
        """
        found, problems = [], self._exposed() + self._strangers()
        for number, place in self._files().items():
            try:
                found.append((number, self._read(number, place)))
            except FileNotFoundError:  # forgotten by another run meanwhile
                continue
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(*problems)
        return [entry for _, entry in sorted(found, key=lambda pair: (pair[1].sequence, pair[0]))]

    def add(self, entry: Entry) -> int:
        """Seals `entry`; its number. An entry of the same identity is replaced, in one step.

        InputError where there is no key, or the disk does not take it: then nothing has changed.
        """
        if not self._keys:
            raise InputError("the ledger has no key to seal with", remedy=f"set {KEY_VARIABLE}")
        plain = _pack(entry)
        with self._lock():
            number = next(self._numbers(entry.request_id, entry.identity_id), None)
            number = number or max(self._files(), default=0) + 1
            self._write(number, entry, plain)
        return number

    def forget(self, request_id: str, identity_id: str) -> bool:
        """Deletes the identity's entry: whether there was one. It does not reach backups of the folder.

        InputError where a file does not say whose it is; what could be found is gone then all the same.
        """
        if not self.path.exists():
            return False
        problems: list[Problem] = []
        with self._lock():
            numbers = list(self._numbers(request_id, identity_id, problems))
            for number in numbers:
                self._place(number).unlink()
            _sync(self.path)
        if problems:
            raise InputError(*problems)
        return bool(numbers)

    def _place(self, number: int) -> Path:
        return self.path / f"{number:04d}{SUFFIX}"

    def _files(self) -> dict[int, Path]:
        """By number, in order."""
        numbers = (int(p.stem) for p in self.path.glob(f"*{SUFFIX}") if _NAME.fullmatch(p.stem))
        return {number: self._place(number) for number in sorted(numbers)}

    def _exposed(self) -> list[Problem]:
        if os.name == "posix" and self.path.exists() and stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            return [Problem("others can enter this folder", f"chmod 700 {self.path}", str(self.path))]
        return []

    def _strangers(self) -> list[Problem]:
        return [
            Problem("is not a name that the ledger gives", "give it back its number, or move it away", str(p))
            for p in sorted(self.path.glob(f"*{SUFFIX}"))
            if not _NAME.fullmatch(p.stem)
        ]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time; the system drops the lock of a process that dies."""
        try:
            for folder in (self._state, self.path):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.check()
            with FileLock(self.path / ".lock", timeout=LOCK_SECONDS, mode=0o600):
                yield
        except Timeout:
            raise InputError(
                "another run holds the ledger", remedy="wait for it to end and try again"
            ) from None
        except OSError as error:
            raise InputError(
                f"the ledger cannot be written: {error.strerror}",
                remedy="free some space, or name another state folder with --state",
            ) from None

    def _numbers(
        self, request_id: str, identity_id: str, problems: list[Problem] | None = None
    ) -> Iterator[int]:
        """The files of one identity, by their headers; into `problems` goes what doesn't say whose it is."""
        names = {key.id: key.person(request_id, identity_id) for key in self._keys}
        for number, place in self._files().items():
            try:
                with _open(place) as file:
                    _, key_id, person, *_ = _header(place, file.read(_HEADER.size))
                if self._key(place, key_id) and names[key_id] == person:
                    yield number
            except InputError as error:
                if problems is not None:
                    problems += error.problems

    def _key(self, place: Path, key_id: bytes) -> _Key:
        for key in self._keys:
            if key.id == key_id:
                return key
        raise _refusal(
            place,
            "is sealed under a key that is not here, or damaged",
            f"set {KEY_VARIABLE} or restore the key file with that key in it, {_LOSABLE}",
        )

    def _write(self, number: int, entry: Entry, plain: bytes) -> None:
        key, nonce = self._keys[0], os.urandom(12)
        person = key.person(entry.request_id, entry.identity_id)
        header = _HEADER.pack(_MAGIC, key.id, person, self._base, number, len(plain), nonce)
        encryptor = Cipher(AES(key.cipher), GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(header)
        temporary = self.path / "new"
        temporary.unlink(missing_ok=True)  # of a run that was killed
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(header)
                for piece in _pieces(plain):
                    file.write(encryptor.update(piece))
                file.write(encryptor.finalize() + encryptor.tag)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._place(number))
            _sync(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _read(self, number: int, place: Path) -> Entry:
        with _open(place) as file:
            sealed = memoryview(file.read())
        header = sealed[: _HEADER.size]
        _, key_id, _, base, written, length, nonce = _header(place, bytes(header))
        key = self._key(place, key_id)
        body, tag = sealed[_HEADER.size : -_TAG_BYTES], sealed[-_TAG_BYTES:]
        if len(body) < length:
            raise _refusal(place, "is cut short", _RESTORE)
        decryptor = Cipher(AES(key.cipher), GCM(nonce, bytes(tag))).decryptor()
        decryptor.authenticate_additional_data(header)
        try:
            plain = b"".join([*map(decryptor.update, _pieces(body)), decryptor.finalize()])
        except InvalidTag:
            raise _refusal(place, "is damaged or was changed", _RESTORE) from None
        if base != self._base:
            raise _refusal(place, "is of another model", f"move it to {self._state / base.hex()}")
        if written != number:
            raise _refusal(place, "was renamed", f"give it back the name {self._place(written).name}")
        try:
            return _unpack(plain)
        except (ValueError, TypeError, KeyError):
            raise _refusal(place, "was written by a newer guide-hub", "upgrade") from None


def _derive(key: bytes) -> _Key:
    made = HKDF(SHA256(), length=72, salt=None, info=b"guide-hub/ledger/v1").derive(key)
    return _Key(made[:32], made[32:64], made[64:])


def _refusal(place: Path, message: str, remedy: str) -> InputError:
    return InputError(Problem(message, remedy, str(place)))


def _open(place: Path) -> BinaryIO:
    """The file to read from. InputError where others can read it too, FileNotFoundError where it is gone."""
    try:
        file = place.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refusal(place, f"cannot be read: {error.strerror}", "give yourself the right to") from None
    if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
        file.close()
        raise _refusal(place, "others can read this file", f"chmod 600 {place}")
    return file


def _header(place: Path, data: bytes) -> tuple[Any, ...]:
    """The header's fields. InputError where there is none of this version."""
    if data.startswith(_KIND) and not data.startswith(_MAGIC) and len(data) == _HEADER.size:
        raise _refusal(place, "is of a newer guide-hub, or damaged", f"upgrade, or {_RESTORE}")
    if not data.startswith(_MAGIC[: len(data)]):
        raise _refusal(place, "is damaged or no entry of a ledger", _RESTORE)
    if len(data) < _HEADER.size:
        raise _refusal(place, "is cut short", _RESTORE)
    return _HEADER.unpack(data)


def _pieces(data: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[first : first + _PIECE] for first in range(0, len(view), _PIECE))


def _sync(folder: Path) -> None:
    """Makes a rename or a deletion last through a power cut, where folders can be opened for it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _pack(entry: Entry) -> bytes:
    """Length and text of what is JSON, then safetensors of all tensors; those of a dict are `basis/NAME`."""
    from safetensors.torch import save
    from torch import Tensor

    values = {f.name: getattr(entry, f.name) for f in fields(entry)}
    tensors = {name: values.pop(name) for name in _TENSORS}
    for name in _DICTS:
        given = values.pop(name)
        values[name] = None if given is None else {}
        for inner, value in (given or {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{inner}"] = value
            else:
                values[name][inner] = value
    text = json.dumps(values, allow_nan=False).encode()
    own = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in tensors.items()
        if value is not None
    }
    return len(text).to_bytes(8, "big") + text + save(own)


def _unpack(plain: bytes) -> Entry:
    from safetensors.torch import load

    start = 8 + int.from_bytes(plain[:8], "big")
    values = json.loads(plain[8:start])
    for name, tensor in load(plain[start:]).items():
        outer, _, inner = name.partition("/")
        if inner:
            values[outer][inner] = tensor
        else:
            values[outer] = tensor
    return Entry(**values)
