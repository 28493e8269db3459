"""Distortion-distortion curves of pictures: one measure between the pictures before and after attacks of growing strengths."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencls.core import GenclsError, check_images
from gencls.eval.measures.distortion_curves import DistortionCurve
from gencls.eval.measures.fid import Penultimate
from gencls.eval.measures.frechet_curves import FrechetCurve

__all__ = ["frechet_curve", "picture_curve"]

_CHUNK = 100
"""Images that a measure sees at once."""


@torch.no_grad()
def picture_curve(
    measure: Callable[[Tensor, Tensor], Tensor],
    reference: Tensor,
    pictures: Mapping[float, Tensor],
    *,
    larger_is_better: bool,
    name: str,
) -> DistortionCurve:
    """Measure each picture after attacks of growing strengths against the same picture before them.

    Args:
        measure: two batches (N, C, H, W) to one number per image, (N,): an :class:`gencls.core.ImageDistance` such as LPIPS,
            :func:`gencls.eval.measures.psnr.peak_signal_noise_ratio`, or a function, such as 1 - ``SSIM()(a, b)``, since
            :class:`gencls.perceptual.SSIM` is a distance.
        reference: the pictures before the attack, (N, C, H, W) in [0, 1].
        pictures: epsilon -> the pictures after the attack of this strength, (N, C, H, W) in [0, 1], in growing order.
        larger_is_better: whether pictures of good quality have large values.
        name: the measure, with its features if it has any.

    Raises:
        GenclsError: pictures are none, or have another shape than the reference; the measure returns something else than one
            real number per image; epsilons are negative or do not grow.
    """
    if not callable(measure):
        raise GenclsError(f"picture_curve: expected a measure, a function, got {type(measure).__name__}")
    _check(reference, pictures, "picture_curve")
    columns = []
    for images in pictures.values():
        parts = zip(images.split(_CHUNK), reference.split(_CHUNK), strict=True)
        columns.append(torch.cat([_numbers(measure(*part), len(part[0]), name) for part in parts]))
    values = torch.stack(columns, dim=1).numpy()
    return DistortionCurve(np.array(list(pictures)), values, larger_is_better, name)


def frechet_curve(features: Penultimate, reference: Tensor, pictures: Mapping[float, Tensor], *, name: str) -> FrechetCurve:
    """Measure the Frechet distance (FID) between the pictures before and after attacks of growing strengths.

    Args:
        features: a classifier's features, in eval mode; distances on other features do not compare.
        reference: the pictures before the attack, (N, C, H, W) in [0, 1], N >= 2.
        pictures: epsilon -> the pictures after the attack of this strength, (N, C, H, W) in [0, 1], in growing order.
        name: the measure with its features, such as "FID (cnn-mnist)".

    Raises:
        GenclsError: pictures are none, or have another shape than the reference; the network is in training mode or does not
            use its last linear layer; epsilons are negative or do not grow.
    """
    if not isinstance(features, Penultimate):
        raise GenclsError(f"frechet_curve: expected features of a classifier, a Penultimate, got {type(features).__name__}")
    _check(reference, pictures, "frechet_curve")
    after = torch.stack([features.describe(images) for images in pictures.values()])
    return FrechetCurve(np.array(list(pictures)), features.describe(reference).numpy(), after.numpy(), name)


def _check(reference: Any, pictures: Any, owner: str) -> None:
    check_images(reference, name=f"{owner}: reference")
    if not isinstance(pictures, Mapping) or not pictures:
        got = "none" if isinstance(pictures, Mapping) else type(pictures).__name__
        raise GenclsError(f"{owner}: expected pictures by epsilon, a mapping, got {got}")
    for epsilon, images in pictures.items():
        check_images(images, name=f"{owner}: pictures at epsilon {epsilon}")
        if images.shape != reference.shape:
            expected = f"pictures of the reference's shape {tuple(reference.shape)}"
            raise GenclsError(f"{owner}: expected {expected}, got {tuple(images.shape)} at epsilon {epsilon}")


def _numbers(found: Any, count: int, name: str) -> Tensor:
    """Check what a measure returned; real numbers (N,) in float64 on the CPU."""
    if not isinstance(found, Tensor) or found.shape != (count,) or found.is_complex():
        got = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise GenclsError(f"{name}: expected one real number per image from the measure, ({count},), got {got}")
    return found.double().cpu()
