import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gencls.core import GenclsError, keyed
from gencls.perceptual import ELPIPS, LPIPS, FeatureDistance, SquaredL2
from gencls.perceptual.elpips import _drawn, _level, _Transformation
from tests.perceptual.lpips_models import official

IDENTITY = _Transformation(
    scale=0.0, corner=(0.0, 0.0), shift=(0.0, 0.0), flip=0, swap=False, colours=(0, 1, 2), factors=(1.0, 1.0, 1.0), seed=0
)


def changed(**settings):
    return _Transformation(**{**vars(IDENTITY), **settings})


@pytest.fixture
def images():
    return torch.rand(2, 3, 9, 8)


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda x: x),
        ({"flip": 1}, lambda x: torch.flip(x, (2,))),
        ({"flip": 2}, lambda x: torch.flip(x, (3,))),
        ({"flip": 3}, lambda x: torch.rot90(x, 2, (2, 3))),
        ({"swap": True}, lambda x: x.mT),
        ({"colours": (2, 0, 1)}, lambda x: torch.stack((x[:, 2], x[:, 0], x[:, 1]), 1)),
        ({"factors": (0.5, 1.0, 0.2)}, lambda x: torch.stack((0.5 * x[:, 0], x[:, 1], 0.2 * x[:, 2]), 1)),
    ],
)
def test_parts_of_a_transformation(images, settings, expected):
    assert torch.equal(changed(**settings).apply(images, 0), expected(images))


@pytest.mark.parametrize(("share", "after"), [(0.0, 0), (0.5, 2), (0.99, 3)])
def test_shifts_have_mirrored_margins(images, share, after):
    found = changed(shift=(share, 0.0)).apply(images, 3)
    assert torch.equal(found, F.pad(images, (3, 0, 3 - after, after), mode="reflect"))


def test_shifts_of_small_images_are_smaller():
    assert changed(shift=(0.5, 0.5)).apply(torch.rand(1, 3, 2, 4), 7).shape == (1, 3, 3, 7)
    assert changed(shift=(0.5, 0.5)).apply(torch.rand(1, 3, 1, 1), 7).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(("share", "down"), [(0.0, 2), (0.5, 0), (0.99, -1)])
def test_shifted_images_of_one_size_are_cut(images, share, down):
    found = changed(shift=(share, 0.0)).apply(images, 3, keep_size=True)
    expected = images.roll((down, 2), (2, 3))
    assert found.shape == images.shape
    torch.testing.assert_close(found[..., 2:-2, 2:], expected[..., 2:-2, 2:], rtol=0, atol=0)


def test_images_of_one_size_are_not_reduced():
    distance = ELPIPS(SquaredL2(), samples=8, keep_size=True)
    assert {tuple(part.shape) for part in distance.redrawn(1).embed(torch.rand(1, 1, 200, 200))} == {(1, 1, 200, 200)}
    assert {tuple(part.shape[-2:]) for part in ELPIPS(SquaredL2(), samples=8).embed(torch.rand(1, 1, 200, 200))} >= {(207, 207)}


def test_reductions_are_means_of_blocks():
    images = torch.rand(1, 3, 128, 130)
    half = changed(scale=0.9).apply(images, 0)
    assert half.shape == (1, 3, 65, 66)
    torch.testing.assert_close(half[..., :64, :65], images.view(1, 3, 64, 2, 65, 2).mean((3, 5)))
    assert torch.equal(changed(scale=0.79).apply(images, 0), images)  # 1 / (1 + 1/4) = 0.8 of the draws keep the size
    moved = changed(scale=0.9, corner=(0.5, 0.0)).apply(images, 0)
    torch.testing.assert_close(moved[..., 1:64, :65], images[..., 1:127, :].view(1, 3, 63, 2, 65, 2).mean((3, 5)))
    assert torch.equal(changed(scale=0.99).apply(images[..., :127, :], 0), images[..., :127, :])


def test_levels_have_their_probabilities():
    found = torch.tensor([_level((index + 0.5) / 1000, 4) for index in range(1000)]).bincount(minlength=5)[1:] / 1000
    weights = torch.tensor([1, 1 / 4, 1 / 9, 1 / 16])
    torch.testing.assert_close(found, weights / weights.sum(), atol=1e-3, rtol=0)


def test_draws_fill_their_ranges_evenly():
    draws = _drawn(24, 5)
    assert sorted(draw.flip for draw in draws) == sorted([0, 1, 2, 3] * 6)
    assert sorted(draw.colours for draw in draws) == sorted([*itertools.permutations(range(3))] * 4)
    for colour in range(3):
        parts = sorted((draw.factors[colour] - 0.2) / 0.8 * 24 for draw in draws)
        assert [int(part) for part in parts] == list(range(24))
    assert {draw.swap for draw in draws} == {True, False}
    assert len({draw.shift for draw in draws}) == 24
    assert draws != _drawn(24, 6)


def test_equals_the_mean_of_its_transformations(network):
    first, second = torch.rand(2, 3, 3, 12, 10)
    inner = FeatureDistance(network, ("1", "2"))
    distance = ELPIPS(inner, samples=5, seed=3, dropout=0.0)
    expected = torch.stack([inner(draw.apply(first, 7), draw.apply(second, 7)) for draw in _drawn(5, 3)]).mean(0)
    torch.testing.assert_close(distance(first, second), expected)


def test_of_pixels_without_margins_is_the_factors_alone():
    """Flips, swaps and orders move pixels of both images alike; a grey image has one factor."""
    first, second = torch.rand(2, 3, 1, 6, 5, dtype=torch.float64)
    found = ELPIPS(SquaredL2(), samples=6, offset=0)(first, second)
    factors = sum(draw.factors[0] ** 2 for draw in _drawn(6, 0)) / 6
    torch.testing.assert_close(found, factors * SquaredL2()(first, second))


def test_the_same_for_all_calls_batches_and_streams(images, network):
    distance = ELPIPS(FeatureDistance(network, ("1",)), samples=3, dropout=0.2)
    expected = distance(images, 1 - images)
    state = torch.get_rng_state()
    with keyed([4, 5]):
        assert torch.equal(distance(images, 1 - images), expected)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(distance(images[1:], 1 - images[1:]), expected[1:])
    other = distance.redrawn(1)
    assert not torch.allclose(other(images, 1 - images), expected)
    assert other.distance is distance.distance
    assert torch.equal(other.redrawn(0)(images, 1 - images), expected)


def test_dropout_zeroes_the_same_inputs_of_convolutions_for_all_images(network):
    distance = ELPIPS(FeatureDistance(network, ("0",), normalize=False), samples=1, offset=0, dropout=0.25)
    weight = distance.distance.network[0].weight
    weight.zero_()
    weight[0, 0, 1, 1] = 1.0  # the first map is the input's first colour, without its margin
    distance.distance.network[0].bias.zero_()
    (part,) = distance.embed(torch.ones(2, 3, 64, 64))
    seen = part[:, 0] / _drawn(1, 0)[0].factors[0]
    assert torch.equal(part[0], part[1])
    values = seen[0].unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.75]))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    with torch.inference_mode():
        assert torch.equal(distance.embed(torch.ones(2, 3, 64, 64))[0], part)


def test_dropout_reaches_what_convolutions_take_and_nothing_else():
    """Depthwise convolutions and linear layers keep their inputs, and a convolution's output is whole."""
    images = torch.rand(2, 3, 4, 4)
    kept = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten(), nn.Linear(12, 5))
    for network in (kept, nn.Sequential(nn.ConvTranspose2d(3, 2, 2))):
        inner = FeatureDistance(network, normalize=False)
        with_, without = (ELPIPS(inner, samples=2, keep_size=True, dropout=share).embed(images) for share in (0.9, 0.0))
        assert all(torch.equal(*pair) for pair in zip(with_, without, strict=True))
    identity = nn.Conv2d(3, 3, 1)
    identity.weight.data, identity.bias.data = torch.eye(3)[..., None, None], torch.ones(3)
    inner = FeatureDistance(nn.Sequential(identity, nn.Conv2d(3, 1, 1, bias=False)), ("0", "1"), normalize=False)
    first, second = ELPIPS(inner, samples=1, keep_size=True, dropout=0.5).embed(1 + images)
    weight = inner.network[1].weight[0]
    assert (first == 1).any()  # the bias alone: the input was dropped
    assert (first != 0).all()
    assert not torch.allclose(second, (first * weight).sum(1, keepdim=True))  # the second convolution drops inputs of its own


def test_convolutions_with_named_arguments_lose_the_same_inputs(network):
    class Named(nn.Conv2d):
        def forward(self, maps):
            return F.conv2d(input=maps, weight=self.weight, bias=self.bias)

    named = nn.Sequential(Named(3, 4, 3), nn.Tanh(), Named(4, 2, 3))
    named.load_state_dict(network.state_dict())
    found, expected = (ELPIPS(FeatureDistance(one, ("2",)), samples=2, dropout=0.3) for one in (named, network))
    first, second = torch.rand(2, 2, 3, 9, 8)
    assert torch.equal(found(first, second), expected(first, second))


def test_gradients_after_a_call_in_inference_mode(network):
    distance = ELPIPS(FeatureDistance(network, ("1",)), samples=2, dropout=0.3, seed=99)
    images = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        distance(images, 1 - images)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(distance(images, 1 - images.detach()).sum(), images)
    assert gradient.any()


def test_over_lpips():
    distance = ELPIPS(LPIPS(official("squeeze")[1], "squeeze"), samples=2, size=64)
    images = torch.rand(2, 3, 20, 20)
    assert not distance(images, images).any()
    found = distance(images, images.flip(0))
    assert (found > 0).all()
    assert len(distance.embed(images)) == 2 * 7


def test_more_transformations_vary_less(images, network):
    inner = FeatureDistance(network, ("1", "2"))
    found = {
        count: torch.stack([ELPIPS(inner, samples=count, seed=seed)(images, 1 - images) for seed in range(12)])
        for count in (1, 16)
    }
    assert (found[16].std(0) < found[1].std(0) / 2).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "expected samples >= 1, got 0"),
        ({"offset": -1}, "expected offset >= 0, got -1"),
        ({"size": 0}, "expected size >= 1, got 0"),
        ({"dropout": 1.0}, r"expected dropout in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(GenclsError, match=f"ELPIPS: {message}"):
        ELPIPS(SquaredL2(), **settings)


class OneSize(nn.Module):
    """A layer of pixels, and what follows it: images of 8 x 8 pixels alone."""

    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Conv2d(1, 2, 1), error

    def forward(self, images):
        if images.shape[-2:] != (8, 8):
            raise self.error(f"images of 8 x 8 pixels, got {tuple(images.shape[-2:])}")
        return self.layer(images)


@pytest.mark.parametrize("error", [GenclsError, RuntimeError])
def test_a_network_that_takes_one_size(error):
    inner, images = FeatureDistance(OneSize(error)), torch.rand(2, 1, 8, 8)
    words = r"transformed images too, of 15 x 15 pixels, .* those of 8 x 8 pixels alone; set keep_size=True \(its error: images"
    with pytest.raises(GenclsError, match=words):
        ELPIPS(inner)(images, images)
    assert (ELPIPS(inner, keep_size=True)(images, 1 - images) > 0).all()
    for other, settings in ((torch.rand(2, 1, 9, 9), {}), (torch.rand(2, 1, 9, 9), {"keep_size": True})):
        with pytest.raises(error, match="^images of 8 x 8 pixels, got "):  # keep_size would not help
            ELPIPS(inner, **settings)(other, other)


def test_wrong_images():
    with pytest.raises(GenclsError, match=r"ELPIPS: expected images \(N, C, H, W\) with 1 or 3 channels, got \(2, 4, 8, 8\)"):
        ELPIPS(SquaredL2()).embed(torch.rand(2, 4, 8, 8))
