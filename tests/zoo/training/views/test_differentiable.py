"""Differentiable augmentation: what moves, what is cut out, gradients, random streams."""

from collections.abc import Iterator

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.mark.parametrize("colours", [1, 3])
def test_gradients_are_those_of_finite_differences(colours: int) -> None:
    augment = DifferentiableAugmentation()
    images = torch.rand(2, colours, 6, 6, dtype=torch.float64, requires_grad=True)

    def fixed(values: torch.Tensor) -> torch.Tensor:
        with seeded(3):
            return augment(values)

    assert torch.autograd.gradcheck(fixed, images)


def test_one_seed_changes_a_batch_in_one_way() -> None:
    augment, images = DifferentiableAugmentation(), torch.rand(8, 3, 16, 16)
    with seeded(1):
        first = augment(images)
    with seeded(1):
        assert torch.equal(augment(images), first)
    with seeded(2):
        assert not torch.equal(augment(images), first)


def test_a_translation_moves_each_image_by_whole_pixels_over_black() -> None:
    augment = DifferentiableAugmentation(cutout=0.0)
    images = torch.rand(300, 1, 8, 8) + 0.1
    moved = augment(images)
    shifts = set()
    for image, found in zip(images[:, 0], moved[:, 0], strict=True):
        filled = found.nonzero()
        rows, columns = filled[:, 0].unique(), filled[:, 1].unique()
        assert len(filled) == len(rows) * len(columns)
        fits = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                expected = torch.zeros(8, 8)
                expected[max(down, 0) : 8 + min(down, 0), max(right, 0) : 8 + min(right, 0)] = image[
                    max(-down, 0) : 8 - max(down, 0), max(-right, 0) : 8 - max(right, 0)
                ]
                if torch.equal(found, expected):
                    fits.append((down, right))
        assert len(fits) == 1
        shifts |= set(fits)
    assert len(shifts) == 9


@pytest.mark.parametrize(("size", "share", "side"), [(8, 0.5, 4), (6, 0.5, 3), (28, 0.5, 14)])
def test_a_cutout_is_a_square_that_may_reach_over_the_margin(size: int, share: float, side: int) -> None:
    holes = DifferentiableAugmentation(translation=0.0, cutout=share, colour=False)(torch.ones(1000, 3, size, size))
    assert set(holes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(holes[:, 0], holes[:, 2])
    hole = holes[:, 0] == 0
    heights, widths = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), heights * widths)
    assert heights.max() == widths.max() == side
    assert heights.min() == side // 2 + (side % 2)
    assert hole.float().mean(0).min() > 0  # every pixel is cut out now and then


def test_colours_keep_the_structure_of_an_image() -> None:
    images = torch.rand(50, 3, 4, 4)
    changed = DifferentiableAugmentation(translation=0.0, cutout=0.0)(images)
    for before, after in zip(images, changed, strict=True):
        # Grey parts and parts of colour are each mapped by one factor.
        grey, colour = before.mean(0), before - before.mean(0)
        new_grey, new_colour = after.mean(0), after - after.mean(0)
        contrast = (new_grey.std() / grey.std()).item()
        assert 0.5 <= contrast <= 1.5
        torch.testing.assert_close(new_grey - new_grey.mean(), contrast * (grey - grey.mean()), rtol=1e-3, atol=1e-4)
        assert abs(float(new_grey.mean() - grey.mean())) <= 0.25
        factor = (new_colour.norm() / colour.norm()).item()
        assert factor <= 2 * contrast + 1e-4
        torch.testing.assert_close(new_colour, factor * colour, rtol=1e-3, atol=1e-4)


def test_grey_images_keep_their_brightness_and_nothing_may_happen() -> None:
    nothing = DifferentiableAugmentation(translation=0.0, cutout=0.0)
    images = torch.rand(3, 1, 5, 5)
    assert torch.equal(nothing(images), images)
    colours = torch.rand(3, 3, 5, 5)
    assert torch.equal(DifferentiableAugmentation(translation=0.0, cutout=0.0, colour=False)(colours), colours)


def test_settings_out_of_range() -> None:
    with pytest.raises(GenclsError, match=r"expected translation and cutout in \[0, 1\), got 0.125 and 1.0"):
        DifferentiableAugmentation(cutout=1.0)
