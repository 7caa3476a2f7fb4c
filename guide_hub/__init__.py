"""guide-hub: take a person out of a face generator.

`EG3D` is the generator, `erase` the whole job. Both load torch only when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guide_hub.version import __version__

if TYPE_CHECKING:
    from guide_hub.eg3d import EG3D
    from guide_hub.pipeline import erase

__all__ = ["EG3D", "__version__", "erase"]


def __getattr__(name: str) -> Any:
    if name == "EG3D":
        from guide_hub.eg3d import EG3D

        return EG3D
    if name == "erase":
        from guide_hub.pipeline import erase

        return erase
    raise AttributeError(f"module 'guide_hub' has no attribute {name!r}")
