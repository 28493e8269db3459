"""Training of ND-VAE: a network learns to turn attacked and noisy images into clean ones."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import GenclsError, Transform
from gencls.defenses import NDVAEPurification
from gencls.zoo.networks.purifiers.nd_vae import NDVAE
from gencls.zoo.registry import load
from gencls.zoo.training.base import Moment, NetworkTraining, Steps
from gencls.zoo.training.methods.hierarchical_vae import warm_up
from gencls.zoo.training.methods.purifiers import PurifierPreset
from gencls.zoo.training.views.adversarial import FastGradient


class NDVAETraining(NetworkTraining):
    """min E[ -log p(x | z) + w KL[q(z | x') || p(z)] ], z from q(z | x'), x' = clamp(attacked x + N(0, sigma^2)).

    The perturbation makes attacked images for each batch. It sees the classifier to defend; the published code makes them once.
    Adamax has the published eps and weight decay. Its rate falls along a cosine; the published rate is constant. The KL terms
    of the levels are summed without the balancing of NVAE, whose coefficients the published code computes for the number of
    scales instead of the number of groups.

    Source: public code shayan223/ND-VAE (Jalalinour and Rekabdar, TransAI 2023).

    Args:
        network: the VAE.
        classifier: images (N, C, H, W) to logits (N, K), in eval mode and frozen. A copy of it goes where the training goes.
        sigma: standard deviation of the noise, in [0, 1] pixel units, >= 0.
        warm_up_share: share of the steps in which w rises to 1, in (0, 1]; 0.3 in the published code.

    Raises:
        GenclsError: for numbers out of range.
    """

    network: NDVAE

    def __init__(
        self, network: NDVAE, classifier: nn.Module, *, sigma: float = 0.1, warm_up_share: float = 0.3, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if not sigma >= 0 or not 0 < warm_up_share <= 1:
            raise GenclsError(f"ND-VAE: expected sigma >= 0 and warm_up_share in (0, 1], got {sigma} and {warm_up_share}")
        self.network = network
        self._classifier = (deepcopy(classifier),)  # in a tuple: it is no part of what is trained
        self.sigma, self.warm_up_share = sigma, warm_up_share

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adamax(self.parameter_groups(), lr=self.learning_rate, eps=1e-3, weight_decay=1e-2)]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        classifier = self._classifier[0].to(images.device)
        attacked = self.perturbation(classifier, images, labels, epoch=at.epoch)
        noisy = (attacked + self.sigma * torch.randn_like(images)).clamp(0.0, 1.0)
        weight = warm_up(at.epoch / at.epochs, end=self.warm_up_share)
        output = self.network.reconstruct(noisy)
        likelihood = output.reconstruction.log_prob(self.network.padded(images)).sum((1, 2)).mean()
        prior = output.kl.sum(1).mean()
        loss = weight * prior - likelihood
        error = (output.reconstruction.mean() - self.network.padded(images)).square().mean()
        yield loss, {"loss": loss, "prior": prior, "likelihood": likelihood, "error": error.detach()}


@dataclass(frozen=True, kw_only=True)
class NDVAEPreset(PurifierPreset):
    """Training of :class:`gencls.zoo.networks.NDVAE`.

    Attributes:
        groups: groups per scale. Attributes up to ``mixtures`` are those of :class:`~gencls.zoo.networks.NDVAE`.
        cells: residual cells per group, and per halving.
        sigma: this and ``warm_up_share`` are those of :class:`NDVAETraining`.
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
        sizes = self.chosen("groups", "channels", "latent_channels", "cells")
        return {"image_shape": self.shape, **sizes, "block_cells": self.cells, "mixtures": self.mixtures}

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, Adamax from learning rate {self.learning_rate} along a "
            f"cosine to 0, KL weight up to 1 in {self.warm_up_share:.0%} of the steps, noise {self.sigma} on images: "
            f"{self.perturbation} of {self.classifier}"
        )

    def training(self, num_classes: int) -> NDVAETraining:
        own = self.chosen("sigma", "warm_up_share")
        return NDVAETraining(NDVAE(**self.arguments), load(self.classifier), **own, **self.shared)

    def transform(self, network: NDVAE) -> Transform:
        return NDVAEPurification(network, sigma=self.sigma)


_FASHION = NDVAEPreset(
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
)

PRESETS = (_FASHION, replace(_FASHION, name="nd-vae-mnist", data="mnist", classifier="cnn-mnist", epochs=2))
