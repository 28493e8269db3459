"""Unbiased maximum mean discrepancy of two sets of features: the kernel distance (KID) of sets of unequal sizes."""

import torch
from torch import Tensor

from gencls.core import GenclsError, checked

__all__ = ["mean_similarity", "unbiased_mmd"]

_CHUNK = 1000
"""Rows of the matrix of similarities that are held at once."""
_LARGEST = 1e45
"""The largest number allowed: sums of third powers of products of two such numbers are finite in float64."""


@checked
def mean_similarity(features: Tensor) -> float:
    """The mean of k(f, g) = (f.g/d + 1)^3, the kernel of KID, over all pairs of two different rows of features (N, d).

    Args:
        features: (N, d), N >= 2, d >= 1; they get no gradient.

    Raises:
        GenclsError: the features are no matrix of real numbers up to 1e45 with two rows and one column at least.
    """
    features = _matrix(features, "features", "mean_similarity")
    return float(_similarities(features, torch.ones(1, len(features), dtype=torch.float64))[0])


@checked
def unbiased_mmd(real: Tensor, made: Tensor, *, counts: Tensor | None = None, real_similarity: float | None = None) -> Tensor:
    """The squared maximum mean discrepancy of two sets, E k(r, r') + E k(g, g') - 2 E k(r, g), k as in :func:`mean_similarity`.

    No row meets itself, so the estimate is unbiased whatever the sizes of the sets; of two sets of one distribution its
    expectation is 0, and it may be negative. With sets of one size it is the kernel distance (KID) of one subset.

    Source: Gretton et al. 2012, "A kernel two-sample test", eq. 3; Binkowski et al. 2018, arXiv:1801.01401.

    Args:
        real: features (M, d) of real images, M >= 2, d >= 1; no argument gets a gradient.
        made: features (N, d) of generated images, N >= 2.
        counts: how often each generated image counts in B resamples, (B, N), >= 0, see
            :func:`gencls.eval.measures.statistics.bootstrap_counts`. Copies of one image do not meet each other: their
            similarity would make the distance of a resample too large. None: each image once.
        real_similarity: the :func:`mean_similarity` of the real images, if it is known.

    Returns:
        (B,) in float64 on the device of the real features, or () without counts. NaN for resamples without two different
            images.

    Raises:
        GenclsError: a set is no matrix of real numbers up to 1e45 with two rows and one column at least; the numbers of
            features differ; the counts have another shape, or are not numbers from 0 to 1e45.
    """
    real, made = _matrix(real, "real", "unbiased_mmd"), _matrix(made, "made", "unbiased_mmd").to(real.device)
    if real.shape[1] != made.shape[1]:
        raise GenclsError(
            f"unbiased_mmd: expected as many features of real as of made, got {real.shape[1]} and {made.shape[1]}"
        )
    weights = torch.ones(1, len(made)) if counts is None else counts.detach()
    if weights.ndim != 2 or weights.shape[1] != len(made) or not _numbers(weights) or bool((weights < 0).any()):
        raise GenclsError(f"unbiased_mmd: expected finite counts (B, {len(made)}) >= 0, got {_described(weights)}")
    weights = weights.to(made.device, torch.float64)
    across = torch.stack([_kernel(part, made).sum(0) for part in real.split(_CHUNK)]).sum(0) / len(real)
    within = mean_similarity(real) if real_similarity is None else real_similarity
    found = within + _similarities(made, weights) - 2 * (weights @ across) / weights.sum(1)
    return found[0] if counts is None else found


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    """Similarities (M, N) of features (M, d) and (N, d)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def _similarities(features: Tensor, weights: Tensor) -> Tensor:
    """Mean similarities (B,) of different rows of features (N, d), which count as the weights (B, N) say."""
    weights, total = weights.to(features.device), weights.new_zeros(len(weights), device=features.device)
    for first in range(0, len(features), _CHUNK):
        rows = slice(first, first + _CHUNK)
        found = _kernel(features[rows], features)
        found[range(len(found)), range(first, first + len(found))] = 0.0
        total += (weights[:, rows] * (weights @ found.T)).sum(1)
    return total / (weights.sum(1).square() - weights.square().sum(1))


def _matrix(features: Tensor, name: str, owner: str) -> Tensor:
    """The features in float64 without their graph."""
    if features.ndim != 2 or len(features) < 2 or features.shape[1] < 1 or not _numbers(features):
        raise GenclsError(
            f"{owner}: expected {name} to be finite real features (N, d), N >= 2 and d >= 1, got {_described(features)}"
        )
    return features.detach().double()


def _numbers(tensor: Tensor) -> bool:
    """Whether a tensor with rows holds real numbers of at most the largest size, none of them NaN."""
    if tensor.is_complex() or tensor.layout != torch.strided:
        return False
    return tensor.numel() == 0 or bool((tensor.double().abs() <= _LARGEST).all())


def _described(tensor: Tensor) -> str:
    bad = "" if tensor.is_complex() or _numbers(tensor) else " with NaN, infinite or larger numbers"
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}{bad}"
