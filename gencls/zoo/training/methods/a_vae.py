"""Training of A-VAE: an autoencoder against a critic."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks.purifiers.a_vae import AVAE, AVAECritic
from gencls.zoo.training.methods.modules import NetworkTraining, divergence
from gencls.zoo.training.moving_average import move_average

__all__ = ["AVAETraining", "gradient_penalty"]

_BETAS = (0.0, 0.99)
_STYLE_RATE = 1 / 400  # of the layers between latent and style: 1e-5 where the others have 0.004
_EMA = 0.999


class AVAETraining(NetworkTraining):
    """Wasserstein GAN with gradient penalty, whose generator is an autoencoder with a KL term.

        critic:  E[D(G(x))] - E[D(x)] + drift E[D(x)^2] + penalty E[(||grad D(x^)|| - 1)^2]
        network: -E[D(G(x))] + KL[q(z | x) || N(0, 1)] / dim z + reconstruction E[(G(x) - x)^2]

    x^ lies at random between x and G(x). The squared error is the mean over pixels on [-1, 1]. One step of each a batch, by
    Adam without momentum at a constant rate. The average of the network's weights over the steps is what is saved.

    Source: public code nercms-mmap/A-VAE (Zhou et al., ECCV 2020). It measures the squared error and leaves it out of the loss,
    so that only the encoder's maps tie a realisation to its image: ``reconstruction=0``.

    Args:
        network: the autoencoder.
        critic: of its images.
        reconstruction: weight of the squared error, >= 0.
        penalty: weight of the gradient penalty, >= 0.
        drift: weight of the critic's squared values, >= 0.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.

    Raises:
        GenclsError: for a negative weight.
    """

    extendable = True  # the rates are constant

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
        self.automatic_optimization = False
        self.network = network
        self.critic = critic
        self.average = deepcopy(network).requires_grad_(False)
        self.reconstruction, self.penalty, self.drift = reconstruction, penalty, drift

    @property
    def product(self) -> nn.Module:
        """The average of the network."""
        return self.average

    def configure_optimizers(self) -> Any:
        """One Adam for the network, one for the critic."""
        style = {id(parameter) for parameter in self.network.style.parameters()}
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in self.network.parameters() if id(parameter) not in style]},
            {"params": list(self.network.style.parameters()), "lr": self.learning_rate * _STYLE_RATE},
        ]
        return [
            torch.optim.Adam(groups, lr=self.learning_rate, betas=_BETAS),
            torch.optim.Adam(self.critic.parameters(), lr=self.learning_rate, betas=_BETAS),
        ]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """One step on images (N, C, H, W) in [0, 1]; labels have no part in it."""
        images, labels = batch
        seen = self.perturbation(self.network, images, labels, epoch=self.epochs_passed(batch_index))
        real = self.network.padded(images)
        optimizers: Any = self.optimizers()

        with torch.no_grad():
            encoded = self.network.encode(seen)
            fake = self.network.realise(encoded, self.network.noise(encoded))
        figures = self.critic_losses(real, fake)
        optimizers[1].zero_grad()
        self.manual_backward(torch.stack(list(figures.values())).sum())
        optimizers[1].step()

        self.critic.requires_grad_(False)
        losses = self.network_losses(seen, real)
        optimizers[0].zero_grad()
        self.manual_backward(losses["adversarial"] + losses["prior"] + self.reconstruction * losses["error"])
        optimizers[0].step()
        self.critic.requires_grad_(True)
        steps = self.global_step // 2  # there are two optimisers
        move_average(self.average, self.network, decay=min(_EMA, (1 + steps) / (10 + steps)))
        self.log_dict({**figures, **losses}, prog_bar=True, batch_size=len(labels))

    def critic_losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The terms of the critic's loss on images (N, C, side, side) in [-1, 1]."""
        values = self.critic(real)
        return {
            "wasserstein": self.critic(fake).mean() - values.mean(),
            "drift": self.drift * values.square().mean(),
            "penalty": self.penalty * gradient_penalty(self.critic, real, fake),
        }

    def network_losses(self, images: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The terms of the network's loss, without weights; images (N, C, H, W) are encoded, real ones are to be met."""
        encoded = self.network.encode(images)
        fake = self.network.realise(encoded, self.network.noise(encoded))
        _, mean, log_variance = encoded
        prior = divergence(mean.flatten(1), log_variance.flatten(1)).mean() / mean[0].numel()
        return {"adversarial": -self.critic(fake).mean(), "prior": prior, "error": F.mse_loss(fake, real)}


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(||grad D(x^)||_2 - 1)^2], x^ = t x + (1 - t) x~ with t uniform on [0, 1] for each image.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.

    Args:
        critic: (N, C, H, W) to (N,).
        real: images x.
        fake: images x~ of the same shape.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    lengths = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()  # at 0 the square root has no gradient
    return (lengths - 1).square().mean()
