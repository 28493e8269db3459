"""How an encoder for a conditional GAN learns: Enc, with an image discriminator, and Enc-D, with one of codes."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.distance import ImageDistance
from gencls.core.errors import GenclsError
from gencls.core.generator import ClassConditionalGenerator
from gencls.zoo.networks import LatentDiscriminator, ResNetEncoder
from gencls.zoo.training.base import Moment, NetworkTraining, Steps
from gencls.zoo.training.views.differentiable import DifferentiableAugmentation


@dataclass(frozen=True)
class Fixed:
    """What an encoder learns with and what does not learn itself.

    Attributes:
        generator: G, in eval mode.
        distance: D of eq. 3.7.
    """

    generator: ClassConditionalGenerator
    distance: ImageDistance


class EncoderTraining(NetworkTraining):
    """An encoder E descends on the distance D(x, G(E(x), y)) of the correct label y, plus a discriminator's opinion.

    The generator G stays as it is, in eval mode. Encoder and discriminator take their steps together: neither loss has
    gradients of the other's weights.

    Args:
        network: E.
        discriminator: the network that learns beside it.
        fixed: reads G and D; the first step calls it.
        weight: weight of the discriminator's opinion of the encoder; 1 in the thesis.
        discriminator_rate: learning rate of the discriminator as a multiple of the encoder's.
        betas: the decay rates of the discriminator's Adam.
    """

    network: ResNetEncoder

    def __init__(
        self,
        network: ResNetEncoder,
        discriminator: nn.Module,
        fixed: Callable[[], Fixed],
        *,
        weight: float,
        discriminator_rate: float,
        betas: tuple[float, float],
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if weight < 0 or discriminator_rate <= 0:
            raise GenclsError(
                "training of an encoder: expected weight >= 0 and discriminator_rate > 0, got "
                f"{weight} and {discriminator_rate}"
            )
        self.network = network
        self.discriminator = discriminator
        self.weight = weight
        self.discriminator_rate = discriminator_rate
        self.betas = betas
        self._read = fixed
        self._fixed: tuple[Fixed, ...] = ()  # no part of the training's state

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The discriminator learns at a rate of its own."""
        rate = self.learning_rate * self.discriminator_rate
        return [
            {"params": list(self.network.parameters())},
            {"params": list(self.discriminator.parameters()), "lr": rate, "betas": self.betas},
        ]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        if not self._fixed:
            read = self._read()
            self._fixed = (Fixed(read.generator.to(images.device), read.distance.to(images.device)),)
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        codes = self.network(images)
        made = self._fixed[0].generator((codes,), labels)
        figures = {"distance": self._fixed[0].distance(images, made).mean(), "norm": codes.detach().norm(dim=1).mean()}
        figures |= self.opinions(images, labels, codes, made, at)
        loss = figures["distance"] + self.weight * figures["opinion"]
        yield loss + figures["discriminator"] if "discriminator" in figures else loss, figures

    @abstractmethod
    def opinions(self, images: Tensor, labels: Tensor, codes: Tensor, made: Tensor, at: Moment) -> dict[str, Tensor]:
        """What the discriminator says: its ``opinion``, which the encoder minimises, and its own loss if it learns now.

        Args:
            images: x, (N, C, H, W).
            labels: y, int64 (N,).
            codes: E(x), (N, d).
            made: G(E(x), y), (N, C, H, W).
            at: where the training stands.
        """


class EncTraining(EncoderTraining):
    """Enc: l = D(x, G(E(x), y)) - D_image(T(G(E(x), y)), y), with the GAN's own discriminator.

    In the first epochs the discriminator is frozen. Then it learns as in the GAN's training: it descends on the hinge loss of
    images and reconstructions, both augmented by T.

    Source: thesis, eq. 3.3 and section 3.3 (on ImageNet 100 of 300 epochs with the discriminator frozen); Zhu et al. 2020,
    arXiv:2004.00049.

    Args:
        network: E.
        discriminator: D_image, images (N, C, H, W) and labels (N,) to (N,), without the GAN's weights.
        fixed: reads G and D; the first step calls it.
        learned: reads D_image with the GAN's weights; the first step of the whole training takes these weights.
        frozen_epochs: epochs in which D_image does not learn.
        augmentation: T.
        **shared: see :class:`EncoderTraining`.
    """

    begun: Tensor

    def __init__(
        self,
        network: ResNetEncoder,
        discriminator: nn.Module,
        fixed: Callable[[], Fixed],
        learned: Callable[[], nn.Module],
        *,
        frozen_epochs: float,
        augmentation: DifferentiableAugmentation,
        **shared: Any,
    ) -> None:
        super().__init__(network, discriminator, fixed, betas=(0.0, 0.9), **shared)
        self.frozen_epochs = frozen_epochs
        self.augment = augmentation
        self._learned = learned
        self.register_buffer("begun", torch.tensor(False))

    def opinions(self, images: Tensor, labels: Tensor, codes: Tensor, made: Tensor, at: Moment) -> dict[str, Tensor]:
        if not self.begun:
            self.discriminator.load_state_dict(self._learned().state_dict())
            self.begun.fill_(True)
        joint = at.epoch >= self.frozen_epochs
        self.discriminator.train(joint)  # power iterations belong to learning
        self.discriminator.requires_grad_(False)
        figures = {"opinion": -self.discriminator(self.augment(made), labels).mean()}
        self.discriminator.requires_grad_(True)
        if joint:
            seen = torch.cat([self.augment(images), self.augment(made.detach())])
            real, fake = self.discriminator(seen, labels.repeat(2)).chunk(2)
            figures["discriminator"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        return figures


class EncDTraining(EncoderTraining):
    """Enc-D: l = D(x, G(E(x), y)) - log D_latent(E(x)), with a discriminator of codes that learns from the start.

    It tells codes from the prior's: it descends on -log D_latent(z) - log(1 - D_latent(E(x))), z from the prior.

    Source: thesis, eq. 3.5. It writes the second term as D_latent(E(x)); the logarithm is that of its adversarial autoencoder
    (eq. 2.5).

    Args:
        network: E.
        discriminator: D_latent.
        fixed: reads G and D; the first step calls it.
        **shared: see :class:`EncoderTraining`.
    """

    discriminator: LatentDiscriminator

    def __init__(
        self, network: ResNetEncoder, discriminator: LatentDiscriminator, fixed: Callable[[], Fixed], **shared: Any
    ) -> None:
        super().__init__(network, discriminator, fixed, betas=(0.9, 0.999), **shared)

    def opinions(self, images: Tensor, labels: Tensor, codes: Tensor, made: Tensor, at: Moment) -> dict[str, Tensor]:
        prior = torch.randn_like(codes)
        judged = F.softplus(-self.discriminator(prior)).mean() + F.softplus(self.discriminator(codes.detach())).mean()
        return {"opinion": F.softplus(-self.discriminator.frozen(codes)).mean(), "discriminator": judged}
