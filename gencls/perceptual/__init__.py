"""Image distances, one per file."""

from gencls.perceptual.pixel import L2, Linf, SquaredL2

__all__ = ["L2", "Linf", "SquaredL2"]
