"""The augmentation of the MLVGM paper's classifiers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.settings import check_settings

_LUMA = (0.299, 0.587, 0.114)
_LARGEST_RATIO = math.log(4 / 3)


@dataclass(frozen=True)
class PhotoViews:
    """Each photo is mirrored or not, cut and enlarged again, lit, equalised and made grey in its own way, in this order.

    Source: public code of the MLVGM paper (Serez et al., WACV 2025), which gives the defaults. It has kornia's transforms, here
    are torchvision's. We read brightness and contrast as torchvision's ``ColorJitter`` does, as ranges of a factor. The code
    leaves open whether its 0.3 is such a range or a probability.

    Attributes:
        flip: probability of mirroring left and right.
        area: least share of the area that remains, in (0, 1]; the largest is 1. The ratio of the sides changes by at most 4/3.
        brightness: half width of the range of the brightness factor: uniform in 1 - brightness to 1 + brightness.
        contrast: half width of the range of the contrast factor, which multiplies the distance from the photo's mean grey.
        equalize: probability of equalising the histograms of the channels, in 8 bits.
        gray: probability of turning the photo grey.
    """

    flip: float = 0.5
    area: float = 0.75
    brightness: float = 0.3
    contrast: float = 0.3
    equalize: float = 0.3
    gray: float = 0.1

    def __post_init__(self) -> None:
        check_settings(self)
        shares = self.flip, self.brightness, self.contrast, self.equalize, self.gray
        if min(shares) < 0 or max(shares) > 1 or not 0 < self.area <= 1:
            raise GenclsError(f"PhotoViews: expected area in (0, 1] and the others in [0, 1], got {self}")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`gencls.zoo.training.views.perturbations.Perturbation`; images are (N, 3, H, W), and end in [0, 1]."""
        if images.shape[1] != 3:
            raise GenclsError(f"PhotoViews: expected images (N, 3, H, W), got {tuple(images.shape)}")
        draws = torch.rand(9, len(images), device=images.device).unbind()
        views = self._cut(images, *draws[:5])
        views = (views * _factor(self.brightness, draws[5])).clamp(0.0, 1.0)
        mean = _grey(views).mean(dim=(1, 2, 3), keepdim=True)
        views = (mean + (views - mean) * _factor(self.contrast, draws[6])).clamp(0.0, 1.0)
        views = _where(draws[7] < self.equalize, _equalized, views)
        return _where(draws[8] < self.gray, lambda chosen: _grey(chosen).expand_as(chosen), views)

    def _cut(self, images: Tensor, mirror: Tensor, area: Tensor, ratio: Tensor, right: Tensor, down: Tensor) -> Tensor:
        """Mirror photos, cut out a part of each, and enlarge it to the photo's size; draws are uniform in [0, 1)."""
        kept = self.area + (1 - self.area) * area
        # A part of this area lies within the photo if the logarithm of its ratio is at most that of 1 / area.
        bend = (0.5 * (2 * ratio - 1) * kept.log().neg().clamp(max=_LARGEST_RATIO)).exp()
        width, height = kept.sqrt() * bend, kept.sqrt() / bend
        sign = 1 - 2 * (mirror < self.flip).to(images.dtype)
        none = torch.zeros_like(width)
        rows = [(sign * width, none, (1 - width) * (2 * right - 1)), (none, height, (1 - height) * (2 * down - 1))]
        where = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), list(images.shape), align_corners=False)
        return F.grid_sample(images, where, padding_mode="border", align_corners=False)


FLIPS = PhotoViews(area=1.0, brightness=0.0, contrast=0.0, equalize=0.0, gray=0.0)
"""Photos and their mirror images: twice as many for a generator."""


def _factor(width: float, draws: Tensor) -> Tensor:
    """Map draws (N,), uniform in [0, 1), to factors uniform in 1 - width to 1 + width, (N, 1, 1, 1)."""
    return (1 + width * (2 * draws - 1)).view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    """Turn photos (N, 3, H, W) grey, (N, 1, H, W)."""
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _equalized(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    equalized: Tensor = functional.equalize((images * 255).round().to(torch.uint8))
    return equalized.to(images.dtype) / 255


def _where(chosen: Tensor, change: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Change the chosen images, (N,) bool, and leave the others."""
    if not chosen.any():
        return images
    changed = images.clone()
    changed[chosen] = change(images[chosen])
    return changed
