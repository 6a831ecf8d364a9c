"""What methods stand on: the detector's contract, settings, losses, the latent search."""

from tfgad.core.detector import Detector
from tfgad.core.registry import register

__all__ = ["Detector", "register"]
