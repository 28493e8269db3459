"""What is done to the images of a training batch."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gencls.core import seeded
from gencls.zoo.training.views.adversarial import Adversarial
from gencls.zoo.training.views.perturbations import AddedNoise, Composed, Plain
from gencls.zoo.training.views.random_views import RandomViews


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def test_noise_stays_in_the_box():
    images, labels = torch.full((8, 1, 8, 8), 0.5), torch.zeros(8, dtype=torch.int64)
    noisy = AddedNoise(0.1)(nn.Identity(), images, labels, epoch=0.0)
    assert float(noisy.std()) == pytest.approx(0.1, abs=0.01)
    noisy = AddedNoise(2.0)(nn.Identity(), images, labels, epoch=0.0)
    assert (float(noisy.min()), float(noisy.max())) == (0.0, 1.0)
    assert repr(AddedNoise(0.2)) == "GaussianNoise(sigma=0.2, clip=True)"  # the words of the cards
    noisy = AddedNoise(2.0, clip=False)(nn.Identity(), images, labels, epoch=0.0)
    assert float((noisy - images).std()) == pytest.approx(2.0, rel=0.1)
    assert Plain()(nn.Identity(), images, labels, epoch=0.0) is images


def test_views_move_turn_and_light_images_but_little():
    still = RandomViews(sigma=0.0, shift=0.0, degrees=0.0, scale=0.0, light=0.0)
    images = torch.rand(6, 3, 16, 16)
    labels = torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(still(nn.Identity(), images, labels, epoch=0.0), images)  # the identity, interpolated
    lit = replace(still, light=0.2)(nn.Identity(), 0.2 + 0.3 * images, labels, epoch=0.0)  # far from the box: nothing is cut
    level, new = (0.2 + 0.3 * images).mean(dim=(1, 2, 3)), lit.mean(dim=(1, 2, 3))
    assert (new / level).log().abs().max() <= 0.2 + 1e-5
    assert (new / level).log().abs().max() > 0.02
    contrast = (lit - new.view(-1, 1, 1, 1)) / (0.2 + 0.3 * images - level.view(-1, 1, 1, 1))
    spread = contrast.flatten(1).median(dim=1, keepdim=True).values
    assert (contrast.flatten(1) / spread).log().abs().max() < 1e-2  # one factor per image
    assert spread.log().abs().max() <= 0.2 + 1e-2
    assert spread.log().abs().max() > 0.02
    # A pixel 6 right of the centre, turned by up to 30 degrees, stays at its distance; 30 degrees are 3 pixels.
    beside = torch.zeros(500, 1, 17, 17)
    beside[:, :, 8, 14] = 1.0
    turned = replace(still, degrees=30.0)(nn.Identity(), beside, torch.zeros(500, dtype=torch.int64), epoch=0.0)[:, 0]
    line = torch.arange(17.0) - 8
    x, y = ((turned.sum(axis) * line).sum(1) / turned.sum((1, 2)) for axis in (1, 2))
    assert (x.square() + y.square()).sqrt().sub(6).abs().max() < 0.3
    assert 2.7 < float(y.abs().max()) <= 3.2
    # A single bright pixel moves by no more than the shift.
    dot = torch.zeros(500, 1, 17, 17)
    dot[:, :, 8, 8] = 1.0
    moved = replace(still, shift=2.0)(nn.Identity(), dot, torch.zeros(500, dtype=torch.int64), epoch=0.0)[:, 0]
    place = torch.arange(17.0) - 8
    for weights in (moved.sum(1), moved.sum(2)):
        shifts = (weights * place).sum(1) / weights.sum(1)
        assert 1.9 < float(shifts.abs().max()) <= 2.0 + 1e-4


def test_composed_perturbations_follow_each_other():
    class Margin(nn.Module):
        def forward(self, images):
            margin = images.flatten(1).sum(1)
            return torch.stack([margin, -margin], dim=1)

    images, labels = torch.full((50, 1, 8, 8), 0.5), torch.zeros(50, dtype=torch.int64)
    attack = Adversarial(norm="linf", epsilon=0.1, steps=20, step_size=0.05, warmup_epochs=2.0)
    parts = (attack, AddedNoise(0.05, clip=False))
    for epoch, radius in ((1.0, 0.05), (3.0, 0.1)):
        moved = Composed(parts)(Margin(), images, labels, epoch=epoch) - images
        assert float(moved.mean()) == pytest.approx(-radius, abs=0.003)  # three standard errors of 3,200 pixels
        assert float(moved.std()) == pytest.approx(0.05, abs=0.002)
    with seeded(1):
        turned = Composed(parts)(Margin(), images, labels, epoch=3.0)
    with seeded(1):
        adversarial = attack(Margin(), images, labels, epoch=3.0)
        assert torch.equal(turned, adversarial + 0.05 * torch.randn_like(images))
    assert Composed(())(Margin(), images, labels, epoch=0.0) is images
