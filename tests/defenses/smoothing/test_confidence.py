"""Confidence bounds cover as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from gencls.defenses.smoothing.confidence import clopper_pearson, empirical_bernstein


@pytest.mark.parametrize("n", [20, 137])
def test_coverage_of_clopper_pearson_is_exact(n):
    """For every p the probability of a bound above p, summed over all counts, is at most alpha, and not much less."""
    alpha, counts = 0.05, np.arange(n + 1)
    bounds = clopper_pearson(counts, n, alpha)
    assert bounds[0] == 0
    assert bounds[-1] == pytest.approx(alpha ** (1 / n))
    failures = [stats.binom.pmf(counts, n, p)[bounds > p].sum() for p in np.linspace(0.005, 0.995, 199)]
    assert max(failures) <= alpha + 1e-12
    assert max(failures) > 0.9 * alpha


def test_coverage_of_clopper_pearson_in_simulation():
    """20,000 counts; the rate of failures has a standard deviation of 0.0015."""
    source = np.random.default_rng(0)
    for p in (0.55, 0.9, 0.99):
        bounds = clopper_pearson(source.binomial(500, p, size=20_000), 500, 0.05)
        assert np.mean(bounds > p) <= 0.05 + 4 * 0.0015


def test_coverage_of_empirical_bernstein():
    """Means of skew numbers in [0, 1]; the bound is a loose one, and never above what it bounds in more than alpha."""
    source, n, alpha = np.random.default_rng(0), 300, 0.1
    for a, b in ((5.0, 0.2), (0.1, 0.1), (1.0, 3.0)):
        numbers = source.beta(a, b, size=(4000, n))
        bounds = empirical_bernstein(numbers.mean(1), numbers.var(1, ddof=1), n, alpha)
        assert np.mean(bounds > a / (a + b)) <= alpha
        assert np.mean(bounds) > a / (a + b) - 0.16
    by_hand = 0.9 - math.sqrt(2 * 0.01 * math.log(20) / 100) - 7 * math.log(20) / 297
    assert empirical_bernstein(0.9, 0.01, 100, 0.1) == pytest.approx(by_hand, rel=1e-12)
    assert empirical_bernstein(0.9, 0.01, 1, 0.1) == 0
    hoeffding = 0.99 - math.sqrt(math.log(1000) / 2e5)
    assert empirical_bernstein(0.99, 1e-4, 100_000, 0.001) > hoeffding
