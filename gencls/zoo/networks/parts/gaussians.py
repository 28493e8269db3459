"""Densities and divergences of Gaussians with diagonal covariance."""

import math

from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL[N(mean, variance) || N(0, 1)] of diagonal Gaussians: (N, d) to (N,), in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1)


def log_density(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Densities N(values; mean, variance) of each number, as logarithms; the shapes broadcast."""
    standard = (values - mean) * (-0.5 * log_variance).exp()  # the square of the quotient overflows at smaller variances
    return -0.5 * (standard.square() + log_variance + math.log(2.0 * math.pi))
