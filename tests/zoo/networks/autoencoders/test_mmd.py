"""The maximum mean discrepancy against a direct double sum."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from gencls.core import GenclsError
from gencls.zoo.networks import MMD, CodePosterior

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
KERNELS = ("gaussian", "inverse-multiquadratic")
ESTIMATORS = ("biased", "unbiased")


def similarity(first: Tensor, second: Tensor, kernel: str, scales: tuple[float, ...] = SCALES) -> float:
    distance = float((first - second).square().sum())
    widths = [2 * len(first) * scale for scale in scales]
    if kernel == "gaussian":
        return sum(math.exp(-distance / width) for width in widths)
    return sum(width / (width + distance) for width in widths)


def double_sum(codes: Tensor, others: Tensor, kernel: str, estimator: str) -> float:
    """Pair by pair (oracle)."""
    value = 0.0
    for rows in (codes, others):
        pairs = [(i, j) for i, j in product(range(len(rows)), repeat=2) if i != j or estimator == "biased"]
        value += sum(similarity(rows[i], rows[j], kernel) for i, j in pairs) / len(pairs)
    crossed = [similarity(code, other, kernel) for code, other in product(codes, others)]
    return value - 2 * sum(crossed) / len(crossed)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_double_sum(kernel, estimator) -> None:
    codes, others = torch.randn(5, 3, dtype=torch.float64) + 1, torch.randn(7, 3, dtype=torch.float64)
    mmd = MMD(kernel=kernel, estimator=estimator)
    assert mmd.discrepancy(codes, others).item() == pytest.approx(double_sum(codes, others, kernel, estimator), rel=1e-12)
    found = mmd.discrepancy(codes.float(), others.float()).item()
    assert found == pytest.approx(double_sum(codes, others, kernel, estimator), rel=1e-5)  # 50 similarities in float32


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_penalty_compares_with_as_many_fresh_draws(kernel, estimator) -> None:
    codes = torch.randn(6, 2) - 1
    mmd = MMD(kernel=kernel, estimator=estimator)
    torch.manual_seed(3)
    found = mmd(codes, CodePosterior(codes))
    again = mmd(codes, CodePosterior(codes))
    torch.manual_seed(3)
    draws = torch.randn(6, 2)
    assert found.item() == pytest.approx(double_sum(codes, draws, kernel, estimator), rel=1e-5)
    assert found != again


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_differences(kernel, estimator) -> None:
    codes = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    others = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(MMD(kernel=kernel, estimator=estimator).discrepancy, (codes, others))


@pytest.mark.parametrize("kernel", KERNELS)
def test_draws_from_the_prior_have_the_expected_value(kernel) -> None:
    """Unbiased, the mean is 0. Biased, it is 2 (k(z, z) - E k(z, z')) / N, as pairs of a row with itself count."""
    count, size, rounds = 16, 2, 400
    codes = torch.randn(rounds, count, size)
    for estimator in ESTIMATORS:
        mmd = MMD(kernel=kernel, estimator=estimator)
        values = torch.stack([mmd(part, CodePosterior(part)) for part in codes])
        expected = 0.0
        if estimator == "biased":
            assert (values >= 0).all()
            pairs = torch.randn(2, 20_000, size).double()
            distances = (pairs[0] - pairs[1]).square().sum(1)
            widths = [2 * size * scale for scale in SCALES]
            alike = [(-distances / w).exp() if kernel == "gaussian" else w / (w + distances) for w in widths]
            expected = 2 * (len(SCALES) - float(torch.stack(alike).sum(0).mean())) / count
        assert values.mean().item() == pytest.approx(
            expected, abs=4 * float(values.std()) / rounds**0.5
        )  # four standard errors


def test_other_codes_have_more() -> None:
    codes = torch.randn(200, 4)
    mmd = MMD()
    prior = mmd(codes, CodePosterior(codes))
    for other in (codes + 0.5, 2 * codes, 0.5 * codes, codes.sign()):
        assert mmd(other, CodePosterior(other)) > 2 * prior


def test_one_scale_is_one_kernel() -> None:
    codes, others = torch.randn(3, 2), torch.randn(3, 2)
    parts = [MMD(scales=(scale,)).discrepancy(codes, others) for scale in (0.3, 4.0)]
    torch.testing.assert_close(MMD(scales=(0.3, 4.0)).discrepancy(codes, others), sum(parts), rtol=1e-5, atol=1e-6)


def test_one_code_has_no_pair() -> None:
    codes = torch.randn(1, 2)
    with pytest.raises(GenclsError, match=r"MMD: expected at least 2 codes at once, got 1"):
        MMD()(codes, CodePosterior(codes))


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_bad_scales_are_refused(scales) -> None:
    with pytest.raises(GenclsError, match=r"MMD: expected at least one scale, each > 0, got"):
        MMD(scales=scales)


def test_other_bad_settings_are_refused() -> None:
    with pytest.raises(GenclsError, match=r"MMD: expected kernel to be one of 'gaussian', 'inverse-multiquadratic'"):
        MMD(kernel="rbf")
    with pytest.raises(GenclsError, match=r"MMD: expected estimator to be one of 'biased', 'unbiased'"):
        MMD(estimator="u")


def test_the_printed_form_shows_the_settings() -> None:
    assert repr(MMD(scales=(1.0,))) == "MMD(kernel='gaussian', scales=(1.0,), estimator='biased')"
