import math

import pytest
import torch

from gencls.core import GenclsError
from gencls.eval.measures.psnr import PSNR_OF_ROUNDING, peak_signal_noise_ratio


def test_equals_the_formula_and_torchmetrics():
    from torchmetrics.image import PeakSignalNoiseRatio

    images, made = torch.rand(2, 4, 3, 6, 5)
    found = peak_signal_noise_ratio(images, made)
    torch.testing.assert_close(found, -10 * (images - made).square().mean((1, 2, 3)).log10())
    for one, (image, other) in zip(found, zip(images, made, strict=True), strict=True):
        assert torch.equal(one, PeakSignalNoiseRatio(data_range=1.0)(other[None], image[None]))


def test_a_difference_of_a_tenth_is_20_db():
    images = torch.full((2, 1, 4, 4), 0.5)
    torch.testing.assert_close(peak_signal_noise_ratio(images, images + 0.1), torch.full((2,), 20.0))
    assert peak_signal_noise_ratio(images, images).tolist() == [math.inf, math.inf]


def test_the_ratio_of_rounding_to_8_bits():
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64)
    found = peak_signal_noise_ratio(images, (images * 255).round() / 255)
    # A mean of 12288 squared rounding errors has a relative deviation of 0.8 %, which is .035 dB; here are four of these.
    torch.testing.assert_close(found, torch.full_like(found, PSNR_OF_ROUNDING), atol=0.14, rtol=0)


def test_other_shapes():
    with pytest.raises(GenclsError, match=r"made: expected the shape of the images, \(2, 1, 4, 4\), got \(2, 1, 4, 5\)"):
        peak_signal_noise_ratio(torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 5))
    with pytest.raises(GenclsError, match="made: expected values in"):
        peak_signal_noise_ratio(torch.rand(2, 1, 4, 4), torch.full((2, 1, 4, 4), 2.0))
