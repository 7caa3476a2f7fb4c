"""EG3D, the 3D-aware face generator that GUIDE unlearns from, in pure PyTorch."""

from guide_hub.eg3d.config import EG3DConfig, RenderingConfig
from guide_hub.eg3d.model import EG3D
from guide_hub.eg3d.rendering import RaySampling

__all__ = ["EG3D", "EG3DConfig", "RaySampling", "RenderingConfig"]
