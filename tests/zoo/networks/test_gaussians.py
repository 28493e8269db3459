"""Formulas of diagonal Gaussians against torch.distributions."""

import torch
from torch.distributions import Normal, kl_divergence

from gencls.zoo.networks.parts.gaussians import divergence, log_density


def test_divergences_against_torch() -> None:
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_densities_against_torch() -> None:
    values, mean, log_variance = torch.randn(4, 1, 5), torch.randn(3, 5), torch.randn(3, 5)
    expected = Normal(mean, (log_variance / 2).exp()).log_prob(values)
    assert expected.shape == (4, 3, 5)
    torch.testing.assert_close(log_density(values, mean, log_variance), expected)


def test_a_density_of_a_tiny_variance_stays_finite() -> None:
    """The inverse of this variance is infinite in float32."""
    mean, log_variance = torch.zeros(1), torch.tensor([-100.0])
    found = log_density(mean, mean, log_variance)
    torch.testing.assert_close(found, Normal(mean, (log_variance / 2).exp()).log_prob(mean))
