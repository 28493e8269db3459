"""The usual augmentation of CIFAR10."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.settings import check_settings


@dataclass(frozen=True)
class PaddedCrops:
    """Each image gets a black border, is cut to its size again at a random place, and is mirrored or not.

    Source: He et al. 2016, arXiv:1512.03385, section 4.2.

    Attributes:
        padding: width of the border in pixels, >= 0.
        flip: probability of mirroring left and right, in [0, 1].
    """

    padding: int = 4
    flip: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self)
        if self.padding < 0 or not 0 <= self.flip <= 1:
            raise GenclsError(f"PaddedCrops: expected padding >= 0 and flip in [0, 1], got {self.padding} and {self.flip}")

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        count, _, height, width = images.shape
        down, right = torch.randint(2 * self.padding + 1, (2, count, 1), device=images.device)
        rows = down + torch.arange(height, device=images.device)
        columns = right + torch.arange(width, device=images.device)
        columns = torch.where(torch.rand(count, 1, device=images.device) < self.flip, columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4).permute(0, 2, 3, 1)
        numbers = torch.arange(count, device=images.device).view(-1, 1, 1)
        return padded[numbers, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
