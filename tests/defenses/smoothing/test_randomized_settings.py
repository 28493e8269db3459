"""Settings of randomized smoothing: bad ones are refused, extreme ones work."""

import math

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import RandomizedSmoothing
from tests.defenses.smoothing.test_randomized import DIRECTION, IMAGE, along, linear, scripted
from tests.toys import small_cnn


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, r"expected sigma in \(0, 4\] in \[0, 1\] pixel units \(64/255, not 64\), got 0.0"),
        ({"sigma": -0.1}, "expected sigma in .* got -0.1"),
        ({"sigma": 64}, "expected sigma in .* got 64"),
        ({"sigma": math.nan}, "expected sigma to be a finite number, got nan"),
        ({"draws": 0}, "expected num_classes >= 2 and draws >= 1, got 4 and 0"),
        ({"votes": "mean"}, "expected votes to be one of 'hard', 'soft', got 'mean'"),
        ({"num_classes": 1}, "got 1 and 100"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenclsError, match=message):
        RandomizedSmoothing(small_cnn(), **{"num_classes": 4, "sigma": 0.25, **settings})


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "predict",
            {"n": 0},
            r"predict: expected n >= 1, chunk >= 1 and alpha in \(0, 1\), got n=0, chunk=200 and alpha=0.001",
        ),
        ("predict", {"alpha": 0.0}, "predict: expected .* got .*alpha=0.0"),
        ("predict", {"chunk": 0}, "predict: expected .* got .*chunk=0"),
        ("predict", {"n": 10}, "predict: expected n >= 11: fewer draws always abstain for alpha=0.001, got n=10"),
        ("certify", {"n0": 0}, "certify: expected n0 >= 1, got 0"),
        ("certify", {"n": -1}, "certify: expected n >= 1, .* got n=-1"),
        ("certify", {"alpha": 1.0}, "certify: expected .* got .*alpha=1.0"),
        ("certify", {"n": 9}, "certify: expected n >= 10: fewer draws always abstain for alpha=0.001, got n=9"),
    ],
)
def test_bad_numbers(method, settings, message):
    with pytest.raises(GenclsError, match=message):
        getattr(RandomizedSmoothing(small_cnn(), 4, sigma=0.25), method)(torch.rand(2, 1, 8, 8), **settings)


def test_as_few_draws_as_are_allowed_can_decide():
    assert scripted([1] * 11).predict(IMAGE, n=11).item() == 1
    assert scripted([1] * 11).certify(IMAGE, n0=1, n=10).labels.item() == 1
    soft = linear(DIRECTION, scale=1e4, votes="soft")
    image = along(DIRECTION, torch.tensor([0.5]))
    assert soft.certify(image, n=37).candidates.item() == 1
    with pytest.raises(GenclsError, match="certify: expected n >= 37: fewer draws always abstain"):
        soft.certify(image, n=36)


@pytest.mark.parametrize("method", ["predict", "certify"])
def test_bad_images_and_classifiers(method):
    images = torch.rand(2, 1, 8, 8)

    def ask(network, images=images, **settings):
        return getattr(RandomizedSmoothing(network, 4, sigma=0.25, **settings), method)(images, n=50)

    with pytest.raises(GenclsError, match=r"images: expected values in \[0, 1\]"):
        ask(small_cnn(), 255 * images)
    with pytest.raises(GenclsError, match=r"images: expected shape \(N, C, H, W\)"):
        ask(small_cnn(), images[0])
    with pytest.raises(GenclsError, match=f"{method}: expected a classifier in eval mode, got training mode"):
        ask(small_cnn().train())
    with pytest.raises(GenclsError, match=r"expected scores of shape \(\d+, 4\), got \(\d+, 3\)"):
        ask(small_cnn(3))
    broken = small_cnn()
    broken[-1].bias.data[2] = torch.nan
    with pytest.raises(GenclsError, match="expected finite scores, got NaN or infinity"):
        ask(broken)


@pytest.mark.parametrize("votes", ["hard", "soft"])
def test_votes_of_nan_stay_visible(votes):
    broken = small_cnn()
    broken[-1].bias.data[2] = torch.nan
    assert RandomizedSmoothing(broken, 4, sigma=0.25, votes=votes)(torch.rand(2, 1, 8, 8)).isnan().any(1).all()


def test_soft_votes_are_not_counted():
    with pytest.raises(GenclsError, match="predict: expected hard votes, which the test counts, got soft ones; see certify"):
        RandomizedSmoothing(small_cnn(), 4, sigma=0.25, votes="soft").predict(torch.rand(2, 1, 8, 8))
