"""Noise of growing size: its standard deviations, and that some of it lies within the balls of the tables."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval import GaussianNoiseAttack, GrowingNoise, ThreatModel
from recipes.eabs.settings import BUDGETS, PROFILES
from tests.contracts.linear import run


class NeverWrong(torch.nn.Module):
    """Always sure of class 0; remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, images):
        self.asked.append(images.clone())
        return torch.tensor([[1.0, 0.0]]).expand(len(images), -1) + 0 * images.sum()


def asked(shape, **settings):
    model = NeverWrong()
    images = torch.full((1, *shape), 0.5)
    found = GrowingNoise(ThreatModel("l2"), **settings)(PlainClassifier(model, 2).eval(), images, torch.tensor([0]))
    assert torch.equal(found, images)
    return [image - 0.5 for image in model.asked if not torch.equal(image, images)]


def test_standard_deviations_grow_by_a_factor():
    deviations = [float(noise.std()) for noise in asked((3, 64, 64), smallest=0.001, largest=0.016, sizes=5)]
    # 12,288 numbers: the standard deviation of their standard deviation is 0.6 % of it.
    assert deviations == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016], rel=0.03)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("norm", "size"), sorted({threat for profile in PROFILES.values() for threat in profile.threats}))
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_some_of_it_lies_within_the_balls_of_the_tables(shape, norm, size, budget):
    sizes = BUDGETS[budget].attacks.noise_sizes
    lengths = [float(noise.abs().max() if norm == "linf" else noise.norm()) for noise in asked(shape, sizes=sizes)]
    inside = [length for length in lengths if length <= size]
    assert len(inside) >= 2
    assert max(inside) > size / 3


@pytest.mark.parametrize("settings", [{"sizes": 1}, {"smallest": 0.0}, {"smallest": 1.0}, {"tries": 0}])
def test_bad_settings(settings):
    with pytest.raises(GenclsError, match="expected 0 < smallest < largest, sizes >= 2, tries >= 1, got "):
        GrowingNoise(ThreatModel("l2"), **settings)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_noise_lies_on_the_surface(norm, cnn, digits):
    images = 0.4 + 0.2 * digits[0]  # the box binds nowhere
    threat = ThreatModel(norm, 0.3)
    found = run(GaussianNoiseAttack(threat, tries=1), cnn, images, digits[1])
    torch.testing.assert_close(threat.distance(images, found).float(), torch.full((64,), 0.3), rtol=1e-3, atol=0)
