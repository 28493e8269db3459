"""The trainings of autoencoders that purify: the methods that the MLVGM paper compares with."""

from dataclasses import dataclass, replace
from typing import Any

from gencls.zoo.training.settings import NetworkPreset
from gencls.zoo.training.views.perturbations import FastGradient, Plain

__all__ = ["PURIFIER_PRESETS", "AVAEPreset", "NDVAEPreset", "PurifierPreset"]


@dataclass(frozen=True, kw_only=True)
class PurifierPreset(NetworkPreset):
    """Training of an autoencoder that purifies.

    Attributes:
        classifier: name of the classifier that is to be defended.
        length: L2 length of the gradient step of the measurements, in [0, 1] pixel units.
    """

    classifier: str
    length: float


@dataclass(frozen=True, kw_only=True)
class AVAEPreset(PurifierPreset):
    """Training of :class:`gencls.zoo.networks.AVAE`; sizes are described there, weights in the training.

    Attributes:
        channels: at 4, 8, 16, ... pixels, of generator and critic.
        latent_channels: of the latent.
        style_dim: numbers in a style.
        reconstruction: weight of the squared error; 0 in the published code.
    """

    channels: tuple[int, ...]
    latent_channels: int
    style_dim: int
    reconstruction: float

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""
        return {
            "image_shape": self.shape,
            "channels": self.channels,
            "latent_channels": self.latent_channels,
            "style_dim": self.style_dim,
        }

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Wasserstein GAN with gradient penalty, Adam at "
            f"{self.learning_rate}, weight of the squared error {self.reconstruction}, images: {self.perturbation}"
        )


@dataclass(frozen=True, kw_only=True)
class NDVAEPreset(PurifierPreset):
    """Training of :class:`gencls.zoo.networks.NDVAE`; sizes are described there.

    Attributes:
        groups: of each scale, coarse to fine.
        channels: at the size of the images.
        latent_channels: of a latent.
        cells: per group and per halving.
        mixtures: logistics per pixel.
        sigma: of the noise, in [0, 1] pixel units.
        warm_up_share: of the steps in which the weight of the KL divergence rises to 1.
    """

    groups: tuple[int, ...]
    channels: int
    latent_channels: int
    cells: int
    mixtures: int
    sigma: float
    warm_up_share: float = 0.3

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""
        return {
            "image_shape": self.shape,
            "groups": self.groups,
            "channels": self.channels,
            "latent_channels": self.latent_channels,
            "cells": self.cells,
            "block_cells": self.cells,
            "mixtures": self.mixtures,
        }

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Adamax from learning rate {self.learning_rate} along a "
            f"cosine to 0, KL weight up to 1 in {self.warm_up_share:.0%} of the steps, noise {self.sigma} on images: "
            f"{self.perturbation} of {self.classifier}"
        )


_FASHION: tuple[PurifierPreset, ...] = (
    AVAEPreset(
        name="a-vae-fashion",
        what="A-VAE in small (Zhou et al., ECCV 2020), without a reconstruction error in its loss, as in the published code",
        data="fashion-mnist",
        shape=(1, 28, 28),
        classifier="cnn-plain-fashion",
        length=1.5,
        perturbation=Plain(),
        epochs=1,
        batch_size=32,
        learning_rate=4e-3,
        channels=(64, 32, 16, 8),
        latent_channels=64,
        style_dim=64,
        reconstruction=0.0,
    ),
    NDVAEPreset(
        name="nd-vae-fashion",
        what="ND-VAE in small (Jalalinour and Rekabdar, TransAI 2023)",
        data="fashion-mnist",
        shape=(1, 28, 28),
        classifier="cnn-plain-fashion",
        length=1.5,
        perturbation=FastGradient(norm="l2", epsilons=(1.5,)),
        epochs=3,
        batch_size=32,
        learning_rate=1e-2,
        groups=(2, 2),
        channels=4,
        latent_channels=16,
        cells=1,
        mixtures=3,
        sigma=0.1,
    ),
)

PURIFIER_PRESETS: tuple[PurifierPreset, ...] = (
    *_FASHION,
    *(
        replace(of, name=of.name.replace("fashion", "mnist"), data="mnist", classifier="cnn-mnist", epochs=min(2, of.epochs))
        for of in _FASHION
    ),
)
