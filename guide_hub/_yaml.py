"""YAML with places: every problem of a file at once, each at its line and column.

`yaml.safe_load` drops places, lets the last of two equal keys win, and guesses types (`00123` is 83, `12:30`
is 750, `1e-4` is text). Here the composed nodes are read by what the caller wants of them. Aliases and tags
are refused: no file of ours needs them, and an alias can make a small file large.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from guide_hub.errors import InputError, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_PROBLEMS = 50

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_STANDARD = "tag:yaml.org,2002:"
_TAGS = {
    _STANDARD + t
    for t in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
}


class _Refused(Exception):
    """(what, mark): YAML that is well formed and not wanted."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases and deep nesting while doing so."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("aliases are not supported", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused("nested too deeply", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass
class Document:
    """A file being read, and the problems met so far. `file` is its name as the user gave it.

    `private` files are not quoted: an unknown key is named only where it is a misspelling of a known one.
    """

    file: str
    private: bool = False
    problems: list[Problem] = field(default_factory=list)

    def problem(self, mark: yaml.Mark | None, message: str, remedy: str = "") -> Problem:
        """A problem of this file, at `mark`."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return Problem(message, remedy, self.file, line, column)

    def close(self) -> None:
        """Raise all problems as one InputError, in the file's order; nothing where there are none."""
        if not self.problems:
            return
        found = sorted(dict.fromkeys(self.problems), key=lambda p: (p.line or 0, p.column or 0))
        if len(found) > MAX_PROBLEMS:
            more = len(found) - MAX_PROBLEMS
            found = [*found[:MAX_PROBLEMS], Problem(f"and {more} more problems", file=self.file)]
        raise InputError(*found)


@dataclass(frozen=True)
class Node:
    """One value of the file. The readers return it in the wanted type, or note a problem and return None."""

    document: Document
    raw: yaml.Node
    path: str = ""

    def note(self, message: str, remedy: str = "") -> None:
        """Note a problem at this node."""
        self.document.problems.append(self.problem(message, remedy))

    def problem(self, message: str, remedy: str = "") -> Problem:
        """A problem at this node; `message` follows the node's path."""
        return self.document.problem(self.raw.start_mark, f"{self.path} {message}".lstrip(), remedy)

    @property
    def is_null(self) -> bool:
        return isinstance(self.raw, yaml.ScalarNode) and self.raw.tag == _STANDARD + "null"

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.raw, yaml.MappingNode)

    def mapping(
        self,
        known: Collection[str],
        required: Collection[str] = (),
        on_unknown: Callable[[str], tuple[str, str] | None] = lambda key: None,
    ) -> dict[str, Node]:
        """The values by key. Unknown, repeated and missing keys become problems and are left out.

        `on_unknown(key)` may return (message, remedy) for keys that deserve their own words.
        """
        if not isinstance(self.raw, yaml.MappingNode):
            self.note("must be a mapping (key: value)")
            return {}
        found: dict[str, Node] = {}
        for key_node, value_node in self.raw.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if key in found:
                self._note_key(key_node, f"duplicate key '{key}'", "keep one of them")
            elif key in known:
                path = f"{self.path}.{key}" if self.path else key
                found[key] = Node(self.document, value_node, path)
            else:
                self._unknown(key_node, key, known, on_unknown(key))
        for key in required:
            if key not in found:
                inside = f" in {self.path}" if self.path else ""
                self.document.problems.append(
                    self.document.problem(self.raw.start_mark, f"missing key '{key}'{inside}")
                )
        return found

    def _note_key(self, key_node: yaml.Node, message: str, remedy: str = "") -> None:
        inside = f" in {self.path}" if self.path else ""
        self.document.problems.append(self.document.problem(key_node.start_mark, message + inside, remedy))

    def _unknown(
        self, key_node: yaml.Node, key: str, known: Collection[str], own: tuple[str, str] | None
    ) -> None:
        close = difflib.get_close_matches(key, known, n=1)
        if own:
            self._note_key(key_node, *own)
        elif close:
            self._note_key(key_node, f"unknown key '{key}'", f"did you mean '{close[0]}'?")
        else:
            quoted = "" if self.document.private or not key.isidentifier() else f" '{key}'"
            self._note_key(key_node, f"unknown key{quoted}", f"known keys: {', '.join(known)}")

    def items(self, at_least: int = 0, of: str = "entry") -> list[Node]:
        """The elements of a list that must hold `at_least` so many."""
        if not isinstance(self.raw, yaml.SequenceNode):
            self.note("must be a list")
            return []
        if len(self.raw.value) < at_least:
            self.note(f"must have at least {at_least} {of}")
        return [Node(self.document, n, f"{self.path}[{i}]") for i, n in enumerate(self.raw.value)]

    def _scalar(self, wanted: str, plain: bool = True) -> str | None:
        """The text of a scalar; with `plain`, of one without quotes."""
        node = self.raw
        if not isinstance(node, yaml.ScalarNode) or self.is_null or (plain and node.style is not None):
            self.note(f"must be {wanted}")
            return None
        return str(node.value)

    def text(self, pattern: str | None = None, wanted: str = "text", remedy: str = "") -> str | None:
        """Text as it is written (`00123` stays `00123`), not empty; `pattern` must match all of it."""
        value = self._scalar(wanted, plain=False)
        if value is None:
            return None
        if not value.strip() or (pattern is not None and not re.fullmatch(pattern, value)):
            self.note(f"must be {wanted}", remedy)
            return None
        return value

    def choice(self, options: Sequence[str]) -> str | None:
        """One of `options`."""
        wanted = f"one of {', '.join(options)}" if len(options) > 1 else options[0]
        value = self._scalar(wanted, plain=False)
        if value is None or value in options:
            return value
        close = difflib.get_close_matches(value, options, n=1)
        self.note(f"must be {wanted}", f"did you mean '{close[0]}'?" if close else "")
        return None

    def boolean(self) -> bool | None:
        value = self._scalar("true or false")
        if value is None:
            return None
        if value.lower() not in _BOOLS:
            self.note("must be true or false")
            return None
        return _BOOLS[value.lower()]

    def number(
        self,
        low: float = -math.inf,
        high: float = math.inf,
        above: float = -math.inf,
        below: float = math.inf,
        integer: bool = False,
    ) -> float | int | None:
        """A finite number, `low <= x <= high`, `above < x < below`: `1e-4` is one, `"1"` and `010` not."""
        kind = "a whole number" if integer else "a number"
        value = self._scalar(kind)
        if value is None:
            return None
        if not (_INT if integer else _FLOAT).fullmatch(value) or len(value) > 32:
            self.note(f"must be {kind}")
            return None
        number: float | int = int(value) if integer else float(value)
        if not (low <= number <= high and above < number < below and math.isfinite(number)):
            limits = [(low, ">="), (above, ">"), (high, "<="), (below, "<")]
            bounds = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if math.isfinite(limit))
            self.note(f"must be {kind} {bounds or 'that is finite'}")
            return None
        return number

    def date(self) -> datetime.date | None:
        """A day, YYYY-MM-DD, quoted or not."""
        value = self._scalar("a date, YYYY-MM-DD", plain=False)
        if value is None:
            return None
        if not _DATE.fullmatch(value):
            self.note("must be a date, YYYY-MM-DD")
            return None
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            self.note("is not a day of the calendar")
            return None


def _walk(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(key)
            yield from _walk(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _walk(value)


def _read_text(path: Path, file: str) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(Problem("is not a file", file=file))
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            Problem(f"cannot be read: {error.strerror or 'unknown reason'}", file=file)
        ) from None
    except ValueError:
        raise InputError(Problem("cannot be read: not a path", file=file)) from None
    if len(data) > MAX_BYTES:
        raise InputError(Problem(f"is larger than {MAX_BYTES >> 20} MiB", file=file))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise InputError(Problem("is not UTF-8 text", "save it as UTF-8", file, line, column)) from None


def parse(text: str, file: str, private: bool = False) -> Node:
    """The root node of `text`. Raises InputError at the place of the first syntax error."""
    document = Document(file, private)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except _Refused as refused:
        raise InputError(document.problem(refused.args[1], refused.args[0])) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f"{error.context}, " if (error.problem or "").startswith("but ") else ""
        raise InputError(document.problem(mark, f"{context}{error.problem or 'is not YAML'}")) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise InputError(Problem("control characters are not allowed", "", file, line, column)) from None
    if root is None:
        raise InputError(Problem("is empty", file=file, line=1, column=1))
    for node in _walk(root):
        if node.tag not in _TAGS:
            document.problems.append(document.problem(node.start_mark, "tags are not supported"))
    document.close()
    return Node(document, root)


def read(path: str | Path, private: bool = False) -> Node:
    """`parse` of a file: a regular one of at most 1 MiB, UTF-8."""
    return parse(_read_text(Path(path), str(path)), str(path), private)
