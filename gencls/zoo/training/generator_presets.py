"""The trainings of generators with several latent levels."""

from dataclasses import dataclass, replace
from typing import Any

from gencls.zoo.training.settings import NetworkPreset, Preset
from gencls.zoo.training.views.perturbations import Plain
from gencls.zoo.training.views.photo_views import FLIPS

__all__ = ["GENERATOR_PRESETS", "GeneratorPreset", "NVAEPreset", "StylePreset"]


class GeneratorPreset(NetworkPreset):
    """Training of a :class:`gencls.core.MultiLatentModel`."""


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


@dataclass(frozen=True, kw_only=True)
class StylePreset(GeneratorPreset):
    """Training of a StyleGAN2 and of an encoder for it: :class:`gencls.zoo.networks.SmallStyleAutoencoder`.

    Attributes:
        channels: of generator and discriminator at 4, 8, 16, ... pixels.
        style_dim: numbers in a code.
        mapping_layers: of the generator.
        encoder_widths: of the encoder.
        encoder_share: of the epochs, at the end, in which the encoder learns and the generator stays as it is.
        gamma: weight of R1.
        path_weight: of the path-length regularisation; 0 leaves it out.
        half_life: of the generator's moving average, in images.
        closeness: weight of the distance of codes from the average code, for the encoder.
        evenness: weight of the distance of the levels' codes from each other, for the encoder.
        joint_weight: of the squared error for the generator, which goes on learning in the encoder's epochs; with 0, as in
            e4e, it does not change in them.
    """

    channels: tuple[int, ...]
    style_dim: int
    mapping_layers: int
    encoder_widths: tuple[int, int, int]
    encoder_share: float
    gamma: float = 0.05
    path_weight: float = 0.0
    half_life: float = 10_000
    closeness: float = 1e-3
    evenness: float = 2e-4
    joint_weight: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""
        return {
            "image_shape": self.shape,
            "channels": self.channels,
            "style_dim": self.style_dim,
            "mapping_layers": self.mapping_layers,
            "encoder_widths": self.encoder_widths,
        }

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        path = f"path-length regularisation {self.path_weight}" if self.path_weight else "no path-length regularisation"
        joint = ""
        if self.joint_weight:
            joint = f" while the generator goes on, with {self.joint_weight} times the squared error besides"
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, Adam from learning rate {self.learning_rate} along a "
            f"cosine to 0: {1 - self.encoder_share:.0%} of them for the generator, with style mixing, R1 with gamma "
            f"{self.gamma} every 16 steps, {path}, moving average of half-life {self.half_life:.0f} images; then along a "
            f"second cosine for the encoder{joint}, on the squared error, {self.closeness} times the distance of codes from "
            f"their average and {self.evenness} times that between levels, without LPIPS, identity loss and discriminator of "
            f"codes; images: {self.perturbation}"
        )


_STYLE = "StyleGAN2 of 32 pixels for images of 28, with a small residual encoder in the place of e4e's"

# The large NVAEs have as many levels as the MLVGM paper's generators: 24 for identities, 16 for cars.
_FACES: dict[str, Any] = {"data": "celeba-10k-gender", "perturbation": FLIPS, "shape": (3, 64, 64)}
_CARS: dict[str, Any] = {"data": "stanford-cars-4", "perturbation": FLIPS, "shape": (3, 128, 128)}

_FASHION: dict[str, Any] = {"data": "fashion-mnist", "perturbation": Plain(), "shape": (1, 28, 28)}

_NVAE = NVAEPreset(
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
    **_FASHION,
)

GENERATOR_PRESETS: tuple[Preset, ...] = (
    _NVAE,
    replace(_NVAE, name="nvae-mnist", data="mnist", epochs=2),
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
        **_FASHION,
    ),
    StylePreset(
        name="stylegan2-fashion",
        what=f"{_STYLE}, sized for one CPU core",
        channels=(64, 64, 32, 16),
        style_dim=64,
        mapping_layers=4,
        encoder_widths=(32, 64, 128),
        epochs=6,
        encoder_share=1 / 2,
        batch_size=32,
        learning_rate=2e-3,
        joint_weight=20.0,
        **_FASHION,
    ),
    StylePreset(
        name="stylegan2-large-fashion",
        what=f"{_STYLE}, sized for a GPU",
        channels=(256, 256, 128, 64),
        style_dim=256,
        mapping_layers=8,
        encoder_widths=(64, 128, 256),
        epochs=150,
        encoder_share=1 / 3,
        batch_size=64,
        learning_rate=2e-3,
        path_weight=2.0,
        **_FASHION,
    ),
    NVAEPreset(
        name="nvae-faces",
        what="NVAE of three scales (8, 16 and 32 pixels) for faces of 64 pixels, sized for minutes on a GPU",
        groups=(2, 4, 6),
        latent_channels=8,
        channels=10,
        cells=1,
        mixtures=5,
        epochs=10,
        batch_size=64,
        learning_rate=1e-2,
        **_FACES,
    ),
    NVAEPreset(
        name="nvae-large-faces",
        what="NVAE of three scales (8, 16 and 32 pixels) for faces of 64 pixels, sized for a GPU",
        groups=(8, 8, 8),
        latent_channels=16,
        channels=32,
        cells=1,
        mixtures=10,
        epochs=200,
        batch_size=64,
        learning_rate=1e-2,
        statistics_passes=500,
        **_FACES,
    ),
    NVAEPreset(
        name="nvae-cars",
        what="NVAE of four scales (8, 16, 32 and 64 pixels) for cars of 128 pixels, sized for a GPU",
        groups=(4, 4, 4, 4),
        latent_channels=16,
        channels=24,
        cells=1,
        mixtures=10,
        epochs=400,
        batch_size=32,
        learning_rate=1e-2,
        statistics_passes=500,
        **_CARS,
    ),
    StylePreset(
        name="stylegan2-cars",
        what="StyleGAN2 of 128 pixels for cars, with a small residual encoder in the place of the Style Transformer, sized for "
        "a GPU",
        channels=(256, 256, 256, 128, 64, 32),
        style_dim=256,
        mapping_layers=8,
        encoder_widths=(64, 128, 256),
        epochs=800,
        encoder_share=1 / 4,
        batch_size=32,
        learning_rate=2e-3,
        path_weight=2.0,
        **_CARS,
    ),
)
