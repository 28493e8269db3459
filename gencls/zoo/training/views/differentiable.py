"""Differentiable augmentation of a GAN's real and generated images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.settings import check_settings


@dataclass(frozen=True)
class DifferentiableAugmentation:
    """T(x): changes of colour, a translation and a cutout, drawn for each image; differentiable in the image.

    Colours: brightness (+ u / 2), saturation (times 2 u') and contrast (times u'' + 1/2), u in [-1/2, 1/2], u' and u'' in
    [0, 1]. Grey images keep their brightness, because their black background carries no colour. What is uncovered or cut out is
    0, which is black; the paper's images are in [-1, 1], where 0 is grey.

    Source: Zhao et al. 2020, arXiv:2006.10738, section 4 and appendix.

    Attributes:
        translation: largest shift, as a share of the size, in [0, 1).
        cutout: side of the square that is cut out, as a share of the size, in [0, 1); 0 cuts out nothing.
        colour: whether the colours of images with three channels change.
    """

    translation: float = 0.125
    cutout: float = 0.5
    colour: bool = True

    def __post_init__(self) -> None:
        check_settings(self)
        if not (0 <= self.translation < 1 and 0 <= self.cutout < 1):
            raise GenclsError(
                "DifferentiableAugmentation: expected translation and cutout in [0, 1), got "
                f"{self.translation} and {self.cutout}"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Change images (N, C, H, W) in [0, 1]; colours may leave the range."""
        if self.colour and images.shape[1] == 3:
            images = _recoloured(images)
        if self.translation > 0:
            images = _shifted(images, self.translation)
        return images * _holes(images, self.cutout) if self.cutout > 0 else images


def _uniform(images: Tensor) -> Tensor:
    """One number in [0, 1) for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def _recoloured(images: Tensor) -> Tensor:
    images = images + (_uniform(images) - 0.5) / 2
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * _uniform(images))
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, 0.5 + _uniform(images))


def _shifted(images: Tensor, share: float) -> Tensor:
    """Move each image by a whole number of pixels in both directions."""
    height, width = images.shape[2:]
    most = round(height * share), round(width * share)
    rows, columns = (
        torch.arange(size, device=images.device) + torch.randint(2 * reach + 1, (len(images), 1), device=images.device)
        for size, reach in zip((height, width), most, strict=True)
    )
    padded = F.pad(images, (most[1], most[1], most[0], most[0]))
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _holes(images: Tensor, share: float) -> Tensor:
    """0 on a square of each image and 1 elsewhere, (N, 1, H, W). The square may reach over the margin."""
    masks = []
    for size in images.shape[2:]:
        side = round(size * share)
        centre = torch.randint(size + (1 - side % 2), (len(images), 1), device=images.device)
        offset = torch.arange(size, device=images.device) - centre + side // 2
        masks.append((offset >= 0) & (offset < side))
    hole = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return (~hole).to(images.dtype)
