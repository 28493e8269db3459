"""Intervals and paired tests for accuracies and distances (Wilson's and McNemar's numerics are statsmodels' and scipy's)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gencls.core.errors import GenclsError
from gencls.eval.measures.domains import as_confidence, as_count, as_number, as_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "McNemar",
    "bootstrap_band",
    "bootstrap_counts",
    "holm",
    "mcnemar",
    "pairwise_mcnemar",
    "percentile_interval",
    "wilson",
    "wilson_band",
]

BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_BLOCK = 2_000_000
"""Values that the bootstrap holds at a time; its result does not depend on it."""


class McNemar(NamedTuple):
    """The outcome of McNemar's test on paired decisions.

    Attributes:
        b: Number of samples that only the first defense classifies correctly.
        c: Number of samples that only the second defense classifies correctly.
        p_value: Two-sided p-value of "both are equally often correct".
    """

    b: int
    c: int
    p_value: float


def wilson(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson score interval of a proportion (Wilson 1927).

    The successes may be fractional: the expected accuracy of a randomised defense is a mean over draws. The count stays
    the number of *samples*, since draws on one image are not independent evidence; the interval is then conservative.

    Args:
        successes: Number of successes, between 0 and `count`.
        count: Number of samples, at least 1.
        confidence: Coverage, strictly between 0 and 1.

    Returns:
        Lower and upper limit, both in [0, 1].

    Raises:
        GenclsError: An argument is outside its range.
    """
    low, high = wilson_band([as_number(successes, "successes", -np.inf, np.inf)], count, confidence)
    return float(low[0]), float(high[0])


def wilson_band(successes: npt.ArrayLike, count: int, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Compute Wilson score intervals of several proportions of the same samples, each for itself (pointwise).

    Args:
        successes: (P,) numbers of successes, between 0 and `count`.
        count: Number of samples, at least 1.
        confidence: Coverage of each interval, strictly between 0 and 1.

    Returns:
        (P,) lower and (P,) upper limits, all in [0, 1].

    Raises:
        GenclsError: An argument is outside its range.
    """
    values = as_numbers(successes, "successes")
    count = as_count(count, "interval: count", 1)
    outside = values[~((values >= 0) & (values <= count * (1 + 1e-9)))]  # a mean of draws times the count may round up
    if outside.size:
        raise GenclsError(f"expected between 0 and {count} successes, got {outside.flat[0]:g}")
    confidence = as_confidence(confidence)
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(np.minimum(values, count), count, alpha=1 - confidence, method="wilson")
    # At the borders the limit is the border itself; the formula misses it by rounding.
    return np.where(values > 0, low, 0.0), np.where(values < count, high, 1.0)


def bootstrap_band(
    values: npt.NDArray[Any],
    statistic: Callable[[npt.NDArray[Any]], Floats],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Compute the percentile bootstrap over samples (Efron 1979), pointwise for a statistic with several values.

    Args:
        values: (N,) one value per sample; may be infinite.
        statistic: A function from resamples (B, N) to (B, P), row by row. NaN, for resamples without a value, is left out.
        confidence: Coverage, strictly between 0 and 1.
        resamples: Number of resamples, at least 1.
        seed: Seed of numpy's generator; equal seeds resample equally, for arrays of equal length.

    Returns:
        (P,) lower and (P,) upper limits, values that a resample has taken: infinite ones are never averaged with others.

    Raises:
        GenclsError: There are no values or resamples, a value is NaN or no number, the confidence or the seed is out of range,
            or the statistic returns something else than numbers (B, P).
    """
    confidence, seed = as_confidence(confidence), as_count(seed, "bootstrap: seed", 0)
    numbers, resamples = as_numbers(values, "bootstrap: values"), as_count(resamples, "bootstrap: resamples", 1)
    if numbers.ndim != 1 or not numbers.size or bool(np.isnan(numbers).any()):
        got = "NaN" if numbers.size and np.isnan(numbers).any() else numbers.shape
        raise GenclsError(f"bootstrap: expected values of shape (N,), N >= 1, and none of them NaN, got {got}")
    if not callable(statistic):
        raise GenclsError(f"bootstrap: expected a statistic, a function, got {type(statistic).__name__}")
    values = np.asarray(values)
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(values))
    blocks = [min(rows, resamples - first) for first in range(0, resamples, rows)]
    # The generator hands out one stream of numbers, so that blocks of any size resample alike.
    drawn = (values[generator.integers(len(values), size=(b, len(values)))] for b in blocks)
    return percentile_interval(np.concatenate([_of_each(statistic(sample), len(sample)) for sample in drawn]), confidence)


def bootstrap_counts(count: int, *, resamples: int = 2000, seed: int = 0) -> npt.NDArray[np.int32]:
    """Resample as :func:`bootstrap_band` does, and count how often each resample holds each sample.

    They serve statistics of pairs of samples, and of several measurements of them. Means of values v (N,) are `counts @ v / N`.

    Args:
        count: N, at least 1.
        resamples: B, at least 1.
        seed: Seed of numpy's generator; equal seeds resample equally.

    Returns:
        (B, N) counts; each row sums to N.

    Raises:
        GenclsError: An argument is out of range.
    """
    count, resamples = as_count(count, "bootstrap: count", 1), as_count(resamples, "bootstrap: resamples", 1)
    generator = np.random.default_rng(as_count(seed, "bootstrap: seed", 0))
    drawn = (generator.integers(count, size=count) for _ in range(resamples))
    return np.stack([np.bincount(rows, minlength=count).astype(np.int32) for rows in drawn])


def percentile_interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Compute the limits between which a share of resampled values lies, with as many below as above.

    Args:
        values: (B, ...) values of a statistic in B resamples; may be infinite. NaN, for those without one, is left out.
        confidence: The share, strictly between 0 and 1.

    Returns:
        (...) lower and (...) upper limits, rounded outwards to values that a resample has taken; NaN where none has a value.

    Raises:
        GenclsError: There are no values, or the confidence is out of range.
    """
    found, tail = as_numbers(values, "percentile interval: values"), (1 - as_confidence(confidence)) / 2
    if not found.ndim or not len(found):
        raise GenclsError(f"percentile interval: expected values of shape (B, ...), B >= 1, got {found.shape}")
    found = np.where(empty := np.isnan(found).all(axis=0), 0.0, found)  # or numpy warns
    quantile: Any = np.nanquantile if np.isnan(found).any() else np.quantile  # the former is slow
    low, high = (quantile(found, share, axis=0, method=side) for share, side in ((tail, "lower"), (1 - tail, "higher")))
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mcnemar(a_correct: npt.ArrayLike, b_correct: npt.ArrayLike, *, mid_p: bool = False) -> McNemar:
    """McNemar's test: do two defenses differ on the same samples?

    Only the discordant samples count. Given their number n = b + c, b is Binomial(n, 1/2) under the hypothesis. The exact
    test is conservative; its mid-p variant counts the probability of the observed outcomes by half (Fagerland, Lydersen,
    Laake 2013, "The McNemar test for binary matched-pairs data").

    Args:
        a_correct: (N,) bool, whether the first defense is correct on each sample.
        b_correct: (N,) bool, the same samples in the same order for the second defense.
        mid_p: Use the mid-p variant in place of the exact test.

    Returns:
        The two discordant counts and the p-value (1 without discordant samples).

    Raises:
        GenclsError: The arrays are not bool, not of rank 1, empty, or of different lengths.
    """
    a, b = _decisions(a_correct, "first"), _decisions(b_correct, "second")
    if not isinstance(mid_p, bool | np.bool_):
        raise GenclsError(f"McNemar's test: expected mid_p to be True or False, got {type(mid_p).__name__}")
    if len(a) != len(b):
        raise GenclsError(f"expected the same samples for both defenses, got {len(a)} and {len(b)} decisions")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return McNemar(only_a, only_b, _discordant_p_value(only_a, only_b, mid_p=mid_p))


def holm(p_values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's step-down correction for several tests (Holm 1979), valid under any dependence between them.

    Args:
        p_values: (M,) p-values in [0, 1]; may be empty.

    Returns:
        (M,) adjusted p-values in the same order: compare each with the family-wise error rate.

    Raises:
        GenclsError: A p-value is missing or outside [0, 1], or the rank is not 1.
    """
    values = as_numbers(p_values, "p-values")
    if values.ndim != 1:
        raise GenclsError(f"expected p-values of shape (M,), got {values.shape}")
    bad = values[~((values >= 0) & (values <= 1))]
    if bad.size:
        raise GenclsError(f"expected p-values in [0, 1], got {bad[0]}")
    if not values.size:
        return values
    # As statsmodels' multipletests, which collects garbage at each call: a fifth of a second in a process with many modules.
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def pairwise_mcnemar(correct: Mapping[str, npt.ArrayLike]) -> pd.DataFrame:
    """McNemar's test for every pair of defenses on the same samples, with Holm's correction over the pairs.

    Args:
        correct: For each defense, (N,) bool decisions; samples in the same order everywhere.

    Returns:
        One row per pair, in the order of the mapping: `defense_a`, `defense_b`, `only_a`, `only_b` (samples that only one
        of them classifies correctly), `p_value` (exact), `p_holm`, `p_mid` (the mid-p variant), `p_mid_holm`.

    Raises:
        GenclsError: `mcnemar` raises it.
    """
    import pandas as pd

    if not isinstance(correct, Mapping):
        raise GenclsError(f"paired tests: expected decisions by defense, a mapping, got {type(correct).__name__}")
    pairs = list(combinations(correct, 2))
    tests = [mcnemar(correct[a], correct[b]) for a, b in pairs]
    exact = np.array([test.p_value for test in tests], dtype=np.float64)
    mid = np.array([_discordant_p_value(test.b, test.c, mid_p=True) for test in tests], dtype=np.float64)
    return pd.DataFrame(
        {
            "defense_a": [a for a, _ in pairs],
            "defense_b": [b for _, b in pairs],
            "only_a": np.array([test.b for test in tests], dtype=np.int64),
            "only_b": np.array([test.c for test in tests], dtype=np.int64),
            "p_value": exact,
            "p_holm": holm(exact),
            "p_mid": mid,
            "p_mid_holm": holm(mid),
        }
    )


def _of_each(found: Any, rows: int) -> Floats:
    values = as_numbers(found, "bootstrap: statistic")
    if values.ndim != 2 or len(values) != rows:
        raise GenclsError(f"bootstrap: expected a statistic of shape ({rows}, P), one row per resample, got {values.shape}")
    return values


def _decisions(values: npt.ArrayLike, name: str) -> BoolArray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenclsError(f"expected bool decisions for the {name} defense, got {type(values).__name__}: {error}") from None
    if array.dtype != np.bool_:
        raise GenclsError(f"expected bool decisions for the {name} defense, got dtype {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise GenclsError(f"expected decisions of shape (N,), N >= 1, for the {name} defense, got {array.shape}")
    return array


def _discordant_p_value(b: int, c: int, *, mid_p: bool) -> float:
    from scipy.stats import binom, binomtest

    if b + c == 0:
        return 1.0
    exact = float(binomtest(min(b, c), b + c, 0.5).pvalue)
    if not mid_p:
        return exact
    observed = float(binom.pmf(b, b + c, 0.5)) * (1 if b == c else 2)  # both tails hold an outcome as extreme as this one
    return exact - observed / 2
