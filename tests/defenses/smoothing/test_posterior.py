"""The posterior of the noise beside closed forms and torch.distributions."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from gencls.core import GenclsError
from gencls.defenses import Posterior, VariationalPosteriorSmoothing
from gencls.defenses.synthesis.posterior import variables
from tests.defenses.smoothing.test_variational import PIXELS, SHAPE, infer, linear, pictures
from tests.toys import Rescaled, small_cnn


@pytest.mark.parametrize("settings", [{"steps": -1}, {"lr": 0.0}])
def test_bad_settings_of_the_posterior(settings):
    with pytest.raises(GenclsError, match="expected steps >= 0 and lr > 0, got"):
        VariationalPosteriorSmoothing(linear(), 2, **settings)
    with pytest.raises(GenclsError, match=r"VariationalPosteriorSmoothing: expected sigma in \(0, 4\] .*got 13.0"):
        VariationalPosteriorSmoothing(linear(), 2, sigma=13.0)
    with pytest.raises(GenclsError, match="draws >= 1"):
        VariationalPosteriorSmoothing(linear(), 2, draws=0)


def test_divergence_of_the_posterior_is_that_of_torch():
    defense = VariationalPosteriorSmoothing(linear(), 2, sigma=0.3)
    mean, log_std = torch.randn(2, 4, 2, *SHAPE, dtype=torch.float64)
    prior = Normal(torch.zeros_like(mean), 0.3)
    expected = kl_divergence(Independent(Normal(0.3 * mean, 0.3 * log_std.exp()), 3), Independent(prior, 3))
    torch.testing.assert_close(defense.divergence((Posterior(mean, log_std),)), expected)


class LogLinear(nn.Module):
    """Scores whose log-softmax is linear in the image for all classes but the last, whose probability is all but one."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randn(2, PIXELS, generator=source, dtype=torch.float64))

    def forward(self, images):
        return torch.cat([images.flatten(1) @ self.weight.T - 60, images.new_zeros(len(images), 1)], dim=1)


def test_the_posterior_of_a_linear_log_probability():
    # max_m sigma w^T m - ||m||^2 / 2 is at m = sigma w with the prior's variance: bound L(x) + sigma^2 ||w||^2 / 2, which is
    # log E_prior exp L: it is tight. Descent with step h leaves (1 - h)^steps of the way.
    network, images = LogLinear(), pictures()
    defense = VariationalPosteriorSmoothing(network, 3, sigma=0.3, steps=12, lr=0.5, draws=4000).eval()
    mean, log_std = variables(infer(defense, images))
    expected = 0.3 * network.weight.view(2, *SHAPE) * (1 - 0.5**12)
    torch.testing.assert_close(mean[:, :2], expected.expand(4, -1, -1, -1, -1), rtol=0, atol=1e-9)
    # t moves by a random slope of mean zero, sigma w n: a tenth or so with one draw a step. The bound suffers by its square.
    fixed = (Posterior(mean, torch.zeros_like(log_std)),)
    best = network(images).log_softmax(1)[:, :2] + 0.5 * (0.3 * network.weight).square().sum(1)
    error = 4 * 0.3 * network.weight.norm(dim=1) / 4000**0.5 + 1e-6
    assert ((defense.log_joint(images, fixed)[:, :2] - best).abs() < error).all()
    assert (defense.log_joint(images, (Posterior(mean, log_std),))[:, :2] < best + error).all()


def test_the_posterior_improves_on_the_prior_and_stays_below_the_probability(digits):
    # log E_prior p bounds every ELBO. Log probabilities have a spread of 1.3 at most: with 4,000 draws a mean of them has the
    # standard error 0.02, a log mean of probabilities 0.03.
    network, images = Rescaled(small_cnn().double(), scale=8.0), digits[0][:6].double()
    defense, prior = (
        VariationalPosteriorSmoothing(network, 4, sigma=0.2, steps=steps, lr=0.1, draws=4000).eval() for steps in (40, 0)
    )
    with torch.no_grad():
        noise = 0.2 * torch.randn(4000, 1, *images.shape[1:], dtype=torch.float64)
        log_probs = network((images + noise).flatten(0, 1)).log_softmax(1).view(4000, 6, 4)
    best = log_probs.logsumexp(0) - math.log(4000)
    found, start = defense(images), prior(images)
    torch.testing.assert_close(start, log_probs.mean(0), rtol=0, atol=4 * 2**0.5 * 0.02)
    assert (found < best + 4 * (0.02**2 + 0.03**2) ** 0.5).all()
    wide = best - start > 0.3
    assert wide.any()
    assert (found - start > 0.5 * (best - start))[wide].all()
