"""What must never be in anything that goes to the Hub, and the search for it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def of_photo(path: Path) -> list[bytes]:
    """A photo's traces: its name, parts of the file and of the pixels, and the digests of both."""
    with Image.open(path) as picture:
        contents = (path.read_bytes(), np.asarray(picture.convert("RGB")).tobytes())
    found = [path.stem.encode()]
    for content in contents:
        found += [content[at : at + 32] for at in (100, len(content) // 2)]
        for algorithm in ("sha256", "sha1", "md5"):
            digest = hashlib.new(algorithm, content)
            found += [digest.digest(), digest.hexdigest().encode(), base64.b64encode(digest.digest())]
    return found


def leaks(sent: bytes, secrets: Iterable[bytes]) -> list[bytes]:
    """Those of the secrets that were sent, in clear or in base64."""
    all_of_them = list(secrets)
    coded = [base64.b64encode(secret)[:-4] for secret in all_of_them if len(secret) >= 16]
    return [secret for secret in [*all_of_them, *coded] if secret in sent]
