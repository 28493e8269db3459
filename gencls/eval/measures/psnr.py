"""Peak signal-to-noise ratio: how well images are reconstructed."""

import math

from torch import Tensor

from gencls.core import GenclsError, check_images, checked
from gencls.core.quiet import quiet_import

__all__ = ["PSNR_OF_ROUNDING", "peak_signal_noise_ratio"]

PSNR_OF_ROUNDING = 10 * math.log10(12 * 255**2)
"""The PSNR of an image and its rounding to k/255, about 58.9 dB: the mean squared error of rounding is (1/255)^2 / 12.

Images that are more alike cannot be told apart in 8 bits. It serves as a cap where the ratio of equal images is infinite.
"""


@checked
def peak_signal_noise_ratio(images: Tensor, made: Tensor) -> Tensor:
    """PSNR of each image in dB: -10 log10 of the mean squared difference, infinite for equal images.

    It is no distance (larger is more alike), but orders images as :class:`gencls.perceptual.SquaredL2` does. torchmetrics
    computes it.

    Args:
        images: (N, C, H, W) in [0, 1].
        made: their reconstructions, (N, C, H, W) in [0, 1].

    Returns:
        One ratio per image, (N,).

    Raises:
        GenclsError: one of the two is no batch of images, or the shapes differ.
    """
    check_images(images)
    check_images(made, channels=images.shape[1], name="made")
    if images.shape != made.shape:
        raise GenclsError(f"made: expected the shape of the images, {tuple(images.shape)}, got {tuple(made.shape)}")
    with quiet_import():
        from torchmetrics.functional.image import peak_signal_noise_ratio as ratio

    found: Tensor = ratio(made, images, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return found
