"""Correlations against scipy and closed forms; coverage of their intervals for normal pairs."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from gencls.core import GenclsError
from gencls.eval.measures.correlation import correlation, pooled_correlation


def pairs(count: int, rho: float, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    first, other = np.random.default_rng(seed).standard_normal((2, count))
    return first, rho * first + math.sqrt(1 - rho**2) * other


def test_it_agrees_with_scipy() -> None:
    first, second = pairs(12, 0.5, seed=0)
    found, expected = correlation(first, second), stats.pearsonr(first, second)
    interval = expected.confidence_interval(0.95)
    assert found == pytest.approx((expected.statistic, interval.low, interval.high, 12))
    assert correlation(first, second**3, ranks=True).value == pytest.approx(stats.spearmanr(first, second).statistic)


def test_shift_and_scale_do_not_matter_and_a_sign_turns_it() -> None:
    first, second = pairs(9, 0.3, seed=1)
    found = correlation(first, second)
    assert correlation(5 - 2 * first, 1e-6 * second) == pytest.approx((-found.value, -found.high, -found.low, 9))
    assert correlation(first, first)[:3] == (1, 1, 1)


def test_what_a_third_number_explains_is_taken_out() -> None:
    """The textbook formula of partial correlation, and its interval with one pair fewer."""
    given = np.random.default_rng(2).standard_normal(15)
    first, second = (given + part for part in pairs(15, 0.4, seed=3))
    r = np.corrcoef([first, second, given])
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    found = correlation(first, second, given=given)
    assert found.value == pytest.approx(expected)
    half = stats.norm.isf(0.025) / math.sqrt(15 - 4)
    assert (found.low, found.high) == pytest.approx(
        (math.tanh(math.atanh(expected) - half), math.tanh(math.atanh(expected) + half))
    )
    assert math.isnan(correlation(first, given, given=given).value)


def test_between_groups_and_within_them_are_two_questions() -> None:
    """Means of groups that rise together, and pairs within the groups that fall: Simpson's paradox."""
    groups = np.repeat(np.arange(5), 4)
    inside = np.tile([0.0, 1.0, 2.0, 3.0], 5)
    first, second = 10 * groups + inside, 10 * groups - inside + 0.1 * np.tile([1, -1, -1, 1], 5)
    assert correlation(first, second).value > 0.9
    found = pooled_correlation(first, second, groups.tolist())
    assert found.value == pytest.approx(-5 / math.sqrt(5 * (5 + 0.04)))  # 4 * 0.1^2 per group, orthogonal to the line
    half = stats.norm.isf(0.025) / math.sqrt(20 - 4 - 3)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.value) - half))
    shuffled = np.random.default_rng(0).permutation(20)
    assert pooled_correlation(first[shuffled], second[shuffled], groups[shuffled].tolist()) == pytest.approx(found)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["pairs", "ranks", "given", "within"])
def test_intervals_cover(kind: str, rho: float) -> None:
    """95 % of intervals for normal pairs; 600 trials have a standard error of 0.9 points, and Fisher's is approximate."""
    covered = 0
    for trial in range(600):
        first, second = pairs(12, rho, seed=trial)
        shift = np.random.default_rng(trial + 10**6).standard_normal(12)
        if kind == "within":
            groups = [number // 3 for number in range(12)]
            found = pooled_correlation(first + shift[groups], second + shift[groups], groups)
        elif kind == "given":
            found = correlation(first + shift, second - shift, given=shift)
        else:
            found = correlation(first, second, ranks=kind == "ranks")
        true = 6 / math.pi * math.asin(rho / 2) if kind == "ranks" else rho  # Spearman's of normal pairs
        covered += found.low <= true <= found.high
    assert 0.91 < covered / 600 < 0.985


def test_too_few_pairs_have_no_interval_and_what_does_not_vary_no_value() -> None:
    three = correlation([1, 2, 3], [1, 3, 2])
    assert three.value == pytest.approx(0.5)
    assert math.isnan(three.low)
    assert math.isnan(correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).value)
    assert math.isnan(pooled_correlation([1, 2, 3], [1, 2, 4], ["a", "b", "c"]).value)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [2.0], "two or more pairs"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "two or more pairs"),
        ([1.0, 2.0], [1.0, math.nan], "finite"),
        (["a", "b"], [1.0, 2.0], "expected numbers"),
    ],
)
def test_bad_numbers(first: Any, second: Any, message: str) -> None:
    with pytest.raises(GenclsError, match=f"correlation: .*{message}"):
        correlation(first, second)


def test_bad_groups() -> None:
    with pytest.raises(GenclsError, match="the group of each of 2 pairs, got 1"):
        pooled_correlation([1.0, 2.0], [1.0, 2.0], ["a"])
