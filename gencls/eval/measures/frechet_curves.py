"""The Frechet distance (FID) along growing attack strengths, with resamples of its images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gencls.core import GenclsError
from gencls.eval.measures.distortion_curves import MeasuredCurve
from gencls.eval.measures.domains import as_codes, as_numbers

__all__ = ["FrechetCurve"]

Floats = npt.NDArray[np.float64]

_BLOCK = 20_000_000
"""Numbers that a block of resamples holds at a time; results do not depend on it."""


@dataclass(frozen=True, eq=False)
class FrechetCurve(MeasuredCurve):
    """The Frechet distance between the features of pictures before and after attacks of growing strengths.

    The distance is |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of means and covariances, as
    :func:`gencls.eval.measures.fid.frechet_distance` computes it. A resample holds an image before and after the attack equally
    often, so the distance at equal pictures stays 0.

    Resampled distances are larger than the measured one, because a resample has fewer different images. Percentiles of them
    would be too high. :mod:`gencls.eval.measures.distortion_intervals` takes their variance only. The distance itself is too
    large if N is not far above d.

    B resamples cost B (E + 1) eigenvalue problems of size d. B = 200, E = 11 and N = 1000 take about 10 seconds for d = 64 and
    7 minutes for d = 512 on a slow core. If that is too much, put the distances of each trained seed into a row of a
    :class:`gencls.eval.measures.distortion_curves.DistortionCurve`, and take intervals over seeds alone.

    Args:
        epsilons: (E,) growing attack strengths >= 0, E >= 2.
        reference: (N, d) features of the pictures before the attack, N >= 2.
        features: (E, N, d) features of the pictures after each attack, the images in the same order.
        name: the measure with its features, such as "FID (cnn-mnist)".

    Raises:
        GenclsError: epsilons are negative, infinite or do not grow, or features have other shapes or are not finite.
    """

    epsilons: Floats
    reference: Floats
    features: Floats
    name: str
    larger_is_better = False
    _heights: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        features = as_numbers(self.features, f"{self.name}: features")
        self._check(features)
        reference = as_codes(self.reference, f"{self.name}: reference features", least=2)
        if np.ndim(self.reference) != 2 or features.shape != (len(self.epsilons), *reference.shape):
            expected = f"(N, d) and features ({len(self.epsilons)}, N, d), one set for each epsilon"
            raise GenclsError(
                f"{self.name}: expected reference features {expected}, got {np.shape(self.reference)} and {features.shape}"
            )
        if not bool(np.isfinite(features).all()):
            raise GenclsError(f"{self.name}: expected finite features, got NaN or infinite numbers")
        reference.flags.writeable = False
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "_heights", self.resampled(np.ones((1, len(reference))))[0])

    @property
    def count(self) -> int:
        """The number N of images."""
        return len(self.reference)

    @property
    def heights(self) -> Floats:
        """The distances, (E,)."""
        return self._heights

    def resampled(self, counts: npt.NDArray[Any]) -> Floats:
        """Compute the distances in B resamples, which hold each image as often as ``counts`` (B, N) say; returns (B, E)."""
        middle = self.reference.mean(axis=0)  # products of centred numbers keep their digits
        reference, *after = (torch.from_numpy(part - middle) for part in (self.reference, *self.features))
        rows = max(1, _BLOCK // (reference.numel() + 3 * reference.shape[1] ** 2))
        parts = torch.from_numpy(np.asarray(counts, dtype=np.float64)).split(rows)
        return torch.cat([_distances(reference, after, part) for part in parts]).numpy()


def _distances(reference: Tensor, after: list[Tensor], counts: Tensor) -> Tensor:
    """Distances (B, E) of weighted features (N, d), in float64."""
    mean, covariance = _moments(reference, counts)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt().unsqueeze(-2) @ vectors.mT
    found = []
    for features in after:
        mean_after, covariance_after = _moments(features, counts)
        # C^(1/2) C' C^(1/2) is symmetric and has the eigenvalues of C C'.
        shared = torch.linalg.eigvalsh(root @ covariance_after @ root).clamp(min=0).sqrt().sum(-1)
        traces = (covariance + covariance_after).diagonal(dim1=-2, dim2=-1).sum(-1)
        found.append(((mean - mean_after).square().sum(-1) + traces - 2 * shared).clamp(min=0))
    return torch.stack(found, dim=-1)


def _moments(features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, d) and unbiased covariances (B, d, d) of N features, which count as often as (B, N) say."""
    number = len(features)
    mean = counts @ features / number
    second = torch.einsum("bn,nd,ne->bde", counts, features, features)
    return mean, (second - number * mean.unsqueeze(-1) * mean.unsqueeze(-2)) / (number - 1)
