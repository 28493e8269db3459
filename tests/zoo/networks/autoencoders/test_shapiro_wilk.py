"""The Shapiro-Wilk penalty against scipy and finite differences."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck

from gencls.core import GenclsError
from gencls.zoo.networks import CodePosterior, ShapiroWilk

SAMPLES: dict[str, Callable[[int, int], Tensor]] = {
    "normal": lambda count, size: 3.0 + 0.2 * torch.randn(count, size),
    "uniform": torch.rand,
    "lognormal": lambda count, size: torch.randn(count, size).exp(),
}


def oracle(codes: Tensor) -> Tensor:
    """W of each column by scipy, which runs Algorithm AS R94."""
    return torch.tensor([stats.shapiro(column).statistic for column in codes.double().numpy().T])


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 64, 999, 5000])
@pytest.mark.parametrize("make", SAMPLES)
def test_the_statistic_is_that_of_scipy(make: str, count: int) -> None:
    codes = SAMPLES[make](count, 3)
    found = ShapiroWilk().statistic(codes)
    assert found.shape == (3,)
    torch.testing.assert_close(found.double(), oracle(codes), rtol=0, atol=1e-6)  # rounding in float32
    # scipy's normal scores are an approximation with 9 digits.
    torch.testing.assert_close(ShapiroWilk().statistic(codes.double()), oracle(codes), rtol=0, atol=1e-8)


def test_the_penalty_is_the_mean_over_dimensions() -> None:
    codes = torch.cat([make(64, 1) for make in SAMPLES.values()], dim=1)
    penalty = ShapiroWilk()(codes, CodePosterior(codes))
    torch.testing.assert_close(penalty.double(), 1 - oracle(codes).mean(), rtol=1e-5, atol=0)  # rounding in float32


def test_a_small_penalty_keeps_its_digits_in_single_precision() -> None:
    """1 - W is about 4e-4 for so many normal draws, and is not a difference of numbers close to 1."""
    codes = torch.randn(5000, 2)
    single, double = (ShapiroWilk()(part, CodePosterior(part)) for part in (codes, codes.double()))
    assert double < 2e-3
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 12, 21])
def test_gradients_are_finite_differences(count: int) -> None:
    codes = torch.randn(count, 2, dtype=torch.float64).exp().requires_grad_()
    assert gradcheck(ShapiroWilk().statistic, (codes,))


def test_a_descent_makes_codes_normal() -> None:
    """Uniform codes have 1 - W of about 0.04 or more; what normal draws have, 0.02 for N = 64, is reached and passed."""
    codes = torch.rand(64, 2).requires_grad_()
    optimiser = torch.optim.Adam([codes], lr=0.01)
    for _ in range(100):
        loss = ShapiroWilk()(codes, CodePosterior(codes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (oracle(codes.detach()) > 0.99).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e25])
def test_shift_and_scale_do_not_matter(scale: float) -> None:
    """Squares of the outer two leave the range of float32. One shift is thousand times the spread, so three digits go."""
    codes = torch.randn(64, 3)
    expected = ShapiroWilk().statistic(codes)
    torch.testing.assert_close(ShapiroWilk().statistic(scale * codes), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(ShapiroWilk().statistic(scale * (codes + 1000)), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("level", [0.0, 0.1, -3e4, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_codes_count_as_the_worst_without_a_gradient(level: float, dtype: torch.dtype) -> None:
    """W is 0 / 0 there. A dimension that differs in its last digit only counts as equal."""
    other = torch.randn(64, dtype=dtype)
    nearly = torch.full((64,), level, dtype=dtype)
    nearly[0] = nearly[0].nextafter(torch.tensor(0.0, dtype=dtype)) if level else 0.0
    codes = torch.stack([torch.full((64,), level, dtype=dtype), nearly, other], dim=1).requires_grad_()
    penalty = ShapiroWilk()(codes, CodePosterior(codes))
    (gradient,) = torch.autograd.grad(penalty, codes)
    torch.testing.assert_close(penalty, (3 - ShapiroWilk().statistic(other[:, None]).sum()) / 3)
    assert (gradient[:, :2] == 0).all()
    assert gradient[:, 2].abs().sum() > 0


def test_two_equal_codes_are_no_obstacle() -> None:
    codes = torch.tensor([[0.0], [0.0], [1.0], [2.0], [2.0], [5.0]], requires_grad=True)
    torch.testing.assert_close(ShapiroWilk().statistic(codes).double(), oracle(codes.detach()), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(ShapiroWilk().statistic(codes).sum(), codes)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_none_is_not_hidden(bad: float) -> None:
    codes = torch.randn(64, 2)
    codes[3, 0] = bad
    found = ShapiroWilk().statistic(codes)
    assert found.isnan().tolist() == [True, False]


@pytest.mark.parametrize("count", [1, 2, 5001])
def test_batches_outside_the_fitted_range_are_refused(count: int) -> None:
    codes = torch.randn(count, 2)
    with pytest.raises(GenclsError, match=rf"ShapiroWilk: expected 3 to 5000 codes at once, got {count}"):
        ShapiroWilk()(codes, CodePosterior(codes))
    with pytest.raises(GenclsError, match=r"3 to 5000"):
        ShapiroWilk().statistic(codes)
