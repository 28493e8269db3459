"""Lightning modules: a classifier and class-conditional VAEs."""

import math
from abc import abstractmethod
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.rng import stream_seed
from gencls.zoo.networks import CNN, ClassConditionalVAE
from gencls.zoo.training.perturbations import Perturbation

__all__ = ["ClassifierTraining", "NetworkTraining", "VAETraining", "negative_elbo"]


class NetworkTraining(lightning.LightningModule):
    """What both trainings share: Adam, a learning rate that falls to zero along a cosine, and one random stream per step.

    Each step begins with a seed of its own, so that a training that was stopped and resumed ends with the same weights
    as one that was not.

    Args:
        perturbation: of the training images.
        learning_rate: of Adam, at the start.
        seed: of the training.
        description: of all settings; a checkpoint with another one is refused.
    """

    def __init__(self, *, perturbation: Perturbation, learning_rate: float, seed: int, description: str = "") -> None:
        super().__init__()
        self.perturbation = perturbation
        self.learning_rate = learning_rate
        self.seed = seed
        self.description = description

    @property
    @abstractmethod
    def product(self) -> nn.Module:
        """The network that is saved."""

    def configure_optimizers(self) -> Any:
        """Adam with a cosine schedule over all steps."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total)))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the settings."""
        checkpoint["description"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with other settings.

        Raises:
            GenclsError: naming both.
        """
        found = checkpoint.get("description")
        if found != self.description:
            raise GenclsError(f"expected to resume a run of {self.description!r}; got one of {found!r}")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin the random stream of this step."""
        torch.manual_seed(stream_seed(self.seed, "step", self.global_step))

    def epochs_passed(self, batch_index: int) -> float:
        """Epochs since the start, with the fraction of the current one."""
        return self.current_epoch + batch_index / self.trainer.num_training_batches


class ClassifierTraining(NetworkTraining):
    """Cross-entropy on perturbed images.

    Args:
        network: images to logits (N, K).
        **shared: see :class:`NetworkTraining`.
    """

    def __init__(self, network: CNN, **shared: Any) -> None:
        super().__init__(**shared)
        self.network = network

    @property
    def product(self) -> nn.Module:
        """The network that is saved."""
        return self.network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        images = self.perturbation(self.network, images, labels, epoch=self.epochs_passed(batch_index))
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, batch_size=len(labels))
        return loss


class VAETraining(NetworkTraining):
    """The negative ELBO of each image under the VAE of its own class (thesis, eq. 2.1), all K VAEs in one training.

    Args:
        network: the K VAEs. The perturbed image is both what they encode and what they reconstruct.
        beta: weight of the KL divergence.
        **shared: see :class:`NetworkTraining`.
    """

    def __init__(self, network: ClassConditionalVAE, *, beta: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.network = network
        self.beta = beta

    @property
    def product(self) -> nn.Module:
        """The decoders: inference by optimisation uses no encoder."""
        return self.network.decoders

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        images = self.perturbation(self.network, images, labels, epoch=self.epochs_passed(batch_index))
        reconstruction, order = self.network(images, labels)
        error, divergence = negative_elbo(images[order], *reconstruction)
        loss = (error + self.beta * divergence).mean()
        self.log_dict(
            {"loss": loss, "error": error.mean(), "divergence": divergence.mean()}, prog_bar=True, batch_size=len(labels)
        )
        return loss


def negative_elbo(images: Tensor, reconstructions: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the negative ELBO (thesis, eq. 2.1, with -log P(x | z) = ||x - G(z)||^2).

    Args:
        images: (N, C, H, W).
        reconstructions: (N, C, H, W), of one latent drawn from Q(z | x).
        mean: (N, d), of Q(z | x).
        log_variance: (N, d), of Q(z | x).

    Returns:
        The squared error summed over pixels (N,), and KL[Q(z | x) || N(0, 1)] (N,).
    """
    error = (images - reconstructions).square().flatten(1).sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(1)
    return error, divergence
