"""Images in the middle of larger ones, for networks that work at a larger size than the images'."""

from collections.abc import Sequence

from torch import Tensor

Margins = tuple[int, int, int, int]
"""Pixels on the left and on the right, above and below, as torch pads them."""


def central_margins(size: Sequence[int], larger: Sequence[int]) -> Margins:
    """Margins around images of size (H, W) in the middle of larger ones; the odd pixel is on the right and below."""
    down, across = (outer - inner for inner, outer in zip(size, larger, strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2


def crop(images: Tensor, margins: Margins) -> Tensor:
    """Images (N, C, H, W) without their margins: the inverse of :func:`torch.nn.functional.pad`."""
    left, right, top, bottom = margins
    height, width = images.shape[-2:]
    return images[..., top : height - bottom, left : width - right]
