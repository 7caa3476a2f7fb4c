"""A person's photos to latents of one model, and whether the model shows that person."""

from __future__ import annotations

from guide_hub.inversion.inverter import Inversion, Inverter
from guide_hub.inversion.person import Person, fitted_of, invert_person
from guide_hub.inversion.projector import Schedule, refine, refine_person
from guide_hub.inversion.quality import Quality, measure_quality

__all__ = [
    "Inversion",
    "Inverter",
    "Person",
    "Quality",
    "Schedule",
    "fitted_of",
    "invert_person",
    "measure_quality",
    "refine",
    "refine_person",
]
