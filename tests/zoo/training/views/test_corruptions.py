"""Common corruptions: their range, their strength, their formulas, their random numbers."""

import math

import pytest
import torch
from scipy import fft, ndimage
from torch import nn
from torch.nn import functional as F

from gencls.core import GenclsError, seeded
from gencls.zoo import load_data
from gencls.zoo.training.views.corruptions import CORRUPTIONS, HELD_OUT, TRAINED_ON, Corruptions, corrupted

RANDOM = ("gaussian-noise", "shot-noise", "impulse-noise", "motion-blur", "glass-blur", "fog", "brightness", "elastic")


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


@pytest.fixture(scope="module")
def digits():
    return load_data("mnist-embedded", "test", limit=40).images


def severity(value, count):
    return torch.full((count,), float(value))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_shape_and_range(kind, shape):
    images = torch.rand(6, *shape)
    for value in (0.0, 0.5, 1.0):
        changed = corrupted(images, kind, severity(value, 6))
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert bool(((changed >= 0) & (changed <= 1)).all())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_nothing_at_first_then_more_and_more(kind, digits):
    sizes = [(corrupted(digits, kind, severity(value, len(digits))) - digits).square().mean() for value in (0.0, 0.2, 0.6, 1.0)]
    assert float(sizes[0]) < 1e-6
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    assert float(sizes[3]) > 1e-3


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_image_has_its_own_severity(kind, digits):
    some = torch.zeros(len(digits))
    some[::2] = 0.8
    moved = (corrupted(digits, kind, some) - digits).abs().amax((1, 2, 3))
    assert float(moved[1::2].max()) < 1e-3 < float(moved[::2].min())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_random_numbers_come_from_torch(kind, digits):
    made = []
    for seed in (1, 1, 2):
        with seeded(seed):
            made.append(corrupted(digits, kind, severity(0.7, len(digits))))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2]) == (kind not in RANDOM)


def test_noise_has_its_moments():
    images = torch.full((50, 1, 28, 28), 0.5)
    normal = corrupted(images, "gaussian-noise", severity(0.4, 50))
    assert float(normal.std()) == pytest.approx(0.12, rel=0.02)  # 0.3 times the severity; four standard errors
    shot = corrupted(0.4 * images, "shot-noise", severity(0.5, 50))  # 20 photons at full light
    assert float(shot.mean()) == pytest.approx(0.2, abs=0.002)
    assert float(shot.var()) == pytest.approx(0.2 / 20, rel=0.05)
    impulse = corrupted(images, "impulse-noise", severity(0.6, 50))
    for value, share in ((0.0, 0.09), (1.0, 0.09), (0.5, 0.82)):
        assert float((impulse == value).float().mean()) == pytest.approx(share, abs=0.008)  # five standard errors


def test_gaussian_blur_is_scipys_away_from_the_border():
    images = torch.zeros(3, 1, 28, 28)
    images[:, :, 9:19, 9:19] = torch.rand(3, 1, 10, 10)
    found = corrupted(images, "gaussian-blur", torch.tensor([0.3, 0.6, 0.9]))
    for image, blurred, value in zip(images, found, (0.3, 0.6, 0.9), strict=True):
        expected = ndimage.gaussian_filter(image[0].double().numpy(), sigma=1.8 * value, truncate=12)
        # At this distance from the border the missing weights are below exp(-16).
        torch.testing.assert_close(blurred[0].double(), torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_pixels_are_means_of_blocks():
    images = torch.rand(2, 3, 28, 28)
    found = corrupted(images, "pixelate", severity(2 / 3, 2))  # 14 cells along each side
    expected = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(found, expected)


def test_jpeg_rounds_cosine_transforms():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    mild = corrupted(0.4 + 0.2 * image, "jpeg", severity(0.5, 1))  # far from the box: nothing is cut
    steps = fft.dctn(mild[0, 0].numpy() - 0.5, norm="ortho") * 255 / (12.0 * 0.5)
    before = fft.dctn(0.4 + 0.2 * image[0, 0].numpy() - 0.5, norm="ortho") * 255 / (12.0 * 0.5)
    for row, column, step in ((0, 0, 16), (0, 1, 11), (1, 0, 12), (7, 7, 99), (3, 5, 87)):
        assert steps[row, column] / step == pytest.approx(round(before[row, column] / step), abs=1e-6)


def test_motion_spreads_a_dot_along_a_line():
    dots = torch.zeros(60, 1, 29, 29)
    dots[:, :, 14, 14] = 1.0
    moved = corrupted(dots, "motion-blur", severity(0.5, 60))[:, 0]  # a line of 4 pixels
    torch.testing.assert_close(moved.sum((1, 2)), torch.ones(60))
    place = torch.arange(29.0) - 14
    x, y = moved.sum(1), moved.sum(2)
    spread = (x * place.square()).sum(1) + (y * place.square()).sum(1)
    # Seven taps at distances of 4/6 pixels have the variance 16/9; interpolation adds at most 1/4 for each axis.
    assert float(spread.min()) >= 16 / 9 - 1e-4
    assert float(spread.max()) <= 16 / 9 + 0.5
    torch.testing.assert_close((x * place).sum(1), torch.zeros(60), rtol=0, atol=1e-4)


def test_fog_light_and_contrast():
    images = 0.4 + 0.2 * torch.rand(40, 1, 16, 16)
    flat = corrupted(images, "contrast", severity(0.5, 40))
    torch.testing.assert_close(flat.std((1, 2, 3)), (1 - 0.425) * images.std((1, 2, 3)))
    torch.testing.assert_close(flat.mean((1, 2, 3)), images.mean((1, 2, 3)))
    lit = corrupted(images, "brightness", severity(0.4, 40)) - images
    torch.testing.assert_close(lit.abs(), torch.full_like(lit, 0.2))
    assert {round(float(value), 3) for value in lit[:, 0, 0, 0]} == {-0.2, 0.2}
    fog = corrupted(images, "fog", severity(0.5, 40)) - 0.65 * images
    assert bool(((fog > -1e-6) & (fog < 0.35 + 1e-6)).all())


def view(perturbation, images):
    return perturbation(nn.Identity(), images, torch.zeros(len(images), dtype=torch.int64), epoch=0.0)


def test_a_training_draws_kinds_and_severities():
    images = 0.4 + 0.2 * torch.rand(3000, 1, 8, 8)
    changed = view(Corruptions(kinds=("contrast", "brightness"), clean=0.25), images)
    same = (changed == images).flatten(1).all(1)
    assert float(same.float().mean()) == pytest.approx(0.25, abs=0.032)  # four standard errors
    shift = (changed - images).mean((1, 2, 3)).abs()
    lit = shift > 1e-4
    assert float(lit.float().mean()) == pytest.approx(0.375, abs=0.036)
    assert float(shift[lit].mean()) == pytest.approx(0.25, abs=0.02)  # severities uniform in [0, 1]
    factor = (changed.std((1, 2, 3)) / images.std((1, 2, 3)))[~lit & ~same]
    assert float(factor.min()) == pytest.approx(0.15, abs=0.02)
    assert float(factor.mean()) == pytest.approx(1 - 0.425, abs=0.04)
    assert torch.equal(view(Corruptions(clean=1.0), images), images)


def test_draws_are_those_of_the_seed(digits):
    made = []
    for seed in (5, 5, 6):
        with seeded(seed):
            made.append(view(Corruptions(), digits))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_two_kinds_stay_out_of_training():
    assert Corruptions().kinds == TRAINED_ON
    assert set(TRAINED_ON) | set(HELD_OUT) == set(CORRUPTIONS)
    assert not set(TRAINED_ON) & set(HELD_OUT)
    assert len(HELD_OUT) == 2


def test_bad_input():
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(GenclsError, match=r"unknown corruption 'fogs'; did you mean 'fog'\? expected one of gaussian-noise, "):
        corrupted(images, "fogs", severity(0.5, 2))
    with pytest.raises(GenclsError, match=r"expected square images \(N, C, S, S\), got \(2, 1, 8, 9\)"):
        corrupted(torch.rand(2, 1, 8, 9), "fog", severity(0.5, 2))
    with pytest.raises(GenclsError, match=r"expected a severity per image, \(2,\), got \(3,\)"):
        corrupted(images, "fog", severity(0.5, 3))
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(GenclsError, match=r"expected severities in \[0, 1\], got"):
            corrupted(images, "fog", severity(wrong, 2))
    with pytest.raises(GenclsError, match="unknown corruption 'rain'"):
        Corruptions(kinds=("rain",))
    for wrong in ({"kinds": ()}, {"clean": 1.5}):
        with pytest.raises(GenclsError, match=r"Corruptions: expected at least one kind and clean in \[0, 1\], got"):
            Corruptions(**wrong)
