"""Distances between two sets of images, on features that the caller chooses: Frechet distance (FID), kernel distance (KID).

Their values mean nothing without the name of the features; values on other features do not compare.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, check_eval_mode, check_images, checked
from gencls.core.quiet import quiet_import

__all__ = ["Penultimate", "frechet_distance", "kernel_distance"]

_CHUNK = 100
"""Images that the features see at once."""


class Penultimate(nn.Module):
    """The features of a classifier: the input of its last linear layer, images (N, C, H, W) to (N, d).

    Of Inception these are the features of the usual Frechet distance.

    Attributes:
        network: the classifier; it keeps its mode.
        num_features: d.
    """

    @checked
    def __init__(self, network: nn.Module) -> None:
        """Take a classifier whose last registered linear layer gives its scores.

        Raises:
            GenclsError: the classifier has no linear layer.
        """
        super().__init__()
        linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise GenclsError(f"Penultimate: expected a network with a linear layer, got {type(network).__name__} without any")
        self.network, self._last = network, linear[-1]
        self.num_features = self._last.in_features
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, d) of images (N, C, H, W) in [0, 1].

        Raises:
            GenclsError: the network does not use its last linear layer.
        """
        kept: list[Tensor] = []
        handle = self._last.register_forward_pre_hook(lambda part, given: kept.append(given[0]))
        try:
            self.network(images)
        finally:
            handle.remove()
        if not kept:
            raise GenclsError(
                f"Penultimate: expected {type(self.network).__name__} to use its last linear layer, but it does not"
            )
        return kept[-1].flatten(1)

    @torch.no_grad()
    def describe(self, images: Tensor) -> Tensor:
        """Features (N, d) of many images (N, C, H, W), chunk by chunk on the network's device; the result is on the CPU.

        Raises:
            GenclsError: these are no images in [0, 1]; the network is in training mode, where features depend on their chunk,
                or does not use its last linear layer.
        """
        check_images(images, name="Penultimate.describe")
        check_eval_mode(self, name="Penultimate.describe", what="a network of features")
        device = self._last.weight.device
        return torch.cat([self(batch.to(device)).cpu() for batch in images.split(_CHUNK)])


@checked
def frechet_distance(features: nn.Module, real: Tensor, made: Tensor) -> float:
    """Frechet distance of two sets of images: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of means and covariances of features.

    The covariances of d features need many more than d images each; fewer make the distance too large.

    Source: Heusel et al. 2017, arXiv:1706.08500, computed by torchmetrics. They take the features of Inception; do not compare
    their values with those on other features.

    Args:
        features: a network in eval mode, images (N, C, H, W) in [0, 1] to features (N, d).
        real: real images, (N, C, H, W) in [0, 1], N >= 2; or features (N, d) that are known already, of any finite numbers,
            which a ``features`` such as ``nn.Identity().eval()`` leaves as they are.
        made: generated images, (M, C, H, W) in [0, 1], M >= 2; or such features.

    Raises:
        GenclsError: a set is no batch of images in [0, 1], there are fewer than two images in it, or the network returns no
            features (N, d) of finite numbers.
    """
    described = _both(features, real, made, least=2, owner="frechet_distance")
    with _quiet():
        from torchmetrics.image.fid import FrechetInceptionDistance

        distance = FrechetInceptionDistance(feature=_Given(described[0].shape[1]), normalize=True)
    for one, is_real in zip(described, (True, False), strict=True):
        distance.update(one, real=is_real)
    return max(float(distance.compute()), 0.0)


@checked
def kernel_distance(
    features: nn.Module, real: Tensor, made: Tensor, *, subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float]:
    """Kernel distance of two sets of images: the squared maximum mean discrepancy for (f.f'/d + 1)^3, unbiased.

    It is an average over random subsets, drawn from torch's generator. Unlike the Frechet distance it is unbiased for few
    images, and may so be negative.

    Source: Binkowski et al. 2018, arXiv:1801.01401, computed by torchmetrics. They take the features of Inception.

    Args:
        features: a network in eval mode, images (N, C, H, W) in [0, 1] to features (N, d).
        real: real images, (N, C, H, W) in [0, 1], or features (N, d), as :func:`frechet_distance` takes them; N >= subset_size.
        made: generated images, (M, C, H, W) in [0, 1], or features; M >= subset_size.
        subsets: the number of subsets of each set.
        subset_size: images in a subset, >= 2.

    Returns:
        The mean and the standard deviation over the subsets.

    Raises:
        GenclsError: a set is no batch of images in [0, 1], it has fewer images than a subset, or the network returns no
            features (N, d) of finite numbers.
    """
    if subsets < 1 or subset_size < 2:
        raise GenclsError(f"kernel_distance: expected subsets >= 1 and subset_size >= 2, got {subsets} and {subset_size}")
    described = _both(features, real, made, least=subset_size, owner="kernel_distance")
    with _quiet():
        from torchmetrics.image.kid import KernelInceptionDistance

        distance = KernelInceptionDistance(
            feature=_Given(described[0].shape[1]), subsets=subsets, subset_size=subset_size, normalize=True
        )
    for one, is_real in zip(described, (True, False), strict=True):
        distance.update(one, real=is_real)
    mean, deviation = distance.compute()
    return float(mean), float(deviation)


class _Given(nn.Module):
    """Stands where torchmetrics wants a network; the features are computed before."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, described: Tensor) -> Tensor:
        return described


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torchmetrics's warnings: one of its imports, one of the memory of few numbers."""
    with quiet_import():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer.*")
        yield


def _both(features: nn.Module, real: Tensor, made: Tensor, *, least: int, owner: str) -> tuple[Tensor, Tensor]:
    """Features (N, d) and (M, d), float64, on the CPU."""
    check_eval_mode(features, name=owner, what="a network of features")
    for name, images in (("real", real), ("made", made)):
        if images.ndim != 2:  # features that are known already may be any numbers
            check_images(images, name=f"{owner}: {name}")
        if len(images) < least:
            raise GenclsError(f"{owner}: expected at least {least} images (N, C, H, W) as {name}, got {tuple(images.shape)}")
    first, second = (_described(features, images, owner) for images in (real, made))
    if first.shape[1] != second.shape[1]:
        raise GenclsError(f"{owner}: expected as many features of real as of made, got {first.shape[1]} and {second.shape[1]}")
    return first, second


def _described(features: nn.Module, images: Tensor, owner: str) -> Tensor:
    try:
        with torch.no_grad():
            found = [features(batch) for batch in images.split(_CHUNK)]
    except (GenclsError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise GenclsError(
            f"{owner}: expected {type(features).__name__} to take {images.dtype} images {tuple(images.shape)}, got "
            f"{type(error).__name__}: {error}"
        ) from error
    if not all(isinstance(one, Tensor) and one.ndim == 2 for one in found):
        got = f"shape {tuple(found[0].shape)}" if isinstance(found[0], Tensor) else type(found[0]).__name__
        raise GenclsError(f"{owner}: expected features (N, d), got {got}; average or flatten maps first")
    described = torch.cat(found)
    if described.shape[1] < 1 or len(described) != len(images) or not described.is_floating_point():
        expected = f"real features ({len(images)}, d), d >= 1"
        raise GenclsError(f"{owner}: expected {expected}, got {described.dtype} of shape {tuple(described.shape)}")
    if not bool(described.isfinite().all()):
        raise GenclsError(f"{owner}: expected finite features, got NaN or infinite numbers")
    return described.double().cpu()
