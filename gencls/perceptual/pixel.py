"""Distances on raw pixels, in [0, 1] units, summed (not averaged) over the pixels of an image."""

import torch
from torch import Tensor

from gencls.core import Embedding, ImageDistance
from gencls.perceptual.shapes import check_one_shape

__all__ = ["L1", "L2", "Linf", "SquaredL2"]


class _Pixel(ImageDistance):
    def embed(self, images: Tensor) -> Embedding:
        """The embedding of images: the images themselves."""
        return (images,)

    def _difference(self, first: Embedding, second: Embedding) -> Tensor:
        """First images minus second ones, (..., C, H, W)."""
        check_one_shape(self, first, second, "images (C, H, W)")
        return first[0] - second[0]


class SquaredL2(_Pixel):
    """The squared L2 distance ||a - b||_2^2: the reconstruction cost c(a, b) of ABS and E-ABS (thesis, section 2.2)."""

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Squared distances >= 0, over the leading dimensions of both."""
        return self._difference(first, second).square().flatten(-3).sum(-1)


class L2(_Pixel):
    """The L2 distance ||a - b||_2; its gradient at equal images is defined as 0."""

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        distances: Tensor = torch.linalg.vector_norm(self._difference(first, second).flatten(-3), dim=-1)
        return distances


class L1(_Pixel):
    """The L1 distance ||a - b||_1."""

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        return self._difference(first, second).abs().flatten(-3).sum(-1)


class Linf(_Pixel):
    """The Linf distance max |a - b|."""

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances in [0, 1], over the leading dimensions of both."""
        return self._difference(first, second).abs().flatten(-3).amax(-1)
