"""What a number of random draws proves: one-sided bounds and a test, each with its failure probability alpha.

Arguments are numbers or arrays (P,) alike, and so are results.
"""

import math
from typing import Any

import numpy as np

__all__ = ["clopper_pearson", "empirical_bernstein", "majority_p_value"]


def clopper_pearson(successes: Any, n: int, alpha: float) -> Any:
    """A lower bound of a proportion that exceeds it with probability at most alpha (Clopper and Pearson 1934).

    It is the p at which ``successes`` or more among n have probability alpha, the alpha quantile of
    Beta(successes, n - successes + 1).

    Args:
        successes: 0 .. n.
        n: trials.
        alpha: in (0, 1).
    """
    from scipy.special import betaincinv

    found = np.asarray(successes)
    return np.where(found > 0, betaincinv(np.maximum(found, 1), n - found + 1, alpha), 0.0)


def empirical_bernstein(mean: Any, variance: Any, n: int, alpha: float) -> Any:
    """A lower bound of the expectation of numbers in [0, 1] that exceeds it with probability at most alpha.

        mean - sqrt(2 variance log(2 / alpha) / n) - 7 log(2 / alpha) / (3 (n - 1)),    0 where this is negative

    (Maurer and Pontil 2009, arXiv:0907.3740, Theorem 4). Where most numbers are close to 1 it is far above Hoeffding's.

    Args:
        mean: of n independent numbers.
        variance: their unbiased one.
        n: how many; one alone has the bound 0.
        alpha: in (0, 1).
    """
    if n == 1:
        return np.zeros_like(mean, dtype=np.float64)
    log = math.log(2 / alpha)
    return np.maximum(mean - np.sqrt(2 * np.asarray(variance) * log / n) - 7 * log / (3 * (n - 1)), 0.0)


def majority_p_value(first: Any, second: Any) -> Any:
    """Two-sided binomial test of whether two counts, ``first`` > 0 and ``second`` <= ``first``, are equally likely.

    2 P[Bin(first + second, 1/2) <= second], at most 1; also 1 where ``second`` is the larger one.
    """
    from scipy.special import betainc

    return np.minimum(2 * betainc(first, np.asarray(second) + 1, 0.5), 1.0)
