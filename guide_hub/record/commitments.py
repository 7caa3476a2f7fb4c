"""Commitments: a public tie from an erasure to its photos that says nothing without the maintainer's key.

A plain hash of a photo would let anyone who has the photo confirm that this person asked. With the key, given
to an auditor under confidence, `matches` checks the claim.

There may be several keys, one a line, the newest first: it makes the commitments, all of them check. That is
how a key is replaced; an older one stays as long as records have commitments under it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from guide_hub.errors import InputError

DOMAIN = b"guide-hub/v1"
PREFIX = "hmac-sha256:"
KEY_BYTES = 32
KEY_VARIABLE = "GUIDE_HUB_KEY"
KEY_FILE = "key"


def commit(key: bytes, request_id: str, identity_id: str, photo_digests: Iterable[str]) -> str:
    """`hmac-sha256:<hex>` over domain, request id, identity id and sorted SHA-256 digests, joined by NUL."""
    if len(key) < KEY_BYTES:
        raise ValueError(f"the key must have at least {KEY_BYTES} bytes")
    parts = [request_id.encode(), identity_id.encode(), *(d.lower().encode() for d in sorted(photo_digests))]
    if any(b"\0" in part for part in parts):
        raise ValueError("ids and digests hold no NUL")
    return PREFIX + hmac.new(key, b"\0".join([DOMAIN, *parts]), hashlib.sha256).hexdigest()


def matches(
    commitment: str, key: bytes, request_id: str, identity_id: str, photo_digests: Iterable[str]
) -> bool:
    """Whether `commitment` is of exactly these photos, in constant time."""
    return hmac.compare_digest(commitment, commit(key, request_id, identity_id, photo_digests))


def load_key(state: Path, create: bool = True) -> bytes:
    """The deployment's newest key: $GUIDE_HUB_KEY, else `state`/key, made at random (mode 0600) if missing.

    A line of the variable holds 64 hexadecimal digits, or any text of at least 32 bytes; of the file, digits.
    Raises InputError for a short or damaged key, a key file that others can read, or, without `create`, one
    that is missing.
    """
    found = find_key(state)
    if found is not None:
        return found
    path = state / KEY_FILE
    if not create:
        raise InputError(f"there is no key in {state}", remedy=f"set {KEY_VARIABLE} or name the state folder")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = secrets.token_bytes(KEY_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another run was faster
        return _read_keys(path)[0]
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
    return key


def find_key(state: Path) -> bytes | None:
    """The key as `load_key` has it, None where one would be made. InputError where it can't be used."""
    return next(iter(find_keys(state)), None)


def find_keys(state: Path) -> list[bytes]:
    """All keys of the deployment, the newest first. InputError where one can't be used."""
    given = os.environ.get(KEY_VARIABLE, "").strip()
    if given:
        return [_key_from_text(line.strip()) for line in given.splitlines() if line.strip()]
    try:
        return _read_keys(state / KEY_FILE)
    except FileNotFoundError:
        return []


def keep_apart(
    private: Path, *public: Path, what: str = "the state folder holds the secret key", option: str = "--state"
) -> None:
    """InputError if a `private` folder lies in one that gets published, or holds one."""
    inside = private.resolve()
    for folder in public:
        published = folder.resolve()
        if inside.is_relative_to(published) or published.is_relative_to(inside):
            raise InputError(
                f"{what} and overlaps the output folder",
                remedy=f"choose folders apart with {option} and --output",
            )


def _key_from_text(text: str) -> bytes:
    if len(text) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    if len(text.encode()) < KEY_BYTES:
        raise InputError(
            f"{KEY_VARIABLE} is too short", remedy="use 64 hexadecimal digits, such as openssl rand -hex 32"
        )
    return text.encode()


def _read_keys(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        lines = file.read(1 << 20).split()
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError("others can read the key file", remedy=f"chmod 600 {path}")
    try:
        keys = [bytes.fromhex(line.decode("ascii")) for line in lines]
    except ValueError:
        keys = []
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise InputError("the key file is damaged", remedy=f"restore {path} from your backup")
    return keys
