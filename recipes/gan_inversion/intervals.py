"""Estimates with their 95 % intervals: bootstraps over the images, the same resamples for every setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gencls.eval.measures.statistics import bootstrap_counts, percentile_interval
from gencls.eval.report.formats import MISSING

__all__ = ["Correlation", "Estimate", "correlation", "excess", "excesses", "mean_estimate", "means", "resamples"]

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A value and the limits of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: npt.ArrayLike) -> "Estimate":
        """Take the interval from the values (B,) of the resamples; NaN marks those that have none."""
        found = np.asarray(resampled, dtype=np.float64)
        if np.isnan(found).all():
            return cls(value, np.nan, np.nan)
        low, high = percentile_interval(found)
        return cls(value, float(low), float(high))

    @classmethod
    def corrected(cls, value: float, resampled: npt.ArrayLike) -> "Estimate":
        """Take a bias-corrected interval from the values (B,) of the resamples; NaN marks those that have none.

        For statistics that noise moves in one direction: it brings a correlation nearer to 0 and makes a maximum larger. A
        resample adds the noise of the sample a second time, so its percentiles lie to one side. They are taken as far to the
        other: at Φ(2 z_0 ± 1.96), where Φ(z_0) is the share of resamples below the value; those equal to it count by half.

        Source: Efron 1981, "Nonparametric standard errors and confidence intervals"; Efron and Tibshirani 1993, section 14.3,
        without acceleration.
        """
        found = np.asarray(resampled, dtype=np.float64)
        found = found[~np.isnan(found)]
        if not found.size or np.isnan(value):
            return cls(value, np.nan, np.nan)
        below = (found < value).sum() + (found == value).sum() / 2
        z_0 = _NORMAL.inv_cdf((below + 0.5) / (found.size + 1))  # finite even if all resamples lie to one side
        low, high = (_NORMAL.cdf(2 * z_0 + side * _NORMAL.inv_cdf(0.975)) for side in (-1, 1))
        limits = np.quantile(found, low, method="lower"), np.quantile(found, high, method="higher")
        return cls(value, float(limits[0]), float(limits[1]))

    @property
    def verdict(self) -> str:
        """Whether a claim that the value is positive holds, as far as the interval says; a dash without an interval."""
        if np.isnan(self.low):
            return MISSING
        return "holds" if self.low > 0 else "does not hold" if self.high < 0 else "open"

    @property
    def turned(self) -> "Estimate":
        """The same with the other sign."""
        return Estimate(-self.value, -self.high, -self.low)

    def text(self, form: str = "+.1f") -> str:
        """Write value and interval; a dash for what is not known."""
        if np.isnan(self.value):
            return MISSING
        return f"{self.value:{form}}" if np.isnan(self.low) else f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def resamples(count: int) -> npt.NDArray[np.int32]:
    """How often each of N images is in each resample, (B, N); equal for equal N, so that settings are compared in pairs."""
    return bootstrap_counts(count)


def means(values: Sequence[npt.ArrayLike]) -> tuple[Floats, Floats]:
    """The means (S,) of S measurements on the same images, each (N,), and those of every resample, (S, B)."""
    found = np.stack([np.asarray(one, dtype=np.float64) for one in values])
    return found.mean(1), found @ resamples(found.shape[1]).T / found.shape[1]


def mean_estimate(values: npt.ArrayLike) -> Estimate:
    """The mean of values (N,), one per image, which may be paired differences."""
    value, resampled = means([values])
    return Estimate.of(float(value[0]), resampled[0])


@dataclass(frozen=True)
class Correlation:
    """Pearson's and Spearman's coefficients over settings, and the number of these."""

    pearson: Estimate
    spearman: Estimate
    count: int

    @property
    def known(self) -> bool:
        """Whether both are numbers."""
        return not bool(np.isnan([self.pearson.value, self.spearman.value]).any())

    @property
    def verdict(self) -> str:
        """Whether a claim that both are positive holds: the verdict that both share, else "open"."""
        return self.pearson.verdict if self.pearson.verdict == self.spearman.verdict else "open"

    @property
    def turned(self) -> "Correlation":
        """The same with the other sign."""
        return Correlation(self.pearson.turned, self.spearman.turned, self.count)

    def text(self) -> str:
        """Write both."""
        return f"Pearson {self.pearson.text('+.2f')}, Spearman {self.spearman.text('+.2f')}"


def correlation(first: npt.ArrayLike, second: npt.ArrayLike, resampled: Sequence[npt.ArrayLike] = ()) -> Correlation:
    """Correlate two values of S settings; NaN for fewer than three settings, or for a value that never changes.

    Few images make both values noisy, so that even the coefficients are too near to 0. The intervals are bias-corrected.

    Args:
        first: (S,).
        second: (S,).
        resampled: the first and the second values in B resamples of the images, each (S, B); without them no intervals.
    """
    both = [np.asarray(values, dtype=np.float64)[None] for values in (first, second)]
    count = both[0].shape[1]
    if count < 3:
        both = [np.full((1, 3), np.nan)] * 2
    again = [np.asarray(values, dtype=np.float64).T for values in resampled] or [np.full((1, 3), np.nan)] * 2
    return Correlation(
        Estimate.corrected(float(_pearson(*both)[0]), _pearson(*again)),
        Estimate.corrected(float(_pearson(*map(_ranks, both))[0]), _pearson(*map(_ranks, again))),
        count,
    )


def excess(means: Sequence[float], reference: float) -> float:
    """How far the peak of a line lies on the way from its ends (0) to the reference (1); infinite if the ends are beyond it."""
    return float(_excess(np.asarray([means], dtype=np.float64), np.asarray([reference], dtype=np.float64))[0])


def excesses(lines: npt.ArrayLike, outside: npt.ArrayLike) -> tuple[float, Floats]:
    """The :func:`excess` of mean distances, of all images and in each resample, (B,).

    Args:
        lines: distances along the line of each image, (N, 11).
        outside: distances out of domain, (N,); their mean is the reference.
    """
    values, references = np.asarray(lines, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    counts = resamples(len(values))
    found = _excess(counts @ values / len(values), counts @ references / len(values))
    return excess(values.mean(0).tolist(), float(references.mean())), found


def _excess(means: Floats, references: Floats) -> Floats:
    ends = (means[:, 0] + means[:, -1]) / 2
    way = references - ends
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(way > 0, (means.max(1) - ends) / way, np.inf)


def _pearson(first: Floats, second: Floats) -> Floats:
    """Row by row, (B, S) and (B, S) to (B,); NaN where a row does not change."""
    changing = (np.ptp(first, axis=1) > 0) & (np.ptp(second, axis=1) > 0)
    one, two = (values - values.mean(1, keepdims=True) for values in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (one * two).sum(1) / np.sqrt((one**2).sum(1) * (two**2).sum(1))
    return np.where(changing, found, np.nan)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    found: Floats = rankdata(values, axis=1, nan_policy="propagate")
    return found
