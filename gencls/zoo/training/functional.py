"""Formulas that several trainings share."""

import torch
from torch import Tensor, nn

__all__ = ["divergence", "move_average", "squared_error"]


def squared_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """c(x, G(z)) = ||x - G(z)||_2^2, summed over channels and pixels: (..., C, H, W) to (...), broadcasting."""
    return (images - reconstructions).square().sum(dim=(-3, -2, -1))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL[N(mean, variance) || N(0, 1)] of diagonal Gaussians: (N, d) to (N,)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1)


def move_average(average: nn.Module, current: nn.Module, *, decay: float) -> None:
    """A <- decay * a + (1 - decay) * w for all parameters of two networks of the same kind.

    Args:
        average: holds a.
        current: holds w.
        decay: in [0, 1].
    """
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(parameter, 1 - decay)
