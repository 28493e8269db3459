"""Image distances, one per file."""

from gencls.perceptual.combined import Combined
from gencls.perceptual.dists import DISTS
from gencls.perceptual.elpips import ELPIPS
from gencls.perceptual.features import FeatureDistance
from gencls.perceptual.lpips import LPIPS
from gencls.perceptual.pixel import L1, L2, Linf, SquaredL2
from gencls.perceptual.similarity import MSSSIM, SSIM
from gencls.perceptual.titles import title_of

__all__ = [
    "DISTS",
    "ELPIPS",
    "L1",
    "L2",
    "LPIPS",
    "MSSSIM",
    "SSIM",
    "Combined",
    "FeatureDistance",
    "Linf",
    "SquaredL2",
    "title_of",
]
