import numpy as np
import pytest
import torch

from gencls.core import GenclsError, check_images, check_labels

GOOD = torch.full((2, 3, 4, 5), 0.5)


def with_value(value):
    images = GOOD.clone()
    images[1, 2, 3, 4] = value
    return images


@pytest.mark.parametrize("images", [GOOD, GOOD.double(), GOOD.half(), GOOD[:1], torch.zeros(1, 1, 1, 1)])
def test_good_images_pass(images):
    check_images(images)
    check_images(images, channels=images.shape[1])


@pytest.mark.parametrize(
    ("images", "expected", "got"),
    [
        (np.zeros((2, 3, 4, 5), dtype=np.float32), "torch.Tensor", "ndarray"),
        ([[0.5]], "torch.Tensor", "list"),
        (torch.zeros(3, 4, 5), "(N, C, H, W)", "rank 3 with shape (3, 4, 5)"),
        (torch.zeros(1, 2, 3, 4, 5), "(N, C, H, W)", "rank 5"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "floating-point", "torch.uint8; divide uint8 images by 255"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.int64), "floating-point", "torch.int64"),
        (torch.zeros(0, 3, 4, 5), "at least one image", "(0, 3, 4, 5)"),
        (torch.zeros(2, 3, 0, 5), "at least one image", "(2, 3, 0, 5)"),
        (with_value(float("nan")), "finite", "1 NaN or infinite"),
        (with_value(float("inf")), "finite", "1 NaN or infinite"),
        (with_value(-0.25), "[0, 1]", "[-0.25, 0.5]"),
        (with_value(1.5), "[0, 1]", "[0.5, 1.5]"),
        (GOOD * 255, "[0, 1]", "[127.5, 127.5]"),
    ],
)
def test_bad_images(images, expected, got):
    with pytest.raises(GenclsError) as error:
        check_images(images, name="pictures")
    message = str(error.value)
    assert message.startswith("pictures: expected")
    before, after = message.split("got", maxsplit=1)
    assert expected in before
    assert got in after


def test_wrong_number_of_channels():
    with pytest.raises(GenclsError, match=r"expected 1 channel, got 3 \(shape \(2, 3, 4, 5\)\)"):
        check_images(GOOD, channels=1)


def test_good_labels_pass():
    check_labels(torch.tensor([0, 9, 3]), num_classes=10, count=3)
    check_labels(torch.tensor([0, 900]), num_classes=None)


@pytest.mark.parametrize(
    ("labels", "expected", "got"),
    [
        ([0, 1], "torch.Tensor", "list"),
        (torch.tensor([0.0, 1.0]), "int64 of shape (N,)", "torch.float32 of shape (2,)"),
        (torch.tensor([0, 1], dtype=torch.int32), "int64", "torch.int32"),
        (torch.tensor([[0, 1]]), "(N,)", "(1, 2)"),
        (torch.tensor([0, 1, 2]), "2 labels, one per image", "3"),
        (torch.tensor([0, 4]), "0..3 for 4 classes", "0..4"),
        (torch.tensor([-1, 0]), "0..3 for 4 classes", "-1..0"),
    ],
)
def test_bad_labels(labels, expected, got):
    with pytest.raises(GenclsError) as error:
        check_labels(labels, num_classes=4, count=2)
    before, after = str(error.value).split("got", maxsplit=1)
    assert expected in before
    assert got in after


def test_negative_labels_without_a_number_of_classes():
    with pytest.raises(GenclsError, match=r"expected values >= 0, got values in -3\.\.5"):
        check_labels(torch.tensor([5, -3]), num_classes=None)


def test_the_error_is_a_value_error():
    assert issubclass(GenclsError, ValueError)
