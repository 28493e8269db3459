"""Draws from the posterior of codes."""

import torch

from gencls.zoo.networks import CodePosterior


def test_draws_have_mean_and_variance() -> None:
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -3.0]])
    count = 20_000
    draws = CodePosterior(mean.expand(count, -1), log_variance.expand(count, -1)).sample()
    deviation = (0.5 * log_variance[0]).exp()
    # Five standard errors of a mean and of a standard deviation of so many normal numbers.
    assert ((draws.mean(0) - mean[0]).abs() < 5 * deviation / count**0.5).all()
    assert ((draws.std(0) / deviation - 1).abs() < 5 / (2 * count) ** 0.5).all()


def test_gradients_reach_mean_and_variance() -> None:
    mean, log_variance = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    draws = CodePosterior(mean, log_variance).sample()
    gradients = torch.autograd.grad(draws.sum(), (mean, log_variance))
    torch.testing.assert_close(gradients[0], torch.ones(3, 2))
    torch.testing.assert_close(gradients[1], 0.5 * (draws - mean).detach())  # d sigma / d log sigma^2 = sigma / 2


def test_a_deterministic_encoder_draws_its_mean() -> None:
    mean = torch.randn(3, 2)
    state = torch.get_rng_state()
    assert CodePosterior(mean).sample() is mean
    assert torch.equal(torch.get_rng_state(), state)
