"""`new_version` on the base's model card: the Hub then shows a banner that leads to the erased model.

Always a pull request on the base's repository. The one line is put into the card as it is; nothing else of it
changes.
"""

from __future__ import annotations

import re

import yaml
from huggingface_hub import CommitOperationAdd, HfApi

from guide_hub.errors import InputError
from guide_hub.hub import explained, open_pulls, read_file
from guide_hub.patience import patiently

KEY = "new_version"
CARD = "README.md"


def title(target: str) -> str:
    """Of the pull request."""
    return f"Point to {target}, the version with erasures"


def supersede(base: str, target: str) -> str:
    """Opens a pull request that sets `new_version: target` on the card of `base`; gives its address.

    Does nothing where the card says so already, or an open pull request does: gives that one's address.

    Raises:
        InputError: `target` is `base`, or the card's front matter can't be edited.
        HubError: the repository, the token or the network.
    """
    check(base, target)
    with explained(base):
        api = HfApi()
        head = patiently(api.model_info, base).sha
        card = read_file(base, CARD, head) or b""
        new = with_new_version(card, target)
        if new == card:
            return f"{api.endpoint}/{base}"
        for pull in open_pulls(api, base):
            if pull.title == title(target) and read_file(base, CARD, f"refs/pr/{pull.num}") == new:
                return pull.url
        commit = api.create_commit(
            base,
            [CommitOperationAdd(CARD, new)],
            commit_message=title(target),
            commit_description=f"People were erased from this model on request; {target} is the result.",
            parent_commit=head,
            create_pr=True,
        )
    return commit.pr_url or commit.commit_url


def check(base: str | None, target: str | None) -> None:
    """InputError where there are not two repositories, one to point from and one to point to."""
    if base is None or target is None:
        raise InputError(
            "--supersede needs a base model on the Hub and a push to another repository",
            remedy="leave it out, or name the other repository with --push-to",
        )
    if base == target:
        raise InputError(
            "--supersede is for a base in another repository; this push goes to the base itself",
            remedy="leave it out",
        )


def with_new_version(card: bytes, target: str) -> bytes:
    """The card with `new_version: target` in its front matter, all other bytes as they were.

    InputError where the front matter is not a block of `key: value` lines in UTF-8.
    """
    try:
        text = card.decode("utf-8")
    except UnicodeDecodeError:
        raise _uneditable() from None
    front = re.match(r"\ufeff?---[ \t]*(\r?\n)(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    if front is None:
        if text.lstrip("\ufeff").startswith("---"):
            raise _uneditable()
        return f"---\n{KEY}: {target}\n---\n".encode() + (b"\n" + card if card else b"")
    newline, body = front[1], front[2]
    try:
        before = yaml.safe_load(body) or {}
        node = yaml.compose(body, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise _uneditable() from None
    if isinstance(before, dict) and before.get(KEY) == target:
        return card
    lines = body.splitlines(keepends=True)
    start, end = len(lines), len(lines)
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            if key.value == KEY:
                start, end = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
    elif node is not None:
        raise _uneditable()
    new = "".join([*lines[:start], f"{KEY}: {target}{newline}", *lines[end:]])
    try:
        after = yaml.safe_load(new)
    except yaml.YAMLError:
        raise _uneditable() from None
    if after != {**before, KEY: target}:
        raise _uneditable()
    return (text[: front.start(2)] + new + text[front.end(2) :]).encode()


def _uneditable() -> InputError:
    return InputError(
        "the base's model card has front matter that can't be edited safely",
        remedy=f"set {KEY} in it by hand",
    )
