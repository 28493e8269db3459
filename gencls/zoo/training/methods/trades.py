"""TRADES: a classifier is to be right on images, and to predict the same near them."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks import CNN
from gencls.zoo.training.methods.modules import ClassifierTraining
from gencls.zoo.training.views.perturbations import prediction_divergence

__all__ = ["TradesTraining"]


class TradesTraining(ClassifierTraining):
    """min E[ CE(f(x), y) + beta max_x' KL[p(. | x) || p(. | x')] ].

    Gradients flow into both predictions of the divergence. The inner maximisation is the perturbation,
    :class:`~gencls.zoo.training.views.perturbations.KLAdversarial`.

    Source: Zhang et al. 2019, arXiv:1901.08573, eq. 5 and Algorithm 1, with beta = 1 / lambda. Its public code takes means over
    the batch, and makes the two predictions in passes of their own, each with its own statistics of batch norm; so does this.

    Args:
        network: images to logits (N, K).
        beta: weight of the divergence, >= 0; 6 in the paper's CIFAR10, and 1.5, 1 and 8 in the tasks of the MLVGM paper.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.

    Raises:
        GenclsError: for a negative beta.
    """

    def __init__(self, network: CNN, *, beta: float, **shared: Any) -> None:
        super().__init__(network, **shared)
        if not beta >= 0:
            raise GenclsError(f"TRADES: expected beta >= 0, got {beta}")
        self.beta = beta

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """One step on images (N, C, H, W) in [0, 1] and labels (N,)."""
        images, labels = batch
        adversarial = self.perturbation(self.network, images, labels, epoch=self.epochs_passed(batch_index))
        logits = self.network(images)
        natural = F.cross_entropy(logits, labels)
        divergence = prediction_divergence(logits, self.network(adversarial)).mean()
        loss = natural + self.beta * divergence
        accuracy = (logits.argmax(1) == labels).float().mean()
        figures = {"loss": loss, "natural": natural, "divergence": divergence, "accuracy": accuracy}
        self.log_dict(figures, prog_bar=True, batch_size=len(labels))
        return loss
