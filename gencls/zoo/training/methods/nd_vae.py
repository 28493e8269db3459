"""Training of ND-VAE: attacked and noisy images to clean ones."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.purifiers.nd_vae import NDVAE
from gencls.zoo.training.methods.hierarchical import warm_up
from gencls.zoo.training.methods.modules import NetworkTraining

__all__ = ["NDVAETraining"]


class NDVAETraining(NetworkTraining):
    """min E[ -log p(x | z) + w KL[q(z | x') || p(z)] ], z from q(z | x'), x' = clamp(attacked x + N(0, sigma^2)).

    Attacked images are made for each batch by the perturbation, which sees the classifier that is to be defended; the published
    code makes them once. By Adamax with the published eps and weight decay; the rate falls along a cosine, where theirs is
    constant. The KL terms of the levels are summed without the balancing of NVAE, whose coefficients the published code
    computes for the number of scales in place of that of the groups.

    Source: public code shayan223/ND-VAE (Jalalinour and Rekabdar, TransAI 2023).

    Args:
        network: the VAE.
        classifier: images to logits (N, K); in eval mode and frozen; a copy of it goes where the training goes.
        sigma: of the noise, in [0, 1] pixel units, >= 0.
        warm_up_share: of the steps in which w rises to 1, in (0, 1]; 0.3 in the published code.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.

    Raises:
        GenclsError: for numbers out of range.
    """

    def __init__(
        self, network: NDVAE, classifier: nn.Module, *, sigma: float = 0.1, warm_up_share: float = 0.3, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if not sigma >= 0 or not 0 < warm_up_share <= 1:
            raise GenclsError(f"ND-VAE: expected sigma >= 0 and warm_up_share in (0, 1], got {sigma} and {warm_up_share}")
        self.network = network
        self._classifier = (deepcopy(classifier),)  # in a tuple: it is no part of what is trained
        self.sigma, self.warm_up_share = sigma, warm_up_share

    @property
    def product(self) -> nn.Module:
        """The VAE."""
        return self.network

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Adamax."""
        return torch.optim.Adamax(self.parameter_groups(), lr=self.learning_rate, eps=1e-3, weight_decay=1e-2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        classifier = self._classifier[0].to(images.device)
        attacked = self.perturbation(classifier, images, labels, epoch=self.epochs_passed(batch_index))
        noisy = (attacked + self.sigma * torch.randn_like(images)).clamp(0.0, 1.0)
        weight = warm_up(self.epochs_passed(batch_index) / (self.trainer.max_epochs or 1), end=self.warm_up_share)
        output = self.network.reconstruct(noisy)
        likelihood = output.reconstruction.log_prob(self.network.padded(images)).sum((1, 2)).mean()
        prior = output.kl.sum(1).mean()
        loss = weight * prior - likelihood
        error = (output.reconstruction.mean() - self.network.padded(images)).square().mean()
        figures = {"loss": loss, "prior": prior, "likelihood": likelihood, "error": error.detach()}
        self.log_dict(figures, prog_bar=True, batch_size=len(labels))
        return loss
