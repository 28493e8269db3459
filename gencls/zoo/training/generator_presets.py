"""The trainings of generators with several latent levels."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from gencls.zoo.training.perturbations import Plain
from gencls.zoo.training.settings import Preset

__all__ = ["GENERATOR_PRESETS", "GeneratorPreset", "NVAEPreset"]


@dataclass(frozen=True, kw_only=True)
class GeneratorPreset(Preset):
    """Training of a :class:`gencls.core.MultiLatentModel`.

    Attributes:
        shape: (C, H, W) of the images.
    """

    shape: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the network takes."""
        return self.shape

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""


@dataclass(frozen=True, kw_only=True)
class NVAEPreset(GeneratorPreset):
    """Training of :class:`gencls.zoo.networks.NVAE`; the sizes are described there.

    Attributes:
        groups: of each scale, coarse to fine.
        latent_channels: of a code.
        channels: at the size of the images.
        cells: of a group and of a block.
        mixtures: logistics per pixel.
        temperature: of draws from the prior, 0.6 in the MLVGM paper's code.
        warm_up_share: of the steps in which the weight of the KL divergence rises to 1.
        regularization: weight of the penalties on the weights.
        statistics_passes: of 100 samples, for the statistics of batch norm.
    """

    groups: tuple[int, ...]
    latent_channels: int
    channels: int
    cells: int
    mixtures: int
    temperature: float = 0.6
    warm_up_share: float = 0.3
    regularization: float = 0.01
    statistics_passes: int = 50

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""
        return {
            "image_shape": self.shape,
            "groups": self.groups,
            "cells": self.cells,
            "latent_channels": self.latent_channels,
            "channels": self.channels,
            "block_cells": self.cells,
            "mixtures": self.mixtures,
            "temperature": self.temperature,
        }

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Adamax from learning rate {self.learning_rate} along a "
            f"cosine to 0, weight of the KL divergence rising to 1 over the first {self.warm_up_share:.0%} of the steps with "
            f"balanced levels, spectral and batch-norm penalty times {self.regularization}, batch-norm statistics of the "
            f"decoder re-estimated by {self.statistics_passes} passes of 100 samples at temperature {self.temperature}, "
            f"images: {self.perturbation}"
        )


_NVAE: dict[str, Any] = {"data": "fashion-mnist", "perturbation": Plain(), "shape": (1, 28, 28)}

GENERATOR_PRESETS: tuple[Preset, ...] = (
    NVAEPreset(
        name="nvae-fashion",
        what="NVAE of two scales (7 and 14 pixels) for images of 28 pixels, sized for one CPU core",
        groups=(5, 4),
        latent_channels=4,
        channels=12,
        cells=1,
        mixtures=3,
        epochs=3,
        batch_size=32,
        learning_rate=1e-2,
        **_NVAE,
    ),
    NVAEPreset(
        name="nvae-large-fashion",
        what="NVAE of two scales (7 and 14 pixels) for images of 28 pixels, sized for a GPU",
        groups=(8, 8),
        latent_channels=16,
        channels=64,
        cells=2,
        mixtures=10,
        epochs=200,
        batch_size=128,
        learning_rate=1e-2,
        statistics_passes=500,
        **_NVAE,
    ),
)
