"""The discretised mixture of logistics against sums, integrals and torch.distributions."""

import pytest
import torch

from gencls.core import GenclsError, keyed
from gencls.zoo.networks import LogisticMixture
from gencls.zoo.networks.nvae.logistic_mixture import mixture_channels

MIXTURES = 3
VALUES = torch.arange(256) / 255


def channels(colours, count=4, size=2):
    """Random output of a network: scales of a few to some hundred of the 256 values."""
    raw = torch.randn(count, mixture_channels(MIXTURES, colours), size, size)
    raw[:, MIXTURES:] *= 0.7
    return raw


def gray(**settings):
    raw = channels(1)
    raw[:, MIXTURES + 1 :: 2] -= 3.0  # log scales
    return LogisticMixture.from_channels(raw, colours=1, **settings)


def at(mixture, pixels):
    """The distributions of pixel (0, 0) of the first image, once for each of the pixels (V, C)."""
    parts = [part[:1, ..., :1, :1].expand(len(pixels), *part.shape[1:-2], 1, 1) for part in (mixture.logits, mixture.means)]
    scales = mixture.log_scales[:1, ..., :1, :1].expand_as(parts[1])
    coefficients = mixture.coefficients
    if coefficients is not None:
        coefficients = coefficients[:1, ..., :1, :1].expand(len(pixels), -1, -1, -1, -1)
    same = LogisticMixture(*parts, scales, coefficients, upper_edge=mixture.upper_edge)
    return same.log_prob(pixels[:, :, None, None]).flatten()


def test_probabilities_of_the_256_values_sum_to_one():
    assert at(gray(), VALUES[:, None]).exp().sum() == pytest.approx(1, abs=1e-4)  # the density stands in at small masses


def test_the_published_edge_counts_254_as_255():
    """So the sum is 1 + p(255)."""
    mixture = gray(upper_edge=0.99)
    exact = LogisticMixture(mixture.logits, mixture.means, mixture.log_scales)
    excess = at(exact, torch.ones(1, 1)).exp().item()
    assert at(mixture, VALUES[:, None]).exp().sum() == pytest.approx(1 + excess, abs=1e-4)
    assert at(mixture, VALUES[254:255, None]) != at(exact, VALUES[254:255, None])


def test_colours_are_a_chain():
    """p(red, green, blue) summed over green and blue is p(red): coefficients shift means only."""
    raw = channels(3)[:1, :, :1, :1]
    raw[:, MIXTURES:].unflatten(1, (MIXTURES, 3, 3))[:, :, 1] -= 1.0
    mixture = LogisticMixture.from_channels(raw, colours=3)
    green, blue = torch.meshgrid(VALUES, VALUES, indexing="ij")
    for red in (0.0, 0.3, 1.0):
        pixels = torch.stack([torch.full_like(green, red), green, blue], dim=-1).view(-1, 3)
        alone = LogisticMixture(mixture.logits, mixture.means[:, :, :1], mixture.log_scales[:, :, :1])
        expected = alone.log_prob(torch.full((1, 1, 1, 1), red)).exp().item()
        assert at(mixture, pixels).exp().sum().item() == pytest.approx(expected, rel=1e-3)


def test_narrow_scales_and_far_pixels_have_finite_values_and_gradients():
    raw = torch.zeros(1, mixture_channels(1, 1), 1, 1)
    raw[:, 1], raw[:, 2] = 0.9, -40.0
    raw.requires_grad_()
    pixels = VALUES.view(-1, 1, 1, 1).clone().requires_grad_()
    mixture = LogisticMixture.from_channels(raw.expand(256, -1, -1, -1), colours=1)
    assert mixture.log_scales.min() == -7
    log_prob = mixture.log_prob(pixels)
    assert log_prob.isfinite().all()
    for gradient in torch.autograd.grad(log_prob.sum(), (raw, pixels)):
        assert gradient.isfinite().all()


def test_the_mean_is_the_integral():
    mixture = gray()
    grid = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    means, scales = mixture.means[0, :, 0, 0, 0].double(), mixture.log_scales[0, :, 0, 0, 0].double().exp()
    standard = (grid[:, None] - means) / scales
    density = (standard.sigmoid() * (-standard).sigmoid() / scales) @ mixture.logits[0, :, 0, 0].double().softmax(0)
    expected = torch.trapezoid(grid * density, grid)
    assert expected.abs() < 1, "nothing is clamped here"
    assert 2 * mixture.mean()[0, 0, 0, 0] - 1 == pytest.approx(expected.item(), abs=1e-4)


def test_the_mean_of_a_clear_choice_follows_the_colours():
    """One mixture: red as it is, green and blue from the clamped colours before."""
    coefficients = torch.tensor([0.5, -0.4, 0.3]).view(1, 1, 3, 1, 1)
    means = torch.tensor([1.7, 0.2, -0.1]).view(1, 1, 3, 1, 1)
    mixture = LogisticMixture(torch.zeros(1, 1, 1, 1), means, torch.zeros_like(means), coefficients)
    green = 0.2 + 0.5 * 1
    expected = torch.tensor([1.0, green, -0.1 - 0.4 * 1 + 0.3 * green])
    torch.testing.assert_close(2 * mixture.mean().flatten() - 1, expected)


def test_samples_have_the_mean_and_the_spread_of_the_mixture():
    mixture = gray()
    one = [part[:1, ..., :1, :1].expand(40_000, *part.shape[1:-2], 1, 1) for part in (mixture.logits, mixture.means)]
    scales = mixture.log_scales[:1, ..., :1, :1].expand_as(one[1])
    drawn = LogisticMixture(*one, scales).sample().flatten()
    probability = at(mixture, VALUES[:, None]).exp().cumsum(0)
    for value in (40, 100, 128, 160, 220):
        share = (drawn <= (value + 0.5) / 255).float().mean().item()
        assert share == pytest.approx(probability[value].item(), abs=0.015)  # six standard deviations of 40,000 draws


def test_samples_are_keyed_by_row():
    raw = channels(3)
    with keyed([1, 2, 3, 4]) as streams:
        together = LogisticMixture.from_channels(raw, colours=3).sample()
    with keyed([3]):
        alone = LogisticMixture.from_channels(raw[2:3], colours=3).sample()
    torch.testing.assert_close(together[2:3], alone)
    assert not streams.shared


def test_both_orders_of_channels():
    raw = channels(3)
    mixture_major = raw[:, MIXTURES:].unflatten(1, (MIXTURES, 3, 3))  # mixture, kind, colour
    colour_major = mixture_major.permute(0, 3, 2, 1, 4, 5).flatten(1, 3)
    first = LogisticMixture.from_channels(raw, colours=3)
    second = LogisticMixture.from_channels(torch.cat([raw[:, :MIXTURES], colour_major], 1), colours=3, order="colour")
    for name in ("logits", "means", "log_scales", "coefficients"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(("colours", "count"), [(3, 31), (1, 4), (3, 0)])
def test_channels_that_cannot_be_divided(colours, count):
    with pytest.raises(GenclsError, match=f"expected a multiple of {mixture_channels(1, colours)} channels .* got {count}"):
        LogisticMixture.from_channels(torch.zeros(1, count, 2, 2), colours=colours)
