"""Gaussian noise and Gaussian blur in front of a classifier: the simplest transforms, and baselines for every purifier."""

import torch
from torch import Tensor
from torch.nn import functional

from gencls.core import GenclsError, Transform, checked

__all__ = ["FixedLengthNoise", "GaussianBlur", "GaussianNoise"]


class GaussianNoise(Transform):
    """x + n with n ~ N(0, sigma^2 I), fresh for every forward and sample, clamped to [0, 1].

    Source: the base of randomized smoothing (Cohen et al. 2019, arXiv:1902.02918), here without its vote.
    """

    stochastic = True
    _shown = ("sigma",)

    @checked
    def __init__(self, sigma: float) -> None:
        """Take the standard deviation ``sigma`` > 0 in [0, 1] pixel units.

        Raises:
            GenclsError: for a sigma that is not positive and finite.
        """
        super().__init__()
        if sigma <= 0:
            raise GenclsError(f"GaussianNoise: expected sigma > 0 in [0, 1] pixel units, got {sigma}")
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images, same shape, in [0, 1]."""
        return (images + self.sigma * torch.randn_like(images)).clamp(0.0, 1.0)


class FixedLengthNoise(Transform):
    """x + length * n / ||n||_2 with n ~ N(0, I) of the image's shape, fresh for every forward and sample, clamped to [0, 1].

    Before the clamp the noise has exactly this length, afterwards at most.

    Source: preprocessing of the MLVGM paper (supplement, appendix D; Serez et al., WACV 2025), with lengths 4, 2 and 4.
    """

    stochastic = True
    _shown = ("length",)

    @checked
    def __init__(self, length: float) -> None:
        """Take the L2 ``length`` > 0 in [0, 1] pixel units.

        Raises:
            GenclsError: for a length that is not positive and finite.
        """
        super().__init__()
        if length <= 0:
            raise GenclsError(f"FixedLengthNoise: expected an L2 length > 0 in [0, 1] pixel units, got {length}")
        self.length = length

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images, same shape, in [0, 1]."""
        noise = torch.randn_like(images)
        norms: Tensor = noise.flatten(1).double().norm(dim=1)  # in float32 the norm of a large image comes out short
        scale = (self.length / norms).to(images.dtype).view(-1, 1, 1, 1)
        return (images + scale * noise).clamp(0.0, 1.0)


class GaussianBlur(Transform):
    """Convolution with a normalised Gaussian kernel, reflected at the borders.

    The preprocessing of the MLVGM paper (section 3) uses sigma = 1.
    """

    kernel: Tensor
    _shown = ("sigma", "radius")

    @checked
    def __init__(self, sigma: float, *, radius: int | None = None) -> None:
        """Make the kernel.

        Args:
            sigma: standard deviation in pixels, in [1e-6, 1e4].
            radius: pixels on each side, >= 1: the kernel has 2 * radius + 1 taps. None takes 3 * sigma rounded up; the weights
                beyond are < 1 %.

        Raises:
            GenclsError: for a sigma outside this range, or a radius below 1.
        """
        super().__init__()
        if not 1e-6 <= sigma <= 1e4 or (radius is not None and radius < 1):
            raise GenclsError(
                f"GaussianBlur: expected sigma in [1e-6, 1e4] and radius >= 1, got sigma={sigma}, radius={radius}"
            )
        self.sigma = sigma
        self.radius = radius if radius is not None else int(-(-3 * sigma // 1))
        taps = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        weights = torch.exp(-0.5 * (taps / sigma).square())
        self.register_buffer("kernel", weights / weights.sum())

    def forward(self, images: Tensor) -> Tensor:
        """Blurred images, same shape, in [0, 1].

        Raises:
            GenclsError: for images not larger than the kernel's radius.
        """
        channels, height, width = images.shape[1:]
        if min(height, width) <= self.radius:
            raise GenclsError(
                f"GaussianBlur: expected images larger than the kernel radius {self.radius}, got {height} x {width}"
            )
        kernel = self.kernel.to(images.dtype).expand(channels, 1, -1)
        padded = functional.pad(images, [self.radius] * 4, mode="reflect")
        rows = functional.conv2d(padded, kernel.unsqueeze(2), groups=channels)
        return functional.conv2d(rows, kernel.unsqueeze(3), groups=channels).clamp(0.0, 1.0)
