"""Bands of distortion-distortion curves, intervals of their areas, and verdicts which of two models is more robust.

All take the curves of one model as a list with one curve per trained seed. The images are the same everywhere, in one order.
:mod:`gencls.eval.measures.trained_seeds` says how images and seeds make an interval, and how well the intervals cover.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gencls.core import GenclsError
from gencls.eval.measures.distortion_curves import MeasuredCurve
from gencls.eval.measures.domains import as_number
from gencls.eval.measures.statistics import bootstrap_counts, holm
from gencls.eval.measures.trained_seeds import Over, Replicates, Uncertain, combine

if TYPE_CHECKING:
    import pandas

__all__ = [
    "AreaInterval",
    "CurveBand",
    "Curves",
    "Verdict",
    "area_contrast",
    "area_interval",
    "compare_areas",
    "curve_band",
]

Floats = npt.NDArray[np.float64]

Curves = MeasuredCurve | Sequence[MeasuredCurve]
"""The curves of one model: one for each trained seed."""

_ALIKE = {"name": "of one measure", "larger_is_better": "with one larger_is_better", "count": "of equally many images"}
"""What the curves of one call share."""

Verdict = Literal["holds", "does not hold", "open"]
"""Whether a sum of areas is above 0: its interval lies above 0, below 0, or holds 0."""


@dataclass(frozen=True)
class CurveBand:
    """The mean curve of one model over its trained seeds, with a pointwise band.

    Attributes:
        epsilons: (E,) growing attack strengths.
        heights: (E,) the mean over seeds; infinite where one of them is.
        low: (E,) lower limits; NaN where the mean is infinite.
        high: (E,) upper limits.
        larger_is_better: whether pictures of good quality have large values.
        name: the measure.
    """

    epsilons: Floats
    heights: Floats
    low: Floats
    high: Floats
    larger_is_better: bool
    name: str

    def frame(self) -> "pandas.DataFrame":
        """The band as a table with the columns ``measure``, ``epsilon``, ``value``, ``ci_low``, ``ci_high``."""
        import pandas

        columns = {"epsilon": self.epsilons, "value": self.heights, "ci_low": self.low, "ci_high": self.high}
        return pandas.DataFrame({"measure": self.name, **columns})


class AreaInterval(NamedTuple):
    """An area, or a weighted sum of areas, with its interval.

    Attributes:
        value: the area of the mean curve of each seed, averaged over seeds, then summed.
        low: the lower limit of the interval.
        high: the upper limit.
        p_value: the error probability at which the interval just reaches 0.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """Whether the value is above 0, as far as its interval says."""
        return "holds" if self.low > 0 else "does not hold" if self.high < 0 else "open"


def curve_band(
    curves: Curves, *, over: Over = "seeds and images", confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> CurveBand:
    """Compute the mean curve over trained seeds, with an interval at each epsilon for itself.

    Args:
        curves: the curves of the model, one per seed.
        over: what the intervals cover.
        confidence: their coverage, strictly between 0 and 1.
        resamples: the number B of resamples of the images, at least 1.
        seed: the seed of the resampling, for numpy.

    Raises:
        GenclsError: curves do not belong together, there are too few seeds or images, or an argument is out of range.
    """
    group = _together({"curves": curves})["curves"]
    first, heights = group[0], np.stack([curve.heights for curve in group])
    finite = np.isfinite(heights).all(axis=0)
    resampled = _resampled({"curves": group}, over, resamples, seed)["curves"]
    sampled = Replicates(heights[:, finite], resampled[..., finite])
    low, high = np.full((2, len(first.epsilons)), np.nan)
    low[finite], high[finite] = combine([sampled], [1.0], first.count, over).interval(confidence)
    return CurveBand(first.epsilons, heights.mean(axis=0), low, high, first.larger_is_better, first.name)


def area_interval(
    curves: Curves,
    base_line: float,
    *,
    beyond: bool = False,
    over: Over = "seeds and images",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> AreaInterval:
    """Compute the area between the mean curve and the base line (AADDC), averaged over trained seeds, with its interval.

    Args:
        curves: the curves of the model, one per seed.
        base_line: a finite number in the unit of the measure.
        beyond: take the area on the bad side of the line, see :mod:`gencls.eval.measures.distortion_areas`.
        over: what the interval covers.
        confidence: its coverage, strictly between 0 and 1.
        resamples: the number B of resamples of the images, at least 1.
        seed: the seed of the resampling, for numpy.

    Returns:
        The area; the limits are not negative.

    Raises:
        GenclsError: curves do not belong together or are infinite, there are too few seeds or images, or an argument is out of
            range.
    """
    sampled, count = _areas({"curves": curves}, base_line, beyond, over, resamples, seed)
    found = _interval(combine([sampled["curves"]], [1.0], count, over), confidence)
    return found._replace(low=max(found.low, 0.0), high=max(found.high, 0.0))


def area_contrast(
    models: Mapping[str, Curves],
    weights: Mapping[str, float],
    base_line: float,
    *,
    beyond: bool = False,
    over: Over = "seeds and images",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> AreaInterval:
    """Compute a weighted sum of areas of several models, such as a difference, with its interval.

    ``{"dae": 1, "vae": -1}`` asks whether dae is more robust; ``{"mmd-dae": 0.5, "mmd-vae": -0.5, "swt-dae": 0.5,
    "swt-vae": -0.5}`` whether deterministic models are, on average over regularisers. Weights that grow and sum to 0 ask for a
    trend. The models have met the same images, in the same order; their seeds are independent.

    Args:
        models: model -> its curves, one per seed.
        weights: model -> a finite weight; models without one have 0.
        base_line: a finite number in the unit of the measure.
        beyond: take the areas on the bad side of the line.
        over: what the interval covers.
        confidence: its coverage, strictly between 0 and 1.
        resamples: the number B of resamples of the images, at least 1.
        seed: the seed of the resampling, for numpy.

    Raises:
        GenclsError: see :func:`area_interval`; or a weight belongs to no model, or is no number, or none is not 0.
    """
    if not isinstance(weights, Mapping) or not isinstance(models, Mapping) or not set(weights) <= set(models):
        given, known = (list(one) if isinstance(one, Mapping) else type(one).__name__ for one in (weights, models))
        raise GenclsError(f"area contrast: expected weights of models among {known}, got {given}")
    checked = {name: as_number(weight, f"weight of {name}", -np.inf, np.inf) for name, weight in weights.items()}
    used = {name: weight for name, weight in checked.items() if weight}
    if not used:
        raise GenclsError(f"area contrast: expected a weight that is not 0, got {dict(weights)}")
    sampled, count = _areas({name: models[name] for name in used}, base_line, beyond, over, resamples, seed)
    return _interval(combine([sampled[name] for name in used], list(used.values()), count, over), confidence)


def compare_areas(
    models: Mapping[str, Curves],
    base_line: float,
    *,
    over: Over = "seeds and images",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> "pandas.DataFrame":
    """Ask for every pair of models whether the first has the larger area, and so is more robust.

    Args:
        models: model -> its curves, one per seed; all on the same images, in the same order.
        base_line: a finite number in the unit of the measure.
        over: what the intervals cover.
        confidence: the coverage of each interval, strictly between 0 and 1.
        resamples: the number B of resamples of the images, at least 1.
        seed: the seed of the resampling, for numpy.

    Returns:
        One row per pair, in the order of the mapping: ``measure``, ``model_a``, ``model_b``, ``area_a``, ``area_b``,
        ``difference`` (a - b), ``ci_low``, ``ci_high``, ``verdict`` on "a is more robust than b" by this interval (holds, does
        not hold, open), ``p_value``, and ``p_holm``, corrected over the pairs.

    Raises:
        GenclsError: see :func:`area_interval`, or there are fewer than two models.
    """
    import pandas

    if not isinstance(models, Mapping) or len(models) < 2:
        got = len(models) if isinstance(models, Mapping) else type(models).__name__
        raise GenclsError(f"comparison of areas: expected curves of at least two models by name, got {got}")
    sampled, count = _areas(models, base_line, False, over, resamples, seed)
    rows: list[dict[str, Any]] = []
    for a, b in combinations(models, 2):
        found = _interval(combine([sampled[a], sampled[b]], [1.0, -1.0], count, over), confidence)
        own = {f"area_{side}": float(sampled[name].found.mean()) for side, name in (("a", a), ("b", b))}
        limits = {"difference": found.value, "ci_low": found.low, "ci_high": found.high}
        rows.append({"model_a": a, "model_b": b, **own, **limits, "verdict": found.verdict, "p_value": found.p_value})
    table = pandas.DataFrame(rows).assign(p_holm=holm([row["p_value"] for row in rows]))
    table.insert(0, "measure", next(iter(_together(models).values()))[0].name)
    return table


def _interval(found: Uncertain, confidence: float) -> AreaInterval:
    low, high = found.interval(confidence)
    return AreaInterval(*(float(part[0]) for part in (found.value, low, high, found.p_values())))


def _areas(
    models: Mapping[str, Curves], base_line: float, beyond: bool, over: Over, resamples: int, seed: int
) -> tuple[dict[str, Replicates], int]:
    """Areas of each model and seed, on all images and in resamples of them, and the number of images."""
    groups = _together(models)
    first, side = next(iter(groups.values()))[0], int(beyond)
    found = {n: first.sides(np.stack([curve.heights for curve in group]), base_line)[side] for n, group in groups.items()}
    drawn = {n: first.sides(part, base_line)[side] for n, part in _resampled(groups, over, resamples, seed).items()}
    return {name: Replicates(found[name][:, None], drawn[name][..., None]) for name in groups}, first.count


def _resampled(groups: Mapping[str, Sequence[MeasuredCurve]], over: Over, resamples: int, seed: int) -> dict[str, Floats]:
    """Curves (B, S, E) of each model and seed in the same resamples of the images; the curves as they are for seeds alone."""
    if over == "seeds":
        return {name: np.stack([curve.heights for curve in group])[None] for name, group in groups.items()}
    counts = bootstrap_counts(next(iter(groups.values()))[0].count, resamples=resamples, seed=seed)
    return {name: np.stack([curve.resampled(counts) for curve in group], axis=1) for name, group in groups.items()}


def _together(models: Mapping[str, Curves]) -> dict[str, list[MeasuredCurve]]:
    """Check that all curves are of one measure, at the same epsilons and on equally many images; returns them as lists."""
    groups: dict[str, list[MeasuredCurve]] = {}
    for name, curves in models.items():
        group = [curves] if isinstance(curves, MeasuredCurve) else list(curves) if isinstance(curves, Sequence) else [curves]
        if not group or not all(isinstance(curve, MeasuredCurve) for curve in group):
            got = type(group[0]).__name__ if group else "none"
            raise GenclsError(f"{name}: expected at least one curve, one for each trained seed, got {got}")
        groups[name] = group
    first = next(iter(groups.values()))[0]
    for curve in (curve for group in groups.values() for curve in group):
        for what, words in _ALIKE.items():
            mine, other = getattr(first, what), getattr(curve, what)
            if mine != other:
                raise GenclsError(f"{first.name}: expected curves {words}, got {mine!r} and {other!r}")
        if not np.array_equal(first.epsilons, curve.epsilons):
            got = f"{first.epsilons.tolist()} and {curve.epsilons.tolist()}"
            raise GenclsError(f"{first.name}: expected curves at the same epsilons, got {got}")
    return groups
