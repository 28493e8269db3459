"""Statistics of codes before and after an attack: mean absolute entries (latent-robustness paper, eq. 7) and their spread."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gencls.core import GenclsError
from gencls.eval.measures.domains import as_codes, as_confidence
from gencls.eval.measures.statistics import bootstrap_counts, percentile_interval

if TYPE_CHECKING:
    import pandas

__all__ = ["MeanAbsoluteCodes", "SpreadRatio", "mean_absolute_codes", "spread_ratio"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanAbsoluteCodes:
    """Mean absolute codes, one number per dimension, in the unit of the codes.

    Attributes:
        before: (d,) E|Z_j|, before the attack.
        after: (d,) E|Z_j^adv|, after it.
        change: (d,) E|delta_j|, the mean absolute difference of the two.
        half_widths: (3, d) half widths of the intervals over images of the three, for each dimension by itself.
        n: the number N of codes.
    """

    before: Floats
    after: Floats
    change: Floats
    half_widths: Floats
    n: int

    def frame(self) -> "pandas.DataFrame":
        """The means as a table, one row per quantity and dimension (from 1): ``mean``, ``ci_low``, ``ci_high``."""
        import pandas

        means = {"before": self.before, "after": self.after, "change": self.change}
        tables = [
            pandas.DataFrame({"quantity": name, "dimension": range(1, len(mean) + 1), "mean": mean}).assign(
                ci_low=np.maximum(mean - half, 0.0), ci_high=mean + half
            )
            for (name, mean), half in zip(means.items(), self.half_widths, strict=True)
        ]
        return pandas.concat(tables, ignore_index=True)


class SpreadRatio(NamedTuple):
    """How widely codes scatter after an attack, as a multiple of before; below 1 they have moved together.

    Attributes:
        value: the ratio of the two root mean squared distances from the mean code.
        low: the lower limit of its interval over images.
        high: the upper limit.
    """

    value: float
    low: float
    high: float


def mean_absolute_codes(before: npt.ArrayLike, after: npt.ArrayLike, *, confidence: float = 0.95) -> MeanAbsoluteCodes:
    """Compute the mean absolute codes before and after an attack and their mean absolute difference, by dimension.

    Source: Lu and Chen, "On the Adversarial Robustness of Generative Autoencoders in the Latent Space", eq. 7. The paper has
    no intervals; these are Student's, over images.

    Args:
        before: the codes of N images, (N, ...), N >= 2; dimensions beyond the first are flattened to d.
        after: the codes of the same images after the attack, of the same shape.
        confidence: the coverage of each interval, strictly between 0 and 1.

    Raises:
        GenclsError: codes have different shapes or hold something else than finite numbers, or the confidence is out of range.
    """
    from scipy.stats import t

    first, second = _pair(before, after)
    count, absolute = len(first), np.abs(np.stack([first, second, second - first]))
    quantile = t.isf((1 - as_confidence(confidence)) / 2, count - 1)
    means, half_widths = absolute.mean(axis=1), quantile * absolute.std(axis=1, ddof=1) / count**0.5
    return MeanAbsoluteCodes(means[0], means[1], means[2], half_widths, count)


def spread_ratio(
    before: npt.ArrayLike, after: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> SpreadRatio:
    """Compare how widely codes scatter before and after an attack.

    The paper reads off its t-SNE maps (Figure 9) that attacked codes scatter less, but such a map keeps neighbours, not
    distances. This ratio is measured in the codes themselves.

    Args:
        before: the codes of N images, (N, ...), N >= 2.
        after: the codes of the same images after the attack, of the same shape.
        confidence: the coverage of the percentile bootstrap over images, strictly between 0 and 1.
        resamples: the number B of resamples, at least 1.
        seed: the seed of the resampling, for numpy.

    Raises:
        GenclsError: codes have different shapes, hold something else than finite numbers, or are all equal before the attack,
            or an argument is out of range.
    """
    first, second = _pair(before, after)
    counts = bootstrap_counts(len(first), resamples=resamples, seed=seed)
    weights = np.concatenate([np.ones((1, len(first))), counts]) / len(first)
    spread_before, spread_after = _spreads(first, weights), _spreads(second, weights)
    if not spread_before[0] > 0:
        raise GenclsError(f"spread: expected codes that differ before the attack, got {len(first)} equal ones")
    drawn = spread_before > 0  # a resample of one image has no spread
    ratios = spread_after[drawn] / spread_before[drawn]
    low, high = percentile_interval(ratios[1:] if len(ratios) > 1 else ratios, confidence)
    return SpreadRatio(float(ratios[0]), float(low), float(high))


def _pair(before: npt.ArrayLike, after: npt.ArrayLike) -> tuple[Floats, Floats]:
    first, second = as_codes(before, "codes before the attack", 2), as_codes(after, "codes after the attack", 2)
    if np.shape(before) != np.shape(after):
        raise GenclsError(
            f"codes: expected one shape before and after the attack, got {np.shape(before)} and {np.shape(after)}"
        )
    return first, second


def _spreads(codes: Floats, weights: Floats) -> Floats:
    """Root mean squared distances (B,) of codes (N, d) from their mean, with weights (B, N) that sum to 1."""
    centred = codes - codes.mean(axis=0)
    squares = weights @ np.square(centred).sum(axis=1) - np.square(weights @ centred).sum(axis=1)
    # What is left of equal codes is rounding.
    found: Floats = np.sqrt(np.where(squares > 1e-12 * np.square(codes).sum(axis=1).max(), squares, 0.0))
    return found
