"""Training of hierarchical VAEs: NVAE."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.streams.seeds import seeded, stream_seed
from gencls.zoo.networks import NVAE
from gencls.zoo.networks.nvae.hierarchical_vae import HierarchicalVAE
from gencls.zoo.networks.nvae.regularizers import SpectralPenalty, batch_norm_penalty
from gencls.zoo.training.base import Moment, NetworkTraining, Steps
from gencls.zoo.training.methods.generators import GeneratorPreset
from gencls.zoo.training.views.perturbations import Plain
from gencls.zoo.training.views.photo_views import FLIPS

_FIRST_WEIGHT = 1e-4  # the first weight of the KL divergence; not zero, so that the prior has gradients from the first step on
_LEAST_KL = 0.01  # nats, added before levels are balanced


def warm_up(share: float, *, end: float) -> float:
    """The weight of the KL divergence: a line from 0.0001 to 1, which it reaches at the share ``end`` of the steps.

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898), as its public code has it.

    Args:
        share: share of the steps that have passed, in [0, 1].
        end: share of the steps at which the weight reaches 1, in [0, 1]; 0.3 in NVAE. With 0 there is no warm-up.
    """
    return 1.0 if share >= end else max(_FIRST_WEIGHT, share / end)


def kl_weights(kl: Tensor, sizes: Tensor, *, weight: float) -> Tensor:
    """Weights of the levels' KL terms.

    During the warm-up the levels are balanced. KL_i is the mean over the batch. s_i is the size of the maps of level i over the
    number of levels of that size.

        weight * gamma_i,  gamma_i = (KL_i / s_i) / mean_j (KL_j / s_j)

    So levels that say much pay more, and none is switched off early. From weight 1 on they are all 1.

    Source: NVAE, appendix A, as its public code has it. Deviation: if scales have different numbers of levels, s_i here takes
    the number of the level's own scale; NVAE-from-scratch takes the number of the scale that is i-th from the finest.

    Args:
        kl: KL terms of each image and level, (N, L), in nats.
        sizes: s_i, (L,), up to a common factor.
        weight: weight of the KL divergence, see :func:`warm_up`.

    Returns:
        (L,), without gradients.
    """
    if weight >= 1:
        return torch.ones_like(sizes)
    shares = (kl.detach().abs().mean(0) + _LEAST_KL) / sizes
    return weight * shares / shares.mean()


def level_sizes(network: HierarchicalVAE) -> Tensor:
    """The size of each level, (L,): height times width of its code over the number of levels of that size."""
    areas = [height * width for _, height, width in network.latent_shapes]
    return torch.tensor([area / areas.count(area) for area in areas])


class HierarchicalVAETraining(NetworkTraining):
    """The negative evidence lower bound with warm-up, balanced levels and penalties on the weights.

        -log p(x | z) + weight * sum_i gamma_i KL[q(z_i | x, z_<i) || p(z_i | z_<i)] + r (spectral + batch norm),   z ~ q(z | x)

    Adamax, whose learning rate falls to zero along a cosine. Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898).

    Args:
        network: a network with convolutions and batch norms.
        warm_up_share: share of the steps that the warm-up takes, in [0, 1], see :func:`warm_up`.
        regularization: r; 0.01 in NVAE.
        statistics_passes: passes of :func:`reestimate_batch_norm`.
    """

    network: HierarchicalVAE
    sizes: Tensor

    def __init__(
        self,
        network: HierarchicalVAE,
        *,
        warm_up_share: float = 0.3,
        regularization: float = 0.01,
        statistics_passes: int = 500,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not 0 <= warm_up_share <= 1 or regularization < 0 or statistics_passes < 0:
            raise GenclsError(
                "training of a hierarchical VAE: expected warm_up_share in [0, 1], regularization >= 0 and statistics_passes "
                f">= 0, got {warm_up_share}, {regularization} and {statistics_passes}"
            )
        self.network = network
        self.warm_up_share = warm_up_share
        self.regularization = regularization
        self.statistics_passes = statistics_passes
        self.spectral_penalty = SpectralPenalty(network)
        self.register_buffer("sizes", level_sizes(network), persistent=False)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adamax(self.parameter_groups(), lr=self.learning_rate, eps=1e-3)]

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        output = self.network(images)
        error = -output.reconstruction.log_prob(images).sum((1, 2)).mean()
        weight = warm_up(at.epoch / at.epochs, end=self.warm_up_share)
        balanced = (kl_weights(output.kl, self.sizes, weight=weight) * output.kl).sum(1).mean()
        penalty = self.spectral_penalty() + batch_norm_penalty(self.network)
        loss: Tensor = error + balanced + self.regularization * penalty
        yield loss, {"error": error, "kl": output.kl.sum(1).mean(), "penalty": penalty, "loss": loss}

    def finish(self, seed: int) -> None:
        reestimate_batch_norm(self.network, passes=self.statistics_passes, batch_size=100, seed=seed)


def reestimate_batch_norm(network: HierarchicalVAE, *, passes: int, batch_size: int, seed: int) -> None:
    """Set the statistics of the decoder's batch norms to means over images sampled at the network's temperature.

    The encoder's statistics, the network's mode and the global random state stay as they are; 0 passes change nothing.

    Source: GitHub SerezD/NVAE-from-scratch ``update_bn_stats.py``, with 500 passes of 100 images.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    training = network.training
    network.train()
    seen: set[nn.BatchNorm2d] = set()
    momenta = [norm.momentum for norm in norms]
    handles = [norm.register_forward_pre_hook(lambda norm, _: _forget_once(norm, seen)) for norm in norms]
    try:
        with torch.no_grad(), seeded(stream_seed(seed, "batch norm")):
            for norm in norms:
                norm.momentum = None  # a plain mean of all passes
            for _ in range(passes):
                network.sample(batch_size)
    finally:
        for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
            norm.momentum = momentum
            handle.remove()
        network.train(training)


def _forget_once(norm: nn.Module, seen: set[nn.BatchNorm2d]) -> None:
    if isinstance(norm, nn.BatchNorm2d) and norm not in seen:
        seen.add(norm)
        norm.reset_running_stats()


def bits_per_dimension(network: HierarchicalVAE, images: Tensor) -> float:
    """The negative evidence lower bound, from one draw of the posterior, in bits per channel of a pixel.

    Images are (N, C, H, W) in [0, 1], with 8 bits; the network is in eval mode.
    """
    bounds: list[Tensor] = []
    with torch.no_grad():
        for batch in images.split(100):
            output = network(batch)
            bounds.append(output.kl.sum(1) - output.reconstruction.log_prob(batch).sum((1, 2)))
    return float(torch.cat(bounds).mean()) / (images[0].numel() * math.log(2))


@dataclass(frozen=True, kw_only=True)
class NVAEPreset(GeneratorPreset):
    """Training of :class:`gencls.zoo.networks.NVAE`.

    Attributes:
        groups: groups per scale. Attributes up to ``temperature`` are those of :class:`~gencls.zoo.networks.NVAE`.
        cells: residual cells per group, and per block.
        warm_up_share: this and the attributes below are those of :class:`HierarchicalVAETraining`.
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
        sizes = self.chosen("groups", "cells", "latent_channels", "channels")
        return {"image_shape": self.shape, **sizes, "block_cells": self.cells, **self.chosen("mixtures", "temperature")}

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, Adamax from learning rate {self.learning_rate} along a "
            f"cosine to 0, weight of the KL divergence rising to 1 over the first {self.warm_up_share:.0%} of the steps with "
            f"balanced levels, spectral and batch-norm penalty times {self.regularization}, batch-norm statistics of the "
            f"decoder re-estimated by {self.statistics_passes} passes of 100 samples at temperature {self.temperature}, "
            f"images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> HierarchicalVAETraining:
        own = self.chosen("warm_up_share", "regularization", "statistics_passes")
        return HierarchicalVAETraining(NVAE(**self.arguments), **own, **self.shared)

    def bounds(self, network: Any, images: Tensor) -> dict[str, float]:
        return {"bits per dimension, at most, one draw": bits_per_dimension(network, images)}


def _preset(name: str, what: str, *, groups: tuple[int, ...], channels: int, epochs: int, **others: Any) -> NVAEPreset:
    return NVAEPreset(
        name=name, what=f"NVAE of {what}", groups=groups, channels=channels, epochs=epochs, learning_rate=1e-2, **others
    )


_SMALL: dict[str, Any] = {"cells": 1, "latent_channels": 4, "mixtures": 3, "batch_size": 32}
_LARGE: dict[str, Any] = {"latent_channels": 16, "mixtures": 10, "statistics_passes": 500}
_FASHION: dict[str, Any] = {"data": "fashion-mnist", "perturbation": Plain(), "shape": (1, 28, 28)}
_FACES: dict[str, Any] = {
    "data": "celeba-10k-gender",
    "perturbation": FLIPS,
    "shape": (3, 64, 64),
    "cells": 1,
    "batch_size": 64,
}
_CARS: dict[str, Any] = {"data": "stanford-cars-4", "perturbation": FLIPS, "shape": (3, 128, 128), "cells": 1, "batch_size": 32}

_CLOTHES = "two scales (7 and 14 pixels) for images of 28 pixels"
_THREE = "three scales (8, 16 and 32 pixels) for faces of 64 pixels"
_FOUR = "four scales (8, 16, 32 and 64 pixels) for cars of 128 pixels"

_NVAE = _preset(
    "nvae-fashion", f"{_CLOTHES}, sized for one CPU core", groups=(5, 4), channels=12, epochs=3, **_SMALL, **_FASHION
)

# The large ones have as many levels as the MLVGM paper's generators: 24 (identities) and 16 (cars).
PRESETS: tuple[NVAEPreset, ...] = (
    _NVAE,
    replace(_NVAE, name="nvae-mnist", data="mnist", epochs=2),
    _preset(
        "nvae-large-fashion",
        f"{_CLOTHES}, sized for a GPU",
        groups=(8, 8),
        channels=64,
        epochs=200,
        cells=2,
        batch_size=128,
        **_LARGE,
        **_FASHION,
    ),
    _preset(
        "nvae-faces",
        f"{_THREE}, sized for minutes on a GPU",
        groups=(2, 4, 6),
        channels=10,
        epochs=10,
        latent_channels=8,
        mixtures=5,
        **_FACES,
    ),
    _preset("nvae-large-faces", f"{_THREE}, sized for a GPU", groups=(8, 8, 8), channels=32, epochs=200, **_LARGE, **_FACES),
    _preset("nvae-cars", f"{_FOUR}, sized for a GPU", groups=(4, 4, 4, 4), channels=24, epochs=400, **_LARGE, **_CARS),
)
