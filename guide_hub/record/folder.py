"""SHA256SUMS of an output folder, in the form that `sha256sum -c` reads."""

from __future__ import annotations

import re
from pathlib import Path

from guide_hub.digest import file_sha256
from guide_hub.errors import InputError, Problem

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\\\n]+)")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder` by relative name, sorted; SHA256SUMS and dot files left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != SUMS and not any(part.startswith(".") for part in name.split("/")):
            if not _LINE.fullmatch(f"{'0' * 64}  {name}"):
                raise ValueError("a file name with a backslash or newline has no line in SHA256SUMS")
            found[name] = file_sha256(path)
    return dict(sorted(found.items()))


def write_sums(folder: Path) -> Path:
    """Write SHA256SUMS of all files in `folder`; do it last."""
    path = folder / SUMS
    text = "".join(f"{digest}  {name}\n" for name, digest in digests(folder).items())
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name from SHA256SUMS. InputError where the file is missing or damaged."""
    try:
        return parse_sums((folder / SUMS).read_bytes())
    except OSError:
        raise InputError(f"{SUMS} is missing or cannot be read") from None


def parse_sums(data: bytes) -> dict[str, str]:
    """`read_sums` of the file's content."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{SUMS} is missing or cannot be read") from None
    found = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2].startswith("/") or ".." in match[2].split("/"):
            raise InputError(Problem("is not a line of sha256sum", file=SUMS, line=number, column=1))
        found[match[2]] = match[1]
    return found


def check_sums(folder: Path) -> list[Problem]:
    """What SHA256SUMS lists and is missing or different, by name. Files that it does not list are free."""
    problems = []
    for name, digest in sorted(read_sums(folder).items()):
        if not (folder / name).is_file():
            problems.append(Problem(f"{name} is missing"))
        elif file_sha256(folder / name) != digest:
            problems.append(Problem(f"{name} has changed since {SUMS} was written"))
    return problems
