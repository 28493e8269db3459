"""Training of a conditional GAN: self-modulated generator against projection discriminator."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.generator import ClassConditionalGenerator
from gencls.core.streams.seeds import seeded, stream_seed
from gencls.eval.measures.fid import frechet_distance
from gencls.zoo.data import ImageData, load_data
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import ProjectionDiscriminator, SelfModulatedGenerator
from gencls.zoo.training.base import Moment, NetworkPreset, NetworkTraining, Steps
from gencls.zoo.training.functional import move_average
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.generators import CLASSIFIERS, judge
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation
from gencls.zoo.training.views.perturbations import Plain

_CHUNK = 200
_WATCHED = 16
"""Batches at the beginning of an epoch whose images the Frechet distance takes."""
_STATISTICS = 100
"""Batches for the statistics of the average's batch norms."""


class ConditionalGANTraining(NetworkTraining):
    """Adversarial training with the hinge loss, on augmented images.

    In turn, the discriminator descends on E max(0, 1 - D(T(x), y)) + E max(0, 1 + D(T(G(z, y')), y')), the generator on
    -E D(T(G(z, y')), y'). Here z is from the prior, y' uniform over the classes, and T a differentiable augmentation that is
    drawn anew for each image. With an auxiliary head the discriminator also descends on the cross-entropy of real images, the
    generator on that of its own. Adam has no first moment, and the discriminator learns at a rate of its own. The
    training saves the generator's moving average. Its batch norms get the statistics of its own images at the end.

    Sources: hinge loss and projection (Miyato & Koyama 2018, arXiv:1802.05637); augmentation (Zhao et al. 2020,
    arXiv:2006.10738); two rates (Heusel et al. 2017, arXiv:1706.08500; Zhang et al. 2019, arXiv:1805.08318); moving average and
    statistics at the end (Brock et al. 2019, arXiv:1809.11096, section 3 and appendix C).

    Args:
        network: the generator. It is copied; the copy becomes the moving average.
        discriminator: a discriminator of the same classes and images.
        discriminator_rate: learning rate of the discriminator as a multiple of the generator's.
        half_life: half-life of the moving average, in images.
        augmentation: T.
        class_weight: weight of the cross-entropy of the auxiliary head; without such a head it has no effect.
        batch_size: images per batch of the statistics at the end.
        watched: a classifier of ``CLASSIFIERS``, on whose features a Frechet distance is logged once per epoch, of the images
            of the average and the real images of 16 batches, under the name "fid on" this classifier. None logs none.
    """

    network: SelfModulatedGenerator

    def __init__(
        self,
        network: SelfModulatedGenerator,
        discriminator: ProjectionDiscriminator,
        *,
        discriminator_rate: float = 2.0,
        half_life: float = 20_000,
        augmentation: DifferentiableAugmentation | None = None,
        class_weight: float = 1.0,
        batch_size: int = 64,
        watched: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if min(discriminator_rate, half_life) <= 0 or class_weight < 0:
            raise GenclsError(
                "training of a conditional GAN: expected discriminator_rate > 0, half_life > 0 and class_weight >= 0, got "
                f"{discriminator_rate}, {half_life} and {class_weight}"
            )
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.learner = network
        self.discriminator = discriminator
        self.discriminator_rate = discriminator_rate
        self.half_life = half_life
        self.augment = augmentation or DifferentiableAugmentation()
        self.class_weight = class_weight
        self.batch_size = batch_size
        self.watched = watched
        self._judge: tuple[nn.Module, ...] = ()  # no part of the training's state
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def companions(self) -> dict[str, nn.Module]:
        """The discriminator, from which the encoder's training starts (thesis, section 3.3)."""
        return {"discriminator": self.discriminator}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam with moments (0, 0.9) for the discriminator, which moves first, and for the generator."""
        rate, betas = self.learning_rate, (0.0, 0.9)
        return [
            torch.optim.Adam(self.discriminator.parameters(), lr=rate * self.discriminator_rate, betas=betas),
            torch.optim.Adam(self.learner.parameters(), lr=rate, betas=betas),
        ]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        self.network.eval()
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        figures = self._watch(images, at)
        with torch.no_grad():
            made, chosen = self._sample(self.learner, len(images))
        loss = self.discriminator_loss(images, labels, made, chosen)
        yield loss, figures | {"discriminator": loss}

        self.discriminator.requires_grad_(False)
        loss = self.generator_loss(*self._sample(self.learner, len(images)))
        self.discriminator.requires_grad_(True)
        yield loss, {"generator": loss}
        move_average(self.network, self.learner, decay=0.5 ** (len(images) / self.half_life), buffers=True)

    def discriminator_loss(self, images: Tensor, labels: Tensor, made: Tensor, chosen: Tensor) -> Tensor:
        """The hinge loss of real images with labels and of generated ones; the auxiliary head learns from the real ones."""
        features = self.discriminator.features(torch.cat([self.augment(images), self.augment(made)]))
        real, fake = self.discriminator.judge(features, torch.cat([labels, chosen])).split([len(images), len(made)])
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        if self.discriminator.auxiliary and self.class_weight:
            loss = loss + self.class_weight * F.cross_entropy(self.discriminator.classify(features[: len(images)]), labels)
        return loss

    def generator_loss(self, made: Tensor, chosen: Tensor) -> Tensor:
        """The loss of generated images of the classes ``chosen``."""
        features = self.discriminator.features(self.augment(made))
        loss = -self.discriminator.judge(features, chosen).mean()
        if self.discriminator.auxiliary and self.class_weight:
            loss = loss + self.class_weight * F.cross_entropy(self.discriminator.classify(features), chosen)
        return loss

    def finish(self, seed: int) -> None:
        """Measure the statistics of the average's batch norms on its own images."""
        for norm in self.network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
        self.network.train()
        with torch.no_grad(), seeded(stream_seed(seed, "statistics")):
            for _ in range(_STATISTICS):
                self._sample(self.network, self.batch_size)
        self.network.eval()

    def _sample(self, generator: SelfModulatedGenerator, count: int) -> tuple[Tensor, Tensor]:
        """Images of the prior and of random classes, and these classes."""
        latents = generator.sample_latents(count)
        labels = torch.randint(generator.num_classes, (count,), device=latents[0].device)
        return generator(latents, labels), labels

    def _watch(self, images: Tensor, at: Moment) -> dict[str, Tensor]:
        """Collect images at the beginning of an epoch, and give their Frechet distance when there are enough."""
        if self.watched is None or at.epoch < 1:
            return {}
        if at.epoch == int(at.epoch):
            self._seen = []
        elif not 0 < len(self._seen) < _WATCHED:
            return {}
        with torch.no_grad():
            self._seen.append((images, self._sample(self.network, len(images))[0]))
        if len(self._seen) < _WATCHED:
            return {}
        if not self._judge:
            self._judge = (judge(self.watched)[1].to(images.device),)
        real, made = (torch.cat(several) for several in zip(*self._seen, strict=True))
        return {f"fid on {self.watched}": torch.tensor(frechet_distance(self._judge[0], real, made))}


@dataclass(frozen=True, kw_only=True)
class ConditionalGANPreset(NetworkPreset):
    """Training of a conditional GAN.

    Attributes:
        latent_dim: this and ``width`` are those of :class:`~gencls.zoo.networks.SelfModulatedGenerator`.
        width: channels of the generator's last block.
        discriminator_width: ``width`` of :class:`~gencls.zoo.networks.ProjectionDiscriminator`.
        auxiliary: whether the discriminator has an auxiliary head.
        discriminator_rate: this and the attributes below are those of :class:`ConditionalGANTraining`.
    """

    latent_dim: int
    width: int
    discriminator_width: int
    auxiliary: bool = False
    discriminator_rate: float = 2.0
    half_life: float = 20_000
    augmentation: DifferentiableAugmentation = DifferentiableAugmentation()
    watched: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"image_shape": self.shape, **self.chosen("latent_dim", "width")}

    def companion_arguments(self, part: str, num_classes: int) -> dict[str, Any]:
        return {
            "num_classes": num_classes,
            "width": self.discriminator_width,
            "image_shape": self.shape,
            "auxiliary": self.auxiliary,
        }

    @property
    def recipe(self) -> str:
        head = "projection" + " and auxiliary head" * self.auxiliary
        return (
            f"{self.duration}, one step of a discriminator of width {self.discriminator_width} ({head}, spectral "
            f"normalisation) for each of the generator, hinge loss, Adam with moments (0, 0.9) from learning rate "
            f"{self.learning_rate}, of the discriminator {self.discriminator_rate:g} times as much, along a cosine to 0, "
            f"moving average of half-life {self.half_life:.0f} images, whose batch norms are measured at the end; images: "
            f"{self.perturbation}, {self.augmentation}"
        )

    def training(self, num_classes: int) -> ConditionalGANTraining:
        return ConditionalGANTraining(
            SelfModulatedGenerator(**self.card_arguments(num_classes)),
            ProjectionDiscriminator(**self.companion_arguments("discriminator", num_classes)),
            **self.chosen("discriminator_rate", "half_life", "augmentation", "batch_size", "watched"),
            **self.shared,
        )

    def measure(self, network: Any, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Compare samples with the last test set: up to ten times ``few`` images, as many of each class as it has.

        Returns:
            If a committed classifier knows the data set: its accuracy on the samples, the Frechet distance of samples on its
                features, and that of real training images if they are found.
        """
        test = tests[-1]
        if test.name not in CLASSIFIERS:
            return {}
        name = CLASSIFIERS[test.name]
        classifier, features = judge(name)
        part = balanced_subset(test.labels, min(10 * few, len(test)), seed=0)
        real, labels = test.images[part], test.labels[part]
        where = f"{test.name} {test.split}, {len(part)} images each"
        with seeded(0):
            made = class_samples(network, labels)
        described = f"on features of {name} ({features.num_features} before its last layer), {where}"
        figures = {
            f"accuracy of {name} on as many samples, {where}": round(accuracy(classifier, made, labels), 6),
            f"FID of samples {described}": frechet_distance(features, real, made),
        }
        with suppress(GenclsError):  # the files may lie elsewhere
            training = load_data(test.name, "train", limit=len(part))
            figures[f"FID of real training images {described}"] = frechet_distance(features, real, training.images)
        return figures


def class_samples(network: ClassConditionalGenerator, labels: Tensor) -> Tensor:
    """One image of the prior for each of the classes ``labels``, int64 (N,): (N, C, H, W) in [0, 1]."""
    with torch.no_grad():
        return torch.cat([network(network.sample_latents(len(chunk)), chunk) for chunk in labels.split(_CHUNK)])


_GREY = ConditionalGANPreset(
    name="cgan-fashion",
    what="Conditional GAN with self-modulation and projection discriminator, sized for one CPU core",
    data="fashion-mnist",
    perturbation=Plain(),
    shape=(1, 28, 28),
    epochs=24,
    batch_size=64,
    learning_rate=5e-4,
    latent_dim=64,
    width=16,
    discriminator_width=32,
    watched="cnn-fashion",
)

PRESETS = (
    _GREY,
    replace(
        _GREY,
        name="cgan-mnist",
        data="mnist-embedded",
        epochs=120,
        latent_dim=32,
        width=8,
        discriminator_width=16,
        watched="cnn-mnist",
    ),
    replace(
        _GREY,
        name="cgan-cifar10",
        what="Conditional GAN with self-modulation and projection discriminator, sized for ten minutes of a GPU",
        data="cifar10",
        shape=(3, 32, 32),
        epochs=60,
        batch_size=128,
        latent_dim=128,
        width=64,
        discriminator_width=64,
        watched="resnet18-autoattack-cifar10",
    ),
)
