"""Trainings of encoders for conditional GANs: their settings, and what is measured of reconstructions and codes."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from gencls.core.errors import GenclsError
from gencls.core.streams.seeds import seeded
from gencls.perceptual import Combined, SquaredL2
from gencls.zoo.checkpoints.places import weights_in
from gencls.zoo.data import ImageData
from gencls.zoo.distances import DISTANCES
from gencls.zoo.networks import LatentDiscriminator, ProjectionDiscriminator, ResNetEncoder, SelfModulatedGenerator
from gencls.zoo.registry import load_distance
from gencls.zoo.trained import trained_network
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.measure import accuracy, measured_part
from gencls.zoo.training.methods import cgan
from gencls.zoo.training.methods.enc import EncDTraining, EncoderTraining, EncTraining, Fixed
from gencls.zoo.training.methods.generators import CLASSIFIERS, judge
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation
from gencls.zoo.training.views.perturbations import Plain

_CHUNK = 200
_HIDDEN = (256, 128)
"""Hidden neurons of the discriminator of codes, as in Table 2.1."""
_LARGE = 64
"""Narrow encoders of images with at least this H = W do not have their channels next to each other."""
_NARROW = 16
"""Encoders with fewer channels in their first stage are narrow."""
_PRIOR = 100_000
"""Codes of the prior whose norms are on a card."""


@dataclass(frozen=True, kw_only=True)
class GANEncoderPreset(NetworkPreset):
    """Training of an encoder for some class-conditional generator.

    Attributes:
        codes: whether the discriminator is one of codes (Enc-D), not of images (Enc).
        percept: lambda_percept, the weight of the perceptual distance in D.
        width: this and ``blocks`` are those of :class:`~gencls.zoo.networks.ResNetEncoder`.
        weight: this and ``discriminator_rate`` are those of the training.
        frozen_share: share of the epochs in which the discriminator of images is frozen.
        weights: the user's folder of weights; None takes the committed ones.
    """

    codes: bool
    percept: float = 1.0
    width: int
    blocks: tuple[int, ...]
    weight: float = 1.0
    discriminator_rate: float
    frozen_share: float = 1 / 3
    weights: Path | None = None

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Length of the codes."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, str]:
        """The generator and the perceptual distance, for the card."""

    @property
    def augmentation(self) -> DifferentiableAugmentation:
        """What the discriminator of images sees its images through: nothing, unless the GAN learned so."""
        return DifferentiableAugmentation(translation=0.0, cutout=0.0, colour=False)

    @abstractmethod
    def fixed(self, num_classes: int = 1) -> Fixed:
        """Read the generator, which must have so many classes, and the distance.

        Raises:
            GenclsError: for weights that are missing, damaged, or of something else.
        """

    @abstractmethod
    def critic(self, num_classes: int) -> nn.Module:
        """Make a discriminator of images of the kind that the generator learned with."""

    @abstractmethod
    def learned(self) -> nn.Module:
        """Read the discriminator that the generator learned with; errors are those of :meth:`fixed`."""

    @property
    def arguments(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim, "image_shape": self.shape, **self.chosen("width", "blocks")}

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        return self.arguments

    @property
    def options(self) -> tuple[str, ...]:
        return () if self.weights is None else (f"--pretrained {self.weights.name}",)

    def starting_from(self, pretrained: Path) -> Self:
        """The same training with the networks of this folder.

        Raises:
            GenclsError: for a path that is no folder.
        """
        if not pretrained.is_dir():
            raise GenclsError(f"{self.name}: expected the folder with the weights of {self.names[0]}, got {pretrained}")
        return replace(self, weights=pretrained)

    @property
    def recipe(self) -> str:
        kind = f"a discriminator of codes with {_HIDDEN[0]} and {_HIDDEN[1]} hidden neurons (eq. 3.5)"
        if not self.codes:
            kind = f"the GAN's image discriminator (eq. 3.3), frozen in the first {self.frozen_share:.0%} of the epochs"
        generator, distance = self.names
        return (
            f"{self.duration}, Adam from learning rate {self.learning_rate} along a cosine to 0, on the squared L2 distance "
            f"plus {self.percept:g} times {distance} (eq. 3.7) plus {self.weight:g} times the "
            f"loss by {kind}, which learns at {self.discriminator_rate:g} times the rate; generator: {generator}; images: "
            f"{self.perturbation}"
        )

    def training(self, num_classes: int) -> EncoderTraining:
        made = self._training(num_classes)
        # On a CPU torch 2.15 writes beyond its memory in the backward pass of a 1 x 1 convolution with stride 2 over large maps
        # whose few channels are next to each other. glibc's checks find it with 3 and 8 channels of 64 x 64 pixels and with 8
        # of 128 x 128, not with 12 and more of 64 x 64, nor with 3 and 8 of 32 x 32.
        made.channels_last = self.shape[1] < _LARGE or self.width >= _NARROW
        return made

    def _training(self, num_classes: int) -> EncoderTraining:
        network = ResNetEncoder(**self.arguments)
        fixed = partial(self.fixed, num_classes)
        shared = self.chosen("weight", "discriminator_rate") | self.shared
        if self.codes:
            return EncDTraining(network, LatentDiscriminator(self.latent_dim, _HIDDEN), fixed, **shared)
        return EncTraining(
            network,
            self.critic(num_classes),
            fixed,
            self.learned,
            frozen_epochs=self.frozen_share * self.epochs,
            augmentation=self.augmentation,
            **shared,
        )

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure reconstructions and codes on a part of the last test set.

        Returns:
            The squared error; D; accuracy of the committed classifier on images and reconstructions, if it knows the data set;
                mean and quantiles of the codes' L2 norms, and those of the prior.
        """
        images, labels, where = measured_part(tests[-1], few)
        fixed = self.fixed()
        with torch.no_grad():
            codes = torch.cat([network(batch) for batch in images.split(_CHUNK)])
            pairs = list(zip(codes.split(_CHUNK), labels.split(_CHUNK), images.split(_CHUNK), strict=True))
            made = torch.cat([fixed.generator((code,), label) for code, label, _ in pairs])
            distances = [fixed.distance(batch, some) for (_, _, batch), some in zip(pairs, made.split(_CHUNK), strict=True)]
        figures = {
            f"mean squared reconstruction error, correct labels, {where}": float((made - images).square().mean()),
            f"mean distance of reconstructions (eq. 3.7), {where}": float(torch.cat(distances).mean()),
        }
        if tests[-1].name in CLASSIFIERS:
            name = CLASSIFIERS[tests[-1].name]
            classifier, _ = judge(name)
            for kind, shown in (("images", images), ("reconstructions", made)):
                figures[f"accuracy of {name} on {kind}, {where}"] = round(accuracy(classifier, shown, labels), 6)
        with seeded(0):
            prior = torch.randn(_PRIOR, codes.shape[1])
        for kind, some in ((f"codes, {where}", codes), (f"the prior, {_PRIOR} draws", prior)):
            norms = some.norm(dim=1)
            figures[f"mean L2 norm of {kind}"] = round(float(norms.mean()), 4)
            for share in (0.05, 0.5, 0.95):
                figures[f"{share:.0%} quantile of the L2 norm of {kind}"] = round(float(norms.quantile(share)), 4)
        return figures


@dataclass(frozen=True, kw_only=True)
class EncoderPreset(GANEncoderPreset):
    """Training of an encoder for a conditional GAN of ours.

    ``weights`` is the folder of ``gencls train --out``, or that of the GAN in it; what it lacks is taken from the committed
    weights.

    Attributes:
        gan: the training of the GAN.
        features: name of the feature distance in D, as :func:`gencls.zoo.load_distance` takes it.
    """

    gan: cgan.ConditionalGANPreset
    features: str

    @property
    def latent_dim(self) -> int:
        return self.gan.latent_dim

    @property
    def names(self) -> tuple[str, str]:
        return self.gan.name, f"the feature distance {self.features}"

    @property
    def augmentation(self) -> DifferentiableAugmentation:
        return self.gan.augmentation

    def fixed(self, num_classes: int = 1) -> Fixed:
        generator = trained_network(SelfModulatedGenerator, self.gan.name, self._file(self.gan.name))
        if generator.latent_dim != self.latent_dim or generator.image_shape != self.shape:
            raise GenclsError(
                f"{self.name}: expected a generator of {self.latent_dim} latents and images {self.shape}, got "
                f"{generator.latent_dim} and {generator.image_shape}"
            )
        if generator.num_classes < num_classes:
            raise GenclsError(
                f"{self.name}: expected a generator of the {num_classes} classes of the images, got one of "
                f"{generator.num_classes}"
            )
        trained = DISTANCES[self.features].trained
        distance = load_distance(self.features, weights=self._file(trained) if trained else None)
        return Fixed(generator, Combined(SquaredL2(), distance, self.percept))

    def critic(self, num_classes: int) -> ProjectionDiscriminator:
        return ProjectionDiscriminator(**self.gan.companion_arguments("discriminator", num_classes))

    def learned(self) -> ProjectionDiscriminator:
        name = f"{self.gan.name}-discriminator"
        return trained_network(ProjectionDiscriminator, name, self._file(name))

    def _file(self, name: str) -> Path | None:
        """The weights of a training in the user's folder; None if it lacks them."""
        if self.weights is None:
            return None
        folder = self.weights.parent if self.weights.name == self.gan.name else self.weights
        return weights_in(folder, name) or weights_in(folder / self.gan.name, name)


_GANS = {gan.name.removeprefix("cgan-"): gan for gan in cgan.PRESETS}


def _pair(data: str, **settings: Any) -> tuple[EncoderPreset, EncoderPreset]:
    gan = _GANS[data]
    given: dict[str, Any] = {
        "gan": gan,
        "data": gan.data,
        "shape": gan.shape,
        "perturbation": Plain(),
        "batch_size": 64,
        "learning_rate": 1e-3,
        "features": f"features-{data}",
        **settings,
    }
    what = f"Encoder for {gan.name} (thesis, section 3.2)"
    given["discriminator_rate"] = 0.2
    # The thesis has weight 1 and no rates. At the encoder's rate the discriminator of codes knew all codes from the prior's.
    return (
        EncoderPreset(name=f"enc-{data}", what=f"{what}: Enc", codes=False, **given),
        EncoderPreset(name=f"enc-d-{data}", what=f"{what}: Enc-D", codes=True, weight=5.0, **given),
    )


PRESETS = (
    *_pair("fashion", width=16, blocks=(1, 1, 1, 1), epochs=4),
    *_pair("mnist", width=8, blocks=(1, 1, 1, 1), epochs=40),
    *_pair("cifar10", width=64, blocks=(2, 2, 2, 2), epochs=20, batch_size=128),
)
