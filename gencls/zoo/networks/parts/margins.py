"""Images in the middle of larger ones, for networks that work at another size than that of the images."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

Margins = tuple[int, int, int, int]
"""Pixels on the left and on the right, above and below."""


def central_margins(size: Sequence[int], larger: Sequence[int]) -> Margins:
    """Around images of size (H, W) in the middle of larger ones; the odd pixel is on the right and below."""
    down, across = (outer - inner for inner, outer in zip(size, larger, strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2


def pad(images: Tensor, margins: Margins, *, value: float) -> Tensor:
    """Images (N, C, H, W) with margins of this value."""
    return F.pad(images, margins, value=value)


def crop(images: Tensor, margins: Margins) -> Tensor:
    """The inverse of :func:`pad`."""
    left, right, top, bottom = margins
    height, width = images.shape[-2:]
    return images[..., top : height - bottom, left : width - right]
