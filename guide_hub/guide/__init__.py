"""GUIDE: generative unlearning for any identity (arXiv 2405.09879)."""

from guide_hub.guide.eraser import Draws, Eraser, Erasure, StepLosses
from guide_hub.guide.target import average_target, ufo_target

__all__ = ["Draws", "Eraser", "Erasure", "StepLosses", "average_target", "ufo_target"]
