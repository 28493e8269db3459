"""Changes to the images of a training batch."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gencls.core.settings import check_settings


class Perturbation(Protocol):
    """Maps the images of a training batch to the images that the network trains on."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """Perturb.

        Args:
            network: the network that trains.
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            epoch: epochs that have passed, with a fraction.

        Returns:
            Images (N, C, H, W).
        """


@dataclass(frozen=True)
class Plain:
    """The images as they are."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        return images


@dataclass(frozen=True)
class AddedNoise:
    """Additive Gaussian noise (thesis, section 2.3: "a standard deviation 0.2 for MNIST").

    Attributes:
        sigma: standard deviation, in [0, 1] pixel units.
        clip: whether to clip to [0, 1] as the noise defense does. Clipped noise lightens a black background by 0.4 sigma on
            average, and an autoencoder would learn to reconstruct the lighter background.
    """

    sigma: float
    clip: bool = True

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        noisy = images + self.sigma * torch.randn_like(images)
        return noisy.clamp(0.0, 1.0) if self.clip else noisy

    def __repr__(self) -> str:
        return f"GaussianNoise(sigma={self.sigma!r}, clip={self.clip!r})"  # the cards of weights have this name


SMOOTHING_NOISE = AddedNoise(sigma=0.05, clip=False)
"""The training noise of classifiers behind smoothing (thesis, section 4.3). It is not clipped: smoothing does not clip."""


@dataclass(frozen=True)
class Composed:
    """One perturbation after another.

    Attributes:
        parts: the perturbations; the first one changes the images, each further one the result of the one before.
    """

    parts: tuple[Perturbation, ...]

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        for part in self.parts:
            images = part(network, images, labels, epoch=epoch)
        return images
