"""GUIDE after GUIDE, each from where the one before ended: nothing keeps the earlier people erased."""

from __future__ import annotations

from guide_hub.modes.base import Mode


class Chain(Mode):
    """The honest baseline; `Mode` is all of it."""
