"""Image distances, one per file."""

from gencls.perceptual.pixel import L1, L2, Linf, SquaredL2

__all__ = ["L1", "L2", "Linf", "SquaredL2"]
