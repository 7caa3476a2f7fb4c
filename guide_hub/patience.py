"""Trying again where the Hub is busy.

The client itself tries downloads, uploads and most listings again, with back-off. It asks everything else
once: who the token belongs to, what a repository is, access, refs, squash, deletions, and the commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError

T = TypeVar("T")

WAITS = (1.0, 3.0, 9.0)  # seconds before the second, third and fourth try
PATIENCE = 120  # seconds that the Hub may ask for
PASSING = (408, 429, 502, 503, 504)
BROKEN = ("ReadTimeout", "WriteTimeout", "PoolTimeout", "ReadError", "WriteError", "RemoteProtocolError")


def patiently(ask: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """`ask(*arguments, **options)`, up to four times where the Hub is busy or the connection breaks.

    For questions, and for what can be done twice. A Hub that can't be reached at all is not waited for.
    """
    waits = iter(WAITS)
    while True:
        try:
            return ask(*arguments, **options)
        except HTTPError as error:
            wait_for(error, waits)


def all_of(ask: Callable[..., Iterable[T]], *arguments: Any, **options: Any) -> list[T]:
    """A whole listing, patiently; the client's own patience starts at the second page in 1.x."""
    return patiently(lambda: [*ask(*arguments, **options)])


def wait_for(error: HTTPError, waits: Iterator[float]) -> None:
    """Sleeps before the next try, as long as the Hub asks for; raises `error` where waiting does not help."""
    if isinstance(error, HfHubHTTPError):
        asked = error.response.headers.get("Retry-After", "")
        passes = error.response.status_code in PASSING
    else:
        asked, passes = "", type(error).__name__ in BROKEN
    wait = next(waits, None) if passes else None
    if wait is None or (asked.isdigit() and int(asked) > PATIENCE):
        raise error
    time.sleep(max(wait, float(asked) if asked.isdigit() else 0.0))
