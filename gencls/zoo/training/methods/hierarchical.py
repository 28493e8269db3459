"""Training of hierarchical VAEs."""

from typing import Any

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.streams.seeds import seeded, stream_seed
from gencls.zoo.networks.nvae.hierarchical_vae import HierarchicalVAE
from gencls.zoo.networks.nvae.regularizers import SpectralPenalty, batch_norm_penalty
from gencls.zoo.training.methods.modules import NetworkTraining
from gencls.zoo.training.views.perturbations import Perturbation

__all__ = ["HierarchicalVAETraining", "kl_weights", "level_sizes", "reestimate_batch_norm", "warm_up"]

_FIRST_WEIGHT = 1e-4  # of the KL divergence; never zero, so that the prior has gradients from the first step on
_LEAST_KL = 0.01  # nats, added before levels are balanced


def warm_up(share: float, *, end: float) -> float:
    """The weight of the KL divergence: a line from 0.0001 to 1, which it reaches at the share ``end`` of the steps.

    Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898), as its public code has it.

    Args:
        share: of the steps that have been taken, in [0, 1].
        end: in [0, 1]; 0.3 in NVAE. With 0 there is no warm-up.
    """
    return 1.0 if share >= end else max(_FIRST_WEIGHT, share / end)


def kl_weights(kl: Tensor, sizes: Tensor, *, weight: float) -> Tensor:
    """Weights of the levels' KL terms.

    During the warm-up the levels are balanced: with KL_i the mean over the batch and s_i the size of the maps of level i over
    the number of levels of that size,

        weight * gamma_i,  gamma_i = (KL_i / s_i) / mean_j (KL_j / s_j),

    so that levels that say much pay more, and none is switched off early. From weight 1 on they are all 1.

    Source: NVAE, appendix A, as its public code has it. Deviation: where scales have different numbers of levels, s_i is here
    that of the level's own scale; NVAE-from-scratch counts the levels of the scale that is i-th from the finest.

    Args:
        kl: (N, L) in nats.
        sizes: (L,), s_i, up to a factor.
        weight: of the KL divergence, see :func:`warm_up`.

    Returns:
        (L,), without gradients.
    """
    if weight >= 1:
        return torch.ones_like(sizes)
    shares = (kl.detach().abs().mean(0) + _LEAST_KL) / sizes
    return weight * shares / shares.mean()


def level_sizes(network: HierarchicalVAE) -> Tensor:
    """(L,): height times width of each level's code over the number of levels of that size."""
    areas = [height * width for _, height, width in network.latent_shapes]
    return torch.tensor([area / areas.count(area) for area in areas])


def reestimate_batch_norm(network: HierarchicalVAE, *, passes: int, batch_size: int, seed: int) -> None:
    """Set the statistics of the decoder's batch norms to means over images that are sampled at the network's temperature.

    Source: GitHub SerezD/NVAE-from-scratch ``update_bn_stats.py``, with 500 passes of 100 images.

    Args:
        network: whose encoder's statistics stay as they are; its mode is restored.
        passes: batches; 0 changes nothing.
        batch_size: images of a batch.
        seed: of the draws; the global random state is left as it was.
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


class HierarchicalVAETraining(NetworkTraining):
    """The negative evidence lower bound with warm-up, balanced levels and penalties on the weights.

        -log p(x | z) + weight * sum_i gamma_i KL[q(z_i | x, z_<i) || p(z_i | z_<i)] + r (spectral + batch norm),   z ~ q(z | x)

    Adamax, whose learning rate falls to zero along a cosine. Source: NVAE (Vahdat and Kautz 2020, arXiv:2007.03898).

    Args:
        network: with convolutions and batch norms.
        warm_up_share: of the steps, see :func:`warm_up`.
        regularization: r; 0.01 in NVAE.
        statistics_passes: see :func:`reestimate_batch_norm`.
        perturbation: see :class:`NetworkTraining`; the others likewise.
        learning_rate: there.
        seed: there.
        description: there.
    """

    sizes: Tensor

    def __init__(
        self,
        network: HierarchicalVAE,
        *,
        perturbation: Perturbation,
        learning_rate: float,
        seed: int,
        description: str = "",
        warm_up_share: float = 0.3,
        regularization: float = 0.01,
        statistics_passes: int = 500,
    ) -> None:
        super().__init__(perturbation=perturbation, learning_rate=learning_rate, seed=seed, description=description)
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

    @property
    def product(self) -> nn.Module:
        """The network that is saved."""
        return self.network

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Adamax, as NVAE has it."""
        return torch.optim.Adamax(self.parameter_groups(), lr=self.learning_rate, eps=1e-3)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1]; the labels are not used."""
        images, labels = batch
        epoch = self.epochs_passed(batch_index)
        images = self.perturbation(self.network, images, labels, epoch=epoch)
        output = self.network(images)
        error = -output.reconstruction.log_prob(images).sum((1, 2)).mean()
        weight = warm_up(epoch / (self.trainer.max_epochs or 1), end=self.warm_up_share)
        balanced = (kl_weights(output.kl, self.sizes, weight=weight) * output.kl).sum(1).mean()
        penalty = self.spectral_penalty() + batch_norm_penalty(self.network)
        loss: Tensor = error + balanced + self.regularization * penalty
        figures: dict[str, Any] = {"error": error, "kl": output.kl.sum(1).mean(), "penalty": penalty, "loss": loss}
        self.log_dict(figures, prog_bar=True, batch_size=len(images))
        return loss

    def finish(self) -> None:
        """Estimate the batch norms' statistics on samples."""
        reestimate_batch_norm(self.network, passes=self.statistics_passes, batch_size=100, seed=self.seed)
