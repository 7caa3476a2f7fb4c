"""Is the person really gone? Attacks on an erased model, one module each (shared seam: `base`).

`ATTACKS` names them. Nothing here imports torch before an attack is run.
"""

from __future__ import annotations

from guide_hub.attacks.registry import ATTACKS, GATING, chosen, names, quick_names

__all__ = ["ATTACKS", "GATING", "chosen", "names", "quick_names"]
