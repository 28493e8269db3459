"""Image distances, one per file."""

from gencls.perceptual.combined import Combined
from gencls.perceptual.features import FeatureDistance
from gencls.perceptual.lpips import LPIPS
from gencls.perceptual.pixel import L1, L2, Linf, SquaredL2

__all__ = ["L1", "L2", "LPIPS", "Combined", "FeatureDistance", "Linf", "SquaredL2"]
