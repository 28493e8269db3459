"""A-VAE's purification: the nearest of many realisations, found by hand."""

import math

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.defenses import AVAEPurification, NDVAEPurification
from tests.toys import NoisyRows


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(4, 1, 5, 6, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_nearest_realisation_is_taken(images, temperature):
    network = NoisyRows(sigma=0.05)
    with seeded(7):
        found = AVAEPurification(network, realisations=9, temperature=temperature, per_pass=9)(images)
    with seeded(7):
        noise = torch.randn(4 * 9, 1, 5, 6, dtype=torch.float64).view(4, 9, 1, 5, 6)
    (code,) = network.encode(images)
    made = code.unsqueeze(1) + temperature * 0.05 * noise
    nearest = torch.stack(
        [torch.stack([(one - x).norm() for one in some]).argmin() for some, x in zip(made, images, strict=True)]
    )
    torch.testing.assert_close(found, made[torch.arange(4), nearest], rtol=0, atol=1e-12)


def test_more_realisations_come_nearer(images):
    network = NoisyRows(sigma=0.2)
    distances = []
    for realisations in (1, 4, 64, 128):
        with seeded(0):
            found = AVAEPurification(network, realisations=realisations)(images)
        distances.append(float((found - images).square().sum()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.8 * distances[0]


def test_the_gradient_is_that_of_the_chosen_realisation(images):
    defense = AVAEPurification(NoisyRows(sigma=0.05), realisations=9)
    attacked, upstream = images.clone().requires_grad_(), torch.randn_like(images)
    (gradient,) = torch.autograd.grad(defense(attacked), attacked, upstream)
    expected = 0.5 * upstream + 0.5 * upstream.mean(dim=3, keepdim=True)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    (identity,) = torch.autograd.grad(defense.surrogate("bpda")(attacked), attacked, upstream)
    assert torch.equal(identity, upstream)


def test_what_the_papers_do():
    network = NoisyRows()
    published, compared = AVAEPurification.of_paper(network), AVAEPurification.of_paper(network, as_="mlvgm")
    assert (published.realisations, published.temperature) == (128, 1.0)
    assert (compared.realisations, compared.temperature) == (1, 0.6)
    with pytest.raises(GenclsError, match="expected as_ among a-vae, mlvgm, got 'paper'"):
        AVAEPurification.of_paper(network, as_="paper")


def test_bad_settings():
    with pytest.raises(GenclsError, match="expected realisations and per_pass >= 1 and temperature >= 0, got 0, 16"):
        AVAEPurification(NoisyRows(), realisations=0)
    with pytest.raises(GenclsError, match="expected temperature to be a finite number, got inf"):
        AVAEPurification(NoisyRows(), temperature=math.inf)
    with pytest.raises(GenclsError, match="got 128, 16 and -1"):
        AVAEPurification(NoisyRows(), temperature=-1)


def test_nd_vae_adds_noise_clamps_and_reconstructs_once(images):
    seen = []

    def network(noisy):
        seen.append(noisy)
        return 1 - noisy

    with seeded(3):
        found = NDVAEPurification(network, sigma=0.4)(images)
    with seeded(3):
        expected = (images + 0.4 * torch.randn_like(images)).clamp(0, 1)
    assert len(seen) == 1
    torch.testing.assert_close(found, 1 - expected, rtol=0, atol=1e-12)
    assert torch.equal(NDVAEPurification(network, sigma=0)(images), 1 - images)
    for sigma, message in ((-0.1, "expected sigma >= 0 .*, got"), (math.inf, "expected sigma to be a finite number, got")):
        with pytest.raises(GenclsError, match=message):
            NDVAEPurification(network, sigma=sigma)
