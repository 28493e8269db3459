"""Intervals for a number that depends on two samples: the images that were measured, and the seeds a model was trained with.

The two samples are crossed: the same N images measure each of the S trained seeds. So a number varies for three reasons: the
seeds, the images (which all seeds share), and both together. A two-level bootstrap draws seeds, then images, and reads off
percentiles. With the usual three seeds that is unsound, since three seeds have only ten different resamples, whose variance is
too small by (S - 1)/S. Intervals by the seeds alone, or by the images alone, leave out the other part.

Here both levels of the bootstrap have small-sample corrections. The variance of the outer level is known in closed form;
S/(S - 1) makes it unbiased. The inner level resamples the images, the same ones for all seeds. Both levels hold what images and
seeds make together, and it is taken out of the second one. Each level has its quantile of Student's t, and the half widths add
up as squares (Howe 1974, "Approximate confidence limits on the mean of X + Y", JASA 69). With three seeds the quantile is 4.3,
so small differences stay open: more seeds help more than more images.

``tests/eval/measures/test_seed_coverage.py`` simulates 2000 studies of 64 images. With 3 seeds the intervals of 95 % contain
the true area in 94 to 96 %, whatever varies most. Percentiles of the two-level bootstrap do so in 76 to 99 %, intervals by the
seeds alone in 62 to 95 %, by the images alone in 34 to 94 %. With 2, 5 and 10 seeds it is 92 to 98 %, for a difference of two
models 96 to 98 %. docs/latent-distortion.md has the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gencls.core import GenclsError
from gencls.eval.measures.domains import as_confidence

__all__ = ["Over", "Replicates", "Uncertain", "combine"]

Floats = npt.NDArray[np.float64]

Over = Literal["images", "seeds", "seeds and images"]
"""What an interval covers: other images with these trained seeds, other seeds with these images, or both."""


class Replicates(NamedTuple):
    """A statistic with P values, of S trained seeds of one model.

    Attributes:
        found: (S, P) the statistic of each seed on all N images.
        resampled: (B, S, P) the statistic of each seed in B resamples of the images, the same for all seeds and models.
    """

    found: Floats
    resampled: Floats


@dataclass(frozen=True)
class Uncertain:
    """A weighted sum of means over seeds, with the two parts of its variance.

    Attributes:
        value: (P,) the sum.
        seeds: (P,) its variance between trainings; 0 where the seeds are given.
        seed_freedom: (P,) the degrees of freedom of this variance (Welch and Satterthwaite).
        images: (P,) its variance between samples of images; 0 where the images are given.
        image_freedom: N - 1.
    """

    value: Floats
    seeds: Floats
    seed_freedom: Floats
    images: Floats
    image_freedom: int

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Compute the lower and the upper limits, (P,) each.

        Raises:
            GenclsError: the confidence is not strictly between 0 and 1.
        """
        half = self._half_width((1 - as_confidence(confidence)) / 2)
        return self.value - half, self.value + half

    def p_values(self) -> Floats:
        """Compute the error probabilities (P,) at which each interval just reaches 0; those below 1e-130 are given as that."""
        low, high = np.full(self.value.shape, -300.0), np.zeros(self.value.shape)  # logarithms
        for _ in range(45):  # bisection: the half width falls as the probability grows
            middle = (low + high) / 2
            reaches = self._half_width(np.exp(middle) / 2) >= abs(self.value)
            low, high = np.where(reaches, middle, low), np.where(reaches, high, middle)
        sure = (self.seeds + self.images) == 0
        return np.where(self.value == 0, 1.0, np.where(sure, 0.0, np.exp((low + high) / 2)))

    def _half_width(self, tail: float | Floats) -> Floats:
        """Half widths (P,) of intervals that leave out this probability on each side."""
        from scipy.stats import t

        parts = ((self.seeds, self.seed_freedom), (self.images, self.image_freedom))
        widths = [t.isf(tail, freedom) * np.sqrt(variance) for variance, freedom in parts]
        half: Floats = np.hypot(*widths)  # squares of large quantiles would be infinite
        return half


def combine(groups: Sequence[Replicates], weights: Sequence[float], images: int, over: Over) -> Uncertain:
    """Add up the means over seeds of several models, each with its weight, and say how uncertain the sum is.

    Seeds of different models count as independent. The images are the same for all models, so what they share cancels out.

    Args:
        groups: the replicates of each model, with equally many resamples B and values P.
        weights: one weight for each model: 1 for a mean, 1 and -1 for a difference.
        images: the number N of images.
        over: what the interval covers.

    Raises:
        GenclsError: the interval is over seeds and a model has one, or over images and there is one.
    """
    if over not in ("images", "seeds", "seeds and images"):
        raise GenclsError(f"interval: expected over to be images, seeds, or seeds and images, got {over!r}")
    if "images" in over and images < 2:
        raise GenclsError(f"interval over {over}: expected at least two images, got {images}")
    value = sum(weight * group.found.mean(axis=0) for group, weight in zip(groups, weights, strict=True))
    nothing = np.zeros_like(np.asarray(value))
    seeds, freedom = (nothing, nothing + 1) if over == "images" else _between_seeds(groups, weights, over)
    shared = nothing if over == "seeds" else _between_images(groups, weights, images, without_seeds=over != "images")
    return Uncertain(np.asarray(value), seeds, freedom, shared, max(images - 1, 1))


def _between_seeds(groups: Sequence[Replicates], weights: Sequence[float], over: Over) -> tuple[Floats, Floats]:
    """The variance (P,) of the weighted sum between trainings, and its degrees of freedom (Welch 1947)."""
    few = [len(group.found) for group, weight in zip(groups, weights, strict=True) if weight and len(group.found) < 2]
    if few:
        raise GenclsError(
            f"interval over {over}: expected curves of at least two trained seeds, got {few[0]}; "
            "over='images' takes the trained network as it is"
        )
    parts, freedoms = [], []
    for group, weight in zip(groups, weights, strict=True):
        if weight:
            parts.append(weight**2 * group.found.var(axis=0, ddof=1) / len(group.found))
            freedoms.append(len(group.found) - 1)
    total: Floats = np.sum(parts, axis=0)
    share = np.stack(parts) / np.where(total > 0, total, 1.0)  # ratios first: squares of small variances are no numbers
    spread = sum(part**2 / freedom for part, freedom in zip(share, freedoms, strict=True))
    return total, np.where(total > 0, 1 / np.where(total > 0, spread, 1.0), float(min(freedoms)))


def _between_images(groups: Sequence[Replicates], weights: Sequence[float], images: int, *, without_seeds: bool) -> Floats:
    """The variance (P,) of the weighted sum between samples of images, with or without what varies with the seed, too."""
    correction = images / (images - 1)  # the bootstrap's variance of a mean has N where the unbiased one has N - 1
    sums = sum(weight * group.resampled.mean(axis=1) for group, weight in zip(groups, weights, strict=True))
    variance: Floats = np.var(np.asarray(sums), axis=0) * correction
    for group, weight in zip(groups, weights, strict=True):
        seeds = len(group.found)
        if without_seeds and weight:
            # One seed varies by a + b, the mean of S seeds by a + b/S, where b is what images and this seed make together.
            alone, together = group.resampled.var(axis=0).mean(axis=0), group.resampled.mean(axis=1).var(axis=0)
            variance = variance - weight**2 * np.maximum(alone - together, 0.0) / (seeds - 1) * correction
    return np.maximum(variance, 0.0)
