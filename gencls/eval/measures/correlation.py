"""Correlations of two numbers of each network, with intervals: between models, and between the seeds of one model.

Networks of one model that differ in their seed alone are no independent pairs. Two questions have honest answers:

- between models: :func:`correlation` of the means over seeds, one pair per model;
- between seeds of a model: :func:`pooled_correlation` of what is left when each model's own mean is taken away.

The intervals are Fisher's, for pairs that are about normal. With few models they are wide. Noise in the numbers themselves, for
instance from few images, pulls a correlation towards 0 and is not in the interval.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gencls.core.errors import GenclsError
from gencls.eval.measures.domains import as_confidence, as_numbers

__all__ = ["Correlation", "correlation", "pooled_correlation"]

Floats = npt.NDArray[np.float64]


class Correlation(NamedTuple):
    """A coefficient of correlation with its interval.

    Attributes:
        value: the coefficient, in [-1, 1]; NaN if one of the numbers does not vary.
        low: the lower limit of the interval; NaN with too few pairs for one.
        high: the upper limit.
        n: number of pairs.
    """

    value: float
    low: float
    high: float
    n: int


def correlation(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    given: npt.ArrayLike | None = None,
    ranks: bool = False,
    confidence: float = 0.95,
) -> Correlation:
    """Compute the correlation of independent pairs.

    Source: Fisher 1924 for the interval, also with a third number held fixed; Bonett and Wright 2000, Psychometrika 65, for
    ranks, whose variance is larger by the factor 1 + r^2 / 2.

    Args:
        first: (N,) one finite number per pair.
        second: (N,) the other one.
        given: (N,) a third number, whose linear part is taken out of both (partial correlation); None takes nothing out.
        ranks: take the ranks of all numbers (Spearman), and so any growing relation for a straight line; equal numbers share
            their mean rank.
        confidence: coverage of the interval, strictly between 0 and 1.

    Raises:
        GenclsError: the numbers are no finite ones, not equally many, or fewer than two; the confidence is out of range.
    """
    columns = _columns(first, second, *([] if given is None else [given]))
    if ranks:
        from scipy.stats import rankdata

        columns = [np.asarray(rankdata(column), dtype=np.float64) for column in columns]
    centred = [column - column.mean() for column in columns]
    if given is not None:
        fixed = centred.pop()
        square = float(fixed @ fixed)
        centred = [column - fixed * float(column @ fixed) / square if square else column for column in centred]
    freedom = len(columns[0]) - 3 - (given is not None)
    return _interval(centred, columns[:2], freedom, ranks, as_confidence(confidence))


def pooled_correlation(
    first: npt.ArrayLike, second: npt.ArrayLike, groups: Sequence[Hashable], *, confidence: float = 0.95
) -> Correlation:
    """Compute the correlation of pairs within their groups: deviations from the means of each group, all groups together.

    It is the partial correlation given the group, which takes as many degrees of freedom as there are groups, less one.

    Args:
        first: (N,) one finite number per pair.
        second: (N,) the other one.
        groups: (N,) the group of each pair, such as the model of a trained network.
        confidence: coverage of the interval, strictly between 0 and 1.

    Raises:
        GenclsError: as :func:`correlation`; or there are not as many groups as pairs.
    """
    columns, places = _columns(first, second), {name: place for place, name in enumerate(dict.fromkeys(groups))}
    if len(groups) != len(columns[0]):
        raise GenclsError(f"correlation: expected the group of each of {len(columns[0])} pairs, got {len(groups)}")
    index = np.array([places[name] for name in groups])
    sizes = np.bincount(index)
    centred = [column - (np.bincount(index, weights=column) / sizes)[index] for column in columns]
    return _interval(centred, columns, len(index) - len(sizes) - 2, False, as_confidence(confidence))


def _columns(*columns: npt.ArrayLike) -> list[Floats]:
    found = [as_numbers(column, "correlation") for column in columns]
    shapes = [column.shape for column in found]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise GenclsError(f"correlation: expected two or more pairs of numbers, got numbers of shape {shapes}")
    if not all(bool(np.isfinite(column).all()) for column in found):
        raise GenclsError("correlation: expected finite numbers, got NaN or infinity")
    return found


def _interval(left: Sequence[Floats], whole: Sequence[Floats], freedom: int, ranks: bool, confidence: float) -> Correlation:
    """Correlate what is left of two columns; ``freedom`` is one over the variance of Fisher's transform."""
    from scipy.stats import norm

    (first, second), nan = left, math.nan
    count = len(first)
    # What is left of a column that is explained wholly is rounding.
    limits = [1e-20 * max(float(column @ column), 1e-300) for column in whole]
    if any(float(part @ part) <= limit for part, limit in zip(left, limits, strict=True)):
        return Correlation(nan, nan, nan, count)
    value = float(np.clip(first @ second / math.sqrt(float(first @ first) * float(second @ second)), -1, 1))
    if freedom < 1:
        return Correlation(value, nan, nan, count)
    if abs(value) == 1:
        return Correlation(value, value, value, count)
    half = float(norm.isf((1 - confidence) / 2)) * math.sqrt((1 + value**2 / 2 if ranks else 1) / freedom)
    low, high = (math.tanh(math.atanh(value) + side * half) for side in (-1, 1))
    return Correlation(value, low, high, count)
