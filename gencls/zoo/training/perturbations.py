"""What is done to the images of a training batch."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gencls.zoo.training.attack import Norm, pgd

__all__ = ["Adversarial", "GaussianNoise", "Perturbation", "Plain"]


class Perturbation(Protocol):
    """Images of a training batch to the images that the network is trained on."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """Perturb.

        Args:
            network: the network that is being trained.
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            epoch: how many epochs have passed, with a fraction.

        Returns:
            Images (N, C, H, W).
        """


@dataclass(frozen=True)
class Plain:
    """The images as they are."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        return images


@dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise (thesis, section 2.3: "a standard deviation 0.2 for MNIST").

    Attributes:
        sigma: standard deviation, in [0, 1] pixel units.
        clip: whether to clip to [0, 1] as the noise defense does. Clipped noise lightens a black background by 0.4 sigma on
            average, and an autoencoder would learn to reconstruct that.
    """

    sigma: float
    clip: bool = True

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        noisy = images + self.sigma * torch.randn_like(images)
        return noisy.clamp(0.0, 1.0) if self.clip else noisy


@dataclass(frozen=True)
class Adversarial:
    """Adversarial examples of the network itself (Madry et al., arXiv:1706.06083).

    The thesis does not give the settings of the attack. Attacks are made in eval mode, so that the statistics of batch norm
    come only from the images that the network is then trained on.

    Attributes:
        norm: of the threat model.
        epsilon: radius, in [0, 1] pixel units.
        steps: PGD steps.
        step_size: in [0, 1] pixel units at the full radius.
        warmup_epochs: over these the radius and the step grow linearly from 0. From the start a small network does
            not learn at radius 0.3: it falls into the constant solution.
    """

    norm: Norm
    epsilon: float
    steps: int
    step_size: float
    warmup_epochs: float

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, epoch: float) -> Tensor:
        """See :class:`Perturbation`."""
        scale = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs > 0 else 1.0
        network.eval()
        adversarial = pgd(
            network,
            images,
            labels,
            norm=self.norm,
            epsilon=scale * self.epsilon,
            steps=self.steps,
            step_size=scale * self.step_size,
        )
        network.train()
        return adversarial
