"""Structural similarity as a distance."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from gencls.core import Embedding, GenclsError, ImageDistance, checked
from gencls.core.quiet import quiet_import
from gencls.perceptual.shapes import check_one_shape

__all__ = ["MSSSIM", "SSIM"]


class _Similarity(ImageDistance):
    """1 - a similarity that is 1 for equal images; torchmetrics computes it, image by image."""

    def embed(self, images: Tensor) -> Embedding:
        """The embedding of images: the images themselves."""
        return (images,)

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances in [0, 2], over the leading dimensions of both."""
        check_one_shape(self, first, second, "images (C, H, W)")
        both = torch.broadcast_tensors(first[0], second[0])
        rows = [images.reshape(-1, *images.shape[-3:]) for images in both]
        smallest = self._smallest()
        if min(rows[0].shape[-2:]) < smallest:
            raise GenclsError(
                f"{type(self).__name__}: expected images of at least {smallest} x {smallest} pixels, got "
                f"{rows[0].shape[-2]} x {rows[0].shape[-1]}"
            )
        distances: Tensor = 1 - self._similarity(*rows)
        return distances.view(both[0].shape[:-3])

    @abstractmethod
    def _similarity(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarities (N,)."""

    @abstractmethod
    def _smallest(self) -> int:
        """Height and width of the smallest images."""


class SSIM(_Similarity):
    """1 - SSIM, the structural similarity of patches: means, variances and covariances under a Gaussian window.

    Source: Wang et al. 2004, IEEE TIP 13(4), eq. 13, with its constants 0.01 and 0.03, as torchmetrics computes it.

    Args:
        sigma: standard deviation of the window in pixels; the window has 2 round(3.5 sigma) + 1 pixels a side.

    Raises:
        GenclsError: sigma is not positive, or images are not larger than half the window.
    """

    @checked
    def __init__(self, *, sigma: float = 1.5) -> None:
        super().__init__()
        self.sigma = _positive("SSIM", sigma)

    def extra_repr(self) -> str:
        """The setting."""
        return f"sigma={self.sigma}"

    def _smallest(self) -> int:
        return _margin(self.sigma) + 1

    def _similarity(self, first: Tensor, second: Tensor) -> Tensor:
        with quiet_import():
            from torchmetrics.functional.image import structural_similarity_index_measure

        found = structural_similarity_index_measure(first, second, sigma=self.sigma, data_range=1.0, reduction="none")
        return cast(Tensor, found).view(len(first))


class MSSSIM(_Similarity):
    """1 - MS-SSIM: contrast and structure at several scales, luminance at the coarsest, multiplied with exponents.

    Source: Wang, Simoncelli and Bovik 2003, as torchmetrics computes it: factors below 0 count as 0. The gradient of such a
    pair is 0.

    Args:
        betas: the exponents, from the finest scale to the coarsest, each half as large as the one before. The five of the paper
            need images of at least 176 x 176 pixels; three, such as (0.3, 0.4, 0.3), 44 x 44.
        sigma: standard deviation of the window in pixels.

    Raises:
        GenclsError: an exponent or sigma is not positive, or images are too small for as many scales.
    """

    @checked
    def __init__(self, *, betas: Sequence[float] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), sigma: float = 1.5) -> None:
        super().__init__()
        if not betas or min(betas) <= 0:
            raise GenclsError(f"MSSSIM: expected betas > 0, got {tuple(betas)}")
        self.betas, self.sigma = tuple(betas), _positive("MSSSIM", sigma)

    def extra_repr(self) -> str:
        """The settings."""
        return f"betas={self.betas}, sigma={self.sigma}"

    def _smallest(self) -> int:
        scales = len(self.betas)
        return max(1 << scales, (2 * _margin(self.sigma) + 1) * max(1, scales - 1) ** 2)

    def _similarity(self, first: Tensor, second: Tensor) -> Tensor:
        found = self._product(first, second)
        lost = (found <= 0).detach()
        if not (found.requires_grad and bool(lost.any())):
            return found
        # The root of a factor that counts as 0 has no gradient: equal images stand in for such a pair.
        keep = second.detach()
        first, second = (images.where(~lost[:, None, None, None], keep) for images in (first, second))
        return self._product(first, second).where(~lost, found.detach())

    def _product(self, first: Tensor, second: Tensor) -> Tensor:
        with quiet_import():
            from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

        window = 2 * _margin(self.sigma) + 1
        found: Tensor = similarity(
            first, second, sigma=self.sigma, kernel_size=window, betas=self.betas, data_range=1.0, reduction="none"
        )
        return found.view(len(first))


def _positive(owner: str, sigma: float) -> float:
    if sigma <= 0:
        raise GenclsError(f"{owner}: expected sigma > 0, got {sigma}")
    return sigma


def _margin(sigma: float) -> int:
    """Pixels on each side of the window's middle, as torchmetrics has them."""
    return int(3.5 * sigma + 0.5)
