"""Proofs from random draws: one-sided bounds and a test, each with its failure probability alpha.

Arguments are numbers or arrays (P,) alike, and so are results.
"""

import math
from typing import Any

import numpy as np

from gencls.core import GenclsError, checked

__all__ = ["clopper_pearson", "empirical_bernstein", "majority_p_value"]


@checked
def clopper_pearson(successes: Any, n: int, alpha: float) -> Any:
    """A lower bound of a proportion that exceeds it with probability at most alpha (Clopper and Pearson 1934).

    It is the p at which ``successes`` or more among n have probability alpha, the alpha quantile of
    Beta(successes, n - successes + 1).

    Raises:
        GenclsError: for successes outside 0 .. n, n < 1 or alpha outside (0, 1).
    """
    from scipy.special import betaincinv

    _check("Clopper-Pearson", n, alpha)
    found = _within("Clopper-Pearson: successes", successes, n)
    return np.where(found > 0, betaincinv(np.maximum(found, 1), n - found + 1, alpha), 0.0)


@checked
def empirical_bernstein(mean: Any, variance: Any, n: int, alpha: float) -> Any:
    """A lower bound of the expectation of numbers in [0, 1] that exceeds it with probability at most alpha.

        mean - sqrt(2 variance log(2 / alpha) / n) - 7 log(2 / alpha) / (3 (n - 1)),    0 where this is negative

    (Maurer and Pontil 2009, arXiv:0907.3740, Theorem 4). If most numbers are close to 1, it is far above Hoeffding's bound.
    The variance is the unbiased one. A single number has the bound 0, whatever ``variance`` says.

    Raises:
        GenclsError: for a mean outside [0, 1], a variance outside [0, n / (4 (n - 1))], n < 1 or alpha outside (0, 1).
    """
    _check("empirical Bernstein", n, alpha)
    mean = _within("empirical Bernstein: mean", mean, 1)
    if n == 1:
        return np.zeros_like(mean, dtype=np.float64)
    variance = _within("empirical Bernstein: variance", variance, n / (4 * (n - 1)))
    _check_shapes("empirical Bernstein", mean, variance)
    log = math.log(2 / alpha)
    return np.maximum(mean - np.sqrt(2 * variance * log / n) - 7 * log / (3 * (n - 1)), 0.0)


def majority_p_value(first: Any, second: Any) -> Any:
    """Two-sided binomial test of whether two counts, ``first`` > 0 and ``second`` <= ``first``, are equally likely.

    2 P[Bin(first + second, 1/2) <= second], at most 1; also 1 if ``second`` is larger.

    Raises:
        GenclsError: for a negative count, a ``first`` of 0, or two arrays of different shapes.
    """
    from scipy.special import betainc

    first, second = (_within(f"majority: {name}", value, np.inf) for name, value in (("first", first), ("second", second)))
    _check_shapes("majority", first, second)
    if not bool((first > 0).all()):
        raise GenclsError("majority: expected a first count > 0, got 0")
    return np.minimum(2 * betainc(first, second + 1, 0.5), 1.0)


def _check(name: str, n: int, alpha: float) -> None:
    if n < 1 or not 0 < alpha < 1:
        raise GenclsError(f"{name}: expected n >= 1 and alpha in (0, 1), got n={n} and alpha={alpha}")


def _check_shapes(name: str, a: Any, b: Any) -> None:
    if a.ndim and b.ndim and a.shape != b.shape:
        raise GenclsError(f"{name}: expected two arrays of the same shape, got {a.shape} and {b.shape}")


def _within(what: str, values: Any, high: float) -> Any:
    """Values as an array of numbers in [0, high]; rounding may leave the interval, because sums of draws become means."""
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenclsError(f"{what}: expected numbers, got {type(values).__name__}: {error}") from None
    if found.dtype.kind not in "biuf":
        raise GenclsError(f"{what}: expected numbers, got dtype {found.dtype}")
    found = found.astype(np.float64)
    slack = 0.0 if np.isinf(high) else 1e-9 * high
    outside = found[~((found >= -slack) & (found <= high + slack))]
    if outside.size:
        raise GenclsError(f"{what}: expected values in [0, {high:g}], got {outside.flat[0]:g}")
    return found.clip(0, high)
