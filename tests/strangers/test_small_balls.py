"""Balls near the resolution of float32 and images in half precision: attacks stay inside, or say that they cannot."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, keyed
from gencls.eval import FGSM, PGD, GaussianNoiseAttack, GrowingNoise, ThreatModel
from gencls.eval.attacks.parts.base import DENSE
from tests.contracts.attacks import FIXED, FOR_BAYES, MINIMAL, NORMS, AnySize

IMAGES = {
    "black": torch.zeros(4, 1, 8, 8),
    "white": torch.ones(4, 1, 8, 8),
    "grey": torch.full((4, 1, 8, 8), 0.7),
    "random": torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    "black and white": torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round(),
}


@pytest.mark.parametrize("epsilon", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize(
    ("name", "norm"),
    # The parts of AutoAttack are here. No small ball in L0 allows a change.
    [(name, norm) for name in FIXED if name != "AutoAttack" for norm in NORMS.get(name, DENSE) if norm != "l0"],
)
def test_attacks_stay_in_a_small_ball(name, norm, epsilon):
    threat, model = ThreatModel(norm, epsilon), AnySize().eval()
    images = torch.cat([kind[:2] for kind in IMAGES.values()])
    with keyed(range(len(images))):
        found = FIXED[name](threat)(model, images, model(images).argmax(1))
    assert threat.allows(threat.distance(images, found)).all()  # false for NaN
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5, 1e-4, 1e-3, 0.1, 2.0])
@pytest.mark.parametrize("kind", IMAGES)
def test_noise_is_as_large_as_the_ball_in_l2(kind, epsilon):
    """It was NaN, or nothing, below 1e-3: squares in float32."""
    threat, model, images = ThreatModel("l2", epsilon), AnySize().eval(), IMAGES[kind].double()
    with keyed(range(4)):
        found = GaussianNoiseAttack(threat, tries=1)(model, images, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(threat.distance(images, found), torch.full((4,), epsilon).double(), rtol=2e-6, atol=0)


def test_noise_that_no_image_can_hold_fills_it():
    """Half of the components point out of [0, 1] on a black image; the others end at 1."""
    images = torch.zeros(2, 1, 8, 8)
    with keyed(range(2)):
        found = GaussianNoiseAttack(ThreatModel("l2", 7.9), tries=1)(
            AnySize().eval(), images, torch.zeros(2, dtype=torch.int64)
        )
    assert set(found.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("smallest", [1e-9, 1e-6])
def test_growing_noise_of_a_small_size(smallest):
    model, images = AnySize().eval(), IMAGES["random"]
    attack = GrowingNoise(ThreatModel("l2"), smallest=smallest, largest=1.0, sizes=10)
    with keyed(range(4)):
        found = attack(model, images, model(images).argmax(1))
    assert torch.isfinite(found).all()
    assert (found != images).flatten(1).any(1).any()


class Mean(nn.Module):
    """The mean of the pixels: all of them get the same gradient, and so the same error of rounding."""

    def forward(self, images):
        mean = images.flatten(1).double().mean(1).float()
        return torch.stack([mean, 0.1 - mean], dim=1)


@pytest.mark.parametrize("epsilon", [4.0, 0.5, 1e-4])
@pytest.mark.parametrize("attack", [FGSM, lambda threat: PGD(threat, steps=2, random_start=False)], ids=["FGSM", "PGD"])
def test_a_large_grey_image_stays_in_the_ball(attack, epsilon):
    """196,608 errors of the same sign: the image left the ball by 2.4e-6, and the judge took the clean one in its place."""
    threat, images = ThreatModel("l2", epsilon), torch.full((1, 3, 256, 256), 0.7)
    found = attack(threat)(Mean().eval(), images, torch.tensor([0]))
    assert threat.distance(images, found).item() <= epsilon
    assert threat.distance(images, found).item() >= 0.99 * epsilon - 3e-5  # one unit of each pixel


@pytest.mark.parametrize("epsilon", [1e-9, 1e-5, 1.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_geometry_of_a_large_image(norm, epsilon):
    threat, clean = ThreatModel(norm, epsilon), torch.full((1, 3, 256, 256), 0.7)
    for images in (threat.start(clean), threat.project(clean + 0.1, clean)):
        assert threat.distance(clean, images).item() <= epsilon + 3e-8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*FIXED, *MINIMAL], ids=str)
def test_images_in_half_precision_are_refused(name, dtype):
    attack = FIXED[name](ThreatModel(NORMS.get(name, DENSE)[-1], 1.0)) if name in FIXED else MINIMAL[name]
    images = IMAGES["random"].to(dtype)
    with pytest.raises(GenclsError, match=rf"expected images in float32 or float64, got {dtype}, .*; attack images.float"):
        attack(AnySize().eval(), images, torch.zeros(4, dtype=torch.int64))


def test_every_attack_is_among_them():
    assert FOR_BAYES == ["LatentDescent"]  # which begins as they do
