"""Unbiased maximum mean discrepancy of two sets of features: the kernel distance (KID) of sets of unequal sizes."""

import torch
from torch import Tensor

from gencls.core import GenclsError, checked

__all__ = ["mean_similarity", "polynomial_kernel", "unbiased_mmd"]

_CHUNK = 1000
"""Rows of the matrix of similarities that are held at once."""


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """The kernel of KID, k(f, g) = (f.g/d + 1)^3, of features (M, d) and (N, d): similarities (M, N), float64."""
    return (first.double() @ second.double().T / first.shape[1] + 1) ** 3


@checked
def mean_similarity(features: Tensor) -> float:
    """The mean of :func:`polynomial_kernel` over all pairs of two different rows of features (N, d), N >= 2.

    Raises:
        GenclsError: the features are no matrix of at least two rows of finite numbers.
    """
    _check(features, "features")
    return float(_similarities(features, torch.ones(1, len(features), dtype=torch.float64))[0])


@checked
def unbiased_mmd(real: Tensor, made: Tensor, *, counts: Tensor | None = None, real_similarity: float | None = None) -> Tensor:
    """The squared maximum mean discrepancy of two sets, E k(r, r') + E k(g, g') - 2 E k(r, g), k as :func:`polynomial_kernel`.

    No row meets itself, so the estimate is unbiased whatever the sizes of the sets; of two sets of one distribution its
    expectation is 0, and it may be negative. With sets of one size it is the kernel distance (KID) of one subset.

    Source: Gretton et al. 2012, "A kernel two-sample test", eq. 3; Binkowski et al. 2018, arXiv:1801.01401.

    Args:
        real: features (M, d) of real images, M >= 2.
        made: features (N, d) of generated images, N >= 2.
        counts: how often each generated image counts in B resamples, (B, N), >= 0, see
            :func:`gencls.eval.measures.statistics.bootstrap_counts`. Copies of one image do not meet each other: their
            similarity would make the distance of a resample too large. None: each image once.
        real_similarity: the :func:`mean_similarity` of the real images, if it is known.

    Returns:
        (B,) in float64, or () without counts. NaN for resamples without two different images.

    Raises:
        GenclsError: a set is no matrix of at least two rows of finite numbers, the numbers of features differ, or the counts
            have another shape.
    """
    _check(real, "real")
    _check(made, "made")
    if real.shape[1] != made.shape[1]:
        raise GenclsError(
            f"unbiased_mmd: expected as many features of real as of made, got {real.shape[1]} and {made.shape[1]}"
        )
    if counts is not None and (counts.ndim != 2 or counts.shape[1] != len(made) or bool((counts < 0).any())):
        raise GenclsError(f"unbiased_mmd: expected counts (B, {len(made)}) >= 0, got {tuple(counts.shape)}")
    weights = torch.ones(1, len(made)) if counts is None else counts
    weights = weights.to(made.device, torch.float64)
    across = torch.stack([polynomial_kernel(part, made).sum(0) for part in real.split(_CHUNK)]).sum(0) / len(real)
    within = mean_similarity(real) if real_similarity is None else real_similarity
    found = within + _similarities(made, weights) - 2 * (weights @ across) / weights.sum(1)
    return found[0] if counts is None else found


def _similarities(features: Tensor, weights: Tensor) -> Tensor:
    """Mean similarities (B,) of different rows of features (N, d), which count as the weights (B, N) say."""
    weights, total = weights.to(features.device), weights.new_zeros(len(weights), device=features.device)
    for first in range(0, len(features), _CHUNK):
        rows = slice(first, first + _CHUNK)
        found = polynomial_kernel(features[rows], features)
        found[range(len(found)), range(first, first + len(found))] = 0.0
        total += (weights[:, rows] * (weights @ found.T)).sum(1)
    return total / (weights.sum(1).square() - weights.square().sum(1))


def _check(features: Tensor, name: str) -> None:
    if features.ndim != 2 or len(features) < 2 or not bool(features.isfinite().all()):
        raise GenclsError(f"{name}: expected finite features (N, d), N >= 2, got {tuple(features.shape)}")
