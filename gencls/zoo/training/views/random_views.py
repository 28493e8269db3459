"""Small random changes of photos, for small sets of few objects."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.settings import check_settings


@dataclass(frozen=True)
class RandomViews:
    """Each image is moved, turned, scaled and lit a little, then gets Gaussian noise; not in the thesis.

    This is for small sets of photos of few objects: the 5,605 training photos of GTSRB-10 show 653 signs.

    Attributes:
        sigma: standard deviation of the noise, in [0, 1] pixel units; not clipped.
        shift: most pixels that an image moves along each axis.
        degrees: largest rotation, in degrees.
        scale: largest relative change of the size; the ratio of the sides changes by at most half of it.
        light: largest change of the logarithms of contrast and mean.
    """

    sigma: float
    shift: float = 1.0
    degrees: float = 3.0
    scale: float = 0.05
    light: float = 0.2

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        angle, size, ratio, contrast, mean, right, down = (2 * torch.rand(7, len(images), device=images.device) - 1).unbind()
        angle, width = math.radians(self.degrees) * angle, 1 + self.scale * size
        height = width * (1 + 0.5 * self.scale * ratio)
        shifts = (2 * self.shift / images.shape[3] * right, 2 * self.shift / images.shape[2] * down)
        rows = [(width * angle.cos(), -height * angle.sin(), shifts[0]), (width * angle.sin(), height * angle.cos(), shifts[1])]
        where = F.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), list(images.shape), align_corners=False)
        views = F.grid_sample(images, where, padding_mode="border", align_corners=False)
        level = views.mean(dim=(1, 2, 3), keepdim=True)
        lit = (views - level) * _factor(self.light * contrast) + level * _factor(self.light * mean)
        return lit.clamp(0.0, 1.0) + self.sigma * torch.randn_like(lit)


def _factor(logarithms: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return logarithms.exp().view(-1, 1, 1, 1)
