"""A person's photos to latents of one model."""

from guide_hub.inversion.inverter import Inversion, Inverter
from guide_hub.inversion.projector import refine

__all__ = ["Inversion", "Inverter", "refine"]
