"""Threat models: what an adversary may change."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gencls.core import GenclsError, check_settings

__all__ = ["TOLERANCE", "Norm", "ThreatModel"]

Norm = Literal["linf", "l2"]

TOLERANCE = 1e-6
"""By how much a distance may exceed epsilon through rounding (clipping in float32 exceeds it by about 2e-8)."""


@dataclass(frozen=True)
class ThreatModel:
    """An Lp ball around the clean image, within [0, 1].

    Attributes:
        norm: "linf" or "l2", in [0, 1] pixel units over the whole image.
        epsilon: radius of the ball; None asks for the smallest perturbation that succeeds.
        targeted: whether success means a given class rather than any wrong one.
    """

    norm: Norm
    epsilon: float | None = None
    targeted: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
        if self.epsilon is not None and self.epsilon <= 0:
            raise GenclsError(f"threat model: expected an epsilon > 0 in [0, 1] pixel units, got {self.epsilon}")
        if self.norm == "linf" and self.epsilon is not None and self.epsilon > 1:
            raise GenclsError(f"threat model: expected a linf epsilon in [0, 1] pixel units (8/255, not 8), got {self.epsilon}")

    def check_reach(self, images: Tensor) -> None:
        """Check that the ball is not larger than the space of such images, (N, C, H, W) in [0, 1].

        Raises:
            GenclsError: for an L2 epsilon above the diagonal of [0, 1]^(C H W): no image can leave such a ball. It was surely
                meant for pixels in 0..255, or for larger images.
        """
        shape = tuple(images.shape[1:])
        diagonal = math.sqrt(math.prod(shape))
        if self.norm == "l2" and self.epsilon is not None and self.epsilon > diagonal * (1 + TOLERANCE):
            raise GenclsError(
                f"threat model: expected a l2 epsilon up to {diagonal:.4g}, the distance of the two farthest images of shape "
                f"{shape} in [0, 1] pixel units, got {self.epsilon:g}, which no image can leave"
            )

    def distance(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Norms of the perturbations: two batches (N, C, H, W) -> (N,), computed in float64."""
        difference = (adversarial.double() - clean.double()).flatten(1)
        return difference.abs().amax(dim=1) if self.norm == "linf" else difference.square().sum(dim=1).sqrt()

    def allows(self, distances: Tensor) -> Tensor:
        """Which distances (N,) lie within the ball, up to :data:`TOLERANCE`."""
        if self.epsilon is None:
            return torch.isfinite(distances)
        return distances <= self.epsilon + TOLERANCE
