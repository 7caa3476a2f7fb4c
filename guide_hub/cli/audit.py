"""guide-hub audit"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from guide_hub.cli import options

if TYPE_CHECKING:
    from guide_hub.audit import Audit, Identity, Place, Weights

WIDTH = 80
SHOWN = 3  # identities a line names

REMOVALS = {
    "squash": "squash the branch",
    "delete_branch": "delete the branch",
    "delete_tag": "delete the tag",
    "delete_file": "delete the file",
    "delete_lfs_file": "delete the LFS file",
    "web": "by hand on its web page",
    "erase": "erase, or revert main",
}


@click.command("audit")
@click.argument("repo")
@options.as_json
def command(repo: str, as_json: bool) -> None:
    """Find what a repository still serves of the people who were erased from it.

    Looks at every branch, tag, pull request and commit, at cards that claim what the record does not, and at
    the models that derive from it. Downloads no weights and changes nothing.

    Exit code 0: nothing is left. 3: something is, or not everything could be looked at.
    """
    from guide_hub.audit import audit
    from guide_hub.cli import output

    found = audit(repo)
    if as_json:
        output.write_json(found.to_dict())
    else:
        for line in lines(found):
            click.echo(line)
        if found.status == "exposed" and found.record_sha256 is not None:
            click.echo(f"-> what removes them, in order: guide-hub purge {repo}")
    if found.status != "clean":
        sys.exit(3)


def lines(found: Audit) -> Iterator[str]:
    """An audit for people, in lines of at most 80 columns."""
    if found.record_sha256 is None:
        yield f"{found.repo}: no erasure record on main, so no weights count as erased"
    count = len(found.exposed)
    what = "file of weights still shows" if count == 1 else "files of weights still show"
    if count:
        yield f"{found.repo}: {count} {what} erased people"
    for weights in found.exposed:
        yield from _weights(weights)
    for weights in found.pointers:
        refs = ", ".join(place.ref for place in weights.places)
        yield from wrapped(f"deleted, but still named in {refs}: {_named(weights)}")
    for weights in found.claimed:
        refs = ", ".join(place.ref for place in weights.places)
        yield from wrapped(f"erased by what {refs} says of itself, not merged: {weights.files[0]}")
    for claim in found.claims:
        yield from wrapped(f"{claim.ref}: {claim.message}")
    if found.base is not None:
        yield from wrapped(
            f"the base {found.base['repo']} at {found.base['revision'][:10]} still shows erased people"
        )
    for model in found.derived:
        if not model.missing:
            text = "its record names the same erasures"
        elif model.has_record is None:
            text = "its record can't be read"
        else:
            text = f"its record does not name {_people(model.missing)}" if model.has_record else "no record"
        yield from wrapped(f"derived: {model.repo}: {text}")
    for text in found.unchecked:
        yield from wrapped(f"not looked at: {text}")
    if found.status == "clean":
        yield f"{found.repo}: clean, as far as this can see"
    elif found.status == "incomplete":
        yield f"{found.repo}: nothing found, but not everything was looked at"
    looked = f"{_counted(found.refs, 'ref')} and {_counted(found.commits, 'commit')}"
    yield f"looked at {looked}; {_counted(len(found.erasures), 'erasure')} on record"


def _weights(weights: Weights) -> Iterator[str]:
    yield ""
    yield from wrapped(f"{_named(weights)}, {size(weights.size)}", "")
    if not weights.known:
        yield "  no record knows it: it may show everybody"
    elif weights.shows:
        yield from wrapped(f"shows {_people(weights.shows)}")
    for place in weights.places:
        yield f"  {_where(place):<46} {REMOVALS[place.removal]}"[:WIDTH]


def _named(weights: Weights) -> str:
    digest = f"sha256 {weights.sha256[:12]}" if weights.sha256 else "not in LFS"
    return f"{weights.files[0]}, {digest}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _where(place: Place) -> str:
    if place.kind == "storage":
        return "the LFS storage alone"
    if place.kind == "commit":
        return f"commit {place.commits[0][:10]}, on no ref"
    name = place.ref.removeprefix("refs/").removeprefix("heads/")
    name = name if len(name) <= 24 else name[:23] + "…"
    old = len(place.commits) - bool(place.at_tip)
    parts = (["its tip"] if place.at_tip else []) + ([f"{old} older"] if old else [])
    return f"{name}: {' and '.join(parts)}"


def _people(identities: tuple[Identity, ...]) -> str:
    named = [f"{identity} ({request})" for request, identity in identities[:SHOWN]]
    more = len(identities) - SHOWN
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """`text` in lines that fit, without what a stranger's file names could tell a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def size(number: int) -> str:
    """A file's size for people: 1.2 kB, 345.6 MB."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
