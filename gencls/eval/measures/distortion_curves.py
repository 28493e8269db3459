"""Distortion-distortion curves: how far pictures have moved against how far their codes have (latent-robustness paper, 3.1.2).

A measure of each image (MSE, SSIM, LPIPS, PSNR) gives a :class:`DistortionCurve`; its height is the mean over images. A measure
of sets, such as FID, is a :class:`DistortionCurve` of one row, or a :class:`gencls.eval.measures.frechet_curves.FrechetCurve`,
which can resample its images. :mod:`gencls.eval.measures.distortion_intervals` gives intervals over images and trained seeds.

The PSNR of two equal pictures is infinite. They are equal at epsilon 0, and above it where an attack did not leave its start.
The mean is then infinite: it has no interval and no area, and a figure does not draw it. Two ways lead on:
:meth:`DistortionCurve.starting_at` leaves out the smallest epsilons. :meth:`DistortionCurve.capped` counts larger values as a
largest one, such as :data:`gencls.eval.measures.psnr.PSNR_OF_ROUNDING`. The area then depends on the cap. Differences between
models do not, if their curves are above the base line at the first epsilon > 0. The paper does not say what it did. With this
cap and a step of 0.1 in epsilon the first step alone has a larger area than any in its Table 3, so it had no such step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gencls.core import GenclsError
from gencls.eval.measures.distortion_areas import areas
from gencls.eval.measures.domains import as_number, as_numbers

__all__ = ["DistortionCurve", "MeasuredCurve"]

Floats = npt.NDArray[np.float64]

_BLOCK = 2_000_000
"""Counts that are held as floats at a time; results do not depend on it."""


class MeasuredCurve(ABC):
    """One measure along growing attack strengths, linear between them.

    Attributes:
        epsilons: (E,) growing attack strengths >= 0, in the unit of the codes, E >= 2.
        larger_is_better: whether pictures of good quality have large values (SSIM, PSNR) or small ones (LPIPS, MSE, FID).
        name: the measure, with its features if it has any.
    """

    epsilons: Floats
    larger_is_better: bool
    name: str

    @property
    @abstractmethod
    def count(self) -> int:
        """The number N of images."""

    @property
    @abstractmethod
    def heights(self) -> Floats:
        """The curve, (E,): the mean over the images, or the measure of their set."""

    @abstractmethod
    def resampled(self, counts: npt.NDArray[Any]) -> Floats:
        """Compute the curve in B resamples, which hold each image as often as ``counts`` (B, N) say; returns (B, E)."""

    def area(self, base_line: float) -> float:
        """Compute the area between the curve and the base line where the curve is on the good side (AADDC).

        Args:
            base_line: a finite number in the unit of the measure.

        Raises:
            GenclsError: the base line is no finite number, or the curve is infinite somewhere.
        """
        return float(self.sides(self.heights, base_line)[0])

    def area_beyond(self, base_line: float) -> float:
        """Compute the area between the curve and the base line where the curve is on the bad side, >= 0.

        Raises:
            GenclsError: the base line is no finite number, or the curve is infinite somewhere.
        """
        return float(self.sides(self.heights, base_line)[1])

    def sides(self, heights: Floats, base_line: float) -> tuple[Floats, Floats]:
        """Compute both areas (...) of curves (..., E) at these epsilons, for instance of resamples.

        Raises:
            GenclsError: the base line is no finite number, or a curve is infinite somewhere.
        """
        line = as_number(base_line, f"{self.name}: base line", -np.inf, np.inf)
        if not bool(np.isfinite(heights).all()):
            where = self.epsilons[~np.isfinite(heights).all(axis=tuple(range(heights.ndim - 1)))]
            raise GenclsError(
                f"{self.name}: expected a finite curve for an area, got infinite values at epsilon "
                f"{', '.join(f'{epsilon:g}' for epsilon in where)}; cap them, or leave these epsilons out"
            )
        return areas(self.epsilons, heights, line, larger_is_better=self.larger_is_better)

    def _check(self, values: Floats) -> None:
        """Read the fields, and check them with values (..., E); arrays become read-only."""
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise GenclsError(f"curve: expected the printable name of a measure, got {self.name!r}")
        if not isinstance(self.larger_is_better, bool | np.bool_):
            raise GenclsError(f"{self.name}: expected larger_is_better to be True or False, got {self.larger_is_better!r}")
        epsilons = as_numbers(self.epsilons, f"{self.name}: epsilons")
        if epsilons.ndim != 1 or len(epsilons) < 2:
            raise GenclsError(f"{self.name}: expected epsilons of shape (E,), E >= 2, got {epsilons.shape}")
        if not bool((np.isfinite(epsilons) & (epsilons >= 0)).all()) or not bool((np.diff(epsilons) > 0).all()):
            raise GenclsError(f"{self.name}: expected finite epsilons >= 0 that grow, got {epsilons.tolist()}")
        object.__setattr__(self, "epsilons", epsilons)
        epsilons.flags.writeable = values.flags.writeable = False


@dataclass(frozen=True, eq=False)
class DistortionCurve(MeasuredCurve):
    """A measure of each image along growing attack strengths.

    Args:
        epsilons: (E,) growing attack strengths >= 0, E >= 2.
        values: (N, E) one number per image and strength, N >= 1, the images in one order. The numbers of a set, which has no
            images, are a row (1, E) without intervals over images. If larger is better, equal pictures may have infinity.
        larger_is_better: whether pictures of good quality have large values.
        name: the measure, with its features if it has any.

    Raises:
        GenclsError: epsilons are negative, infinite or do not grow, values have another shape or hold NaN, or a field is of
            another type.
    """

    epsilons: Floats
    values: Floats
    larger_is_better: bool
    name: str

    def __post_init__(self) -> None:
        values = as_numbers(self.values, f"{self.name}: values")
        self._check(values)
        if values.ndim != 2 or values.shape[1] != len(self.epsilons) or not len(values):
            expected = f"(N, {len(self.epsilons)}), N >= 1, a column for each epsilon"
            raise GenclsError(f"{self.name}: expected values of shape {expected}, got {values.shape}")
        bad = values[np.isnan(values) | (np.isneginf(values) if self.larger_is_better else np.isinf(values))]
        if bad.size:
            kind = "numbers, or infinity for equal pictures" if self.larger_is_better else "finite numbers"
            raise GenclsError(f"{self.name}: expected {kind}, got {bad[0]} in {bad.size} of {values.size} values")
        object.__setattr__(self, "values", values)

    @property
    def count(self) -> int:
        """The number N of images."""
        return len(self.values)

    @property
    def heights(self) -> Floats:
        """The mean curve, (E,)."""
        mean: Floats = self.values.mean(axis=0)
        return mean

    def resampled(self, counts: npt.NDArray[Any]) -> Floats:
        """Compute the mean curve in B resamples, which hold each image as often as ``counts`` (B, N) say; returns (B, E)."""
        infinite = np.isinf(self.values)
        known, rows = np.where(infinite, 0.0, self.values), max(1, _BLOCK // self.count)
        parts = [counts[first : first + rows].astype(np.float64) for first in range(0, len(counts), rows)]
        means = np.concatenate([part @ known for part in parts]) / self.count
        if infinite.any():
            means[np.concatenate([part @ infinite for part in parts]) > 0] = np.inf
        return means

    def capped(self, largest: float) -> "DistortionCurve":
        """Count larger values as this one, image by image.

        Raises:
            GenclsError: this is no finite number.
        """
        largest = as_number(largest, f"{self.name}: largest value", -np.inf, np.inf)
        return replace(self, values=np.minimum(self.values, largest))

    def starting_at(self, epsilon: float) -> "DistortionCurve":
        """Leave out the epsilons below this one, which must be one of the curve's.

        Raises:
            GenclsError: it is none of them, or fewer than two epsilons are left.
        """
        epsilon = as_number(epsilon, f"{self.name}: first epsilon", 0.0, np.inf)
        (first,) = np.nonzero(self.epsilons == epsilon)
        if not len(first):
            raise GenclsError(
                f"{self.name}: expected one of the epsilons {self.epsilons.tolist()} to start at, got {epsilon:g}"
            )
        return replace(self, epsilons=self.epsilons[first[0] :], values=self.values[:, first[0] :])
