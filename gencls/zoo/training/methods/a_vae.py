"""Training of A-VAE: an autoencoder against a critic."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import GenclsError, Transform
from gencls.defenses import AVAEPurification
from gencls.zoo.networks.parts.gaussians import divergence
from gencls.zoo.networks.purifiers.a_vae import AVAE, AVAECritic
from gencls.zoo.training.base import Moment, NetworkTraining, Steps
from gencls.zoo.training.functional import gradient_penalty, move_average
from gencls.zoo.training.methods.purifiers import PurifierPreset
from gencls.zoo.training.views.perturbations import Plain

_BETAS = (0.0, 0.99)
_STYLE_RATE = 1 / 400  # learning rate of the layers between latent and style: 1e-5 if the others have 0.004
_EMA = 0.999


class AVAETraining(NetworkTraining):
    """Wasserstein GAN with gradient penalty, whose generator is an autoencoder with a KL term.

        critic:  E[D(G(x))] - E[D(x)] + drift E[D(x)^2] + penalty E[(||grad D(x^)|| - 1)^2]
        network: -E[D(G(x))] + KL[q(z | x) || N(0, 1)] / dim z + reconstruction E[(G(x) - x)^2]

    x^ lies at random between x and G(x). The squared error is the mean over pixels on [-1, 1]. Each batch makes one step of the
    critic and one of the network, by Adam without momentum at a constant rate. The training saves the average of the network's
    weights over the steps.

    Source: public code nercms-mmap/A-VAE (Zhou et al., ECCV 2020). That code measures the squared error and leaves it out of
    the loss, so that only the encoder's maps tie a realisation to its image: ``reconstruction=0``.

    Args:
        network: the autoencoder.
        critic: judges the autoencoder's images.
        reconstruction: weight of the squared error, >= 0.
        penalty: weight of the gradient penalty, >= 0.
        drift: weight of the critic's squared values, >= 0.

    Raises:
        GenclsError: for a negative weight.
    """

    constant_rate = True
    extendable = True
    network: AVAE

    def __init__(
        self,
        network: AVAE,
        critic: AVAECritic,
        *,
        reconstruction: float = 0.0,
        penalty: float = 10.0,
        drift: float = 0.001,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not min(reconstruction, penalty, drift) >= 0:
            raise GenclsError(f"A-VAE: expected weights >= 0, got {reconstruction}, {penalty} and {drift}")
        self.network = network
        self.critic = critic
        self.average = deepcopy(network).requires_grad_(False)
        self.reconstruction, self.penalty, self.drift = reconstruction, penalty, drift

    @property
    def product(self) -> nn.Module:
        """The average of the network's weights."""
        return self.average

    def optimizers(self) -> list[torch.optim.Optimizer]:
        style = {id(parameter) for parameter in self.network.style.parameters()}
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in self.network.parameters() if id(parameter) not in style]},
            {"params": list(self.network.style.parameters()), "lr": self.learning_rate * _STYLE_RATE},
        ]
        return [
            torch.optim.Adam(self.critic.parameters(), lr=self.learning_rate, betas=_BETAS),
            torch.optim.Adam(groups, lr=self.learning_rate, betas=_BETAS),
        ]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        seen = self.perturbation(self.network, images, labels, epoch=at.epoch)
        real = self.network.padded(images)
        with torch.no_grad():
            encoded = self.network.encode(seen)
            fake = self.network.realise(encoded, self.network.noise(encoded))
        figures = self.critic_losses(real, fake)
        yield torch.stack(list(figures.values())).sum(), figures

        self.critic.requires_grad_(False)
        losses = self.network_losses(seen, real)
        yield losses["adversarial"] + losses["prior"] + self.reconstruction * losses["error"], losses
        self.critic.requires_grad_(True)
        count = at.step // 2 + 1  # there are two optimisers
        move_average(self.average, self.network, decay=min(_EMA, (1 + count) / (10 + count)))

    def critic_losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The terms of the critic's loss on images (N, C, side, side) in [-1, 1]."""
        values = self.critic(real)
        return {
            "wasserstein": self.critic(fake).mean() - values.mean(),
            "drift": self.drift * values.square().mean(),
            "penalty": self.penalty * gradient_penalty(self.critic, real, fake),
        }

    def network_losses(self, images: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The terms of the network's loss, without weights: images (N, C, H, W) are encoded, ``real`` is reconstructed."""
        encoded = self.network.encode(images)
        fake = self.network.realise(encoded, self.network.noise(encoded))
        _, mean, log_variance = encoded
        prior = divergence(mean.flatten(1), log_variance.flatten(1)).mean() / mean[0].numel()
        return {"adversarial": -self.critic(fake).mean(), "prior": prior, "error": F.mse_loss(fake, real)}


@dataclass(frozen=True, kw_only=True)
class AVAEPreset(PurifierPreset):
    """Training of :class:`gencls.zoo.networks.AVAE`.

    Attributes:
        channels: channels of the network and the critic. Attributes up to ``style_dim`` are those of
            :class:`~gencls.zoo.networks.AVAE`.
        reconstruction: see :class:`AVAETraining`.
    """

    channels: tuple[int, ...]
    latent_channels: int
    style_dim: int
    reconstruction: float

    @property
    def arguments(self) -> dict[str, Any]:
        return {"image_shape": self.shape, **self.chosen("channels", "latent_channels", "style_dim")}

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, Wasserstein GAN with gradient penalty, Adam at "
            f"{self.learning_rate}, weight of the squared error {self.reconstruction}, images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> AVAETraining:
        critic = AVAECritic(self.shape[0], self.channels)
        return AVAETraining(AVAE(**self.arguments), critic, reconstruction=self.reconstruction, **self.shared)

    def transform(self, network: AVAE) -> Transform:
        return AVAEPurification(network, realisations=16)


_FASHION = AVAEPreset(
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
)

PRESETS = (_FASHION, replace(_FASHION, name="a-vae-mnist", data="mnist", classifier="cnn-mnist"))
