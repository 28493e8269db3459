"""TRADES: a classifier learns to be right on images and to predict the same near them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks import CNN
from gencls.zoo.training.base import Moment, Steps
from gencls.zoo.training.methods.classifier import ClassifierPreset, ClassifierTraining, table_classifier
from gencls.zoo.training.thesis import DATA_SETS
from gencls.zoo.training.views.adversarial import KLAdversarial, prediction_divergence


class TradesTraining(ClassifierTraining):
    """min E[ CE(f(x), y) + beta max_x' KL[p(. | x) || p(. | x')] ].

    Gradients flow into both predictions of the divergence. The inner maximisation is the perturbation,
    :class:`~gencls.zoo.training.views.adversarial.KLAdversarial`.

    Source: Zhang et al. 2019, arXiv:1901.08573, eq. 5 and Algorithm 1, with beta = 1 / lambda. As in its public code, losses
    are means over the batch, and each of the two predictions has its own pass with its own statistics of batch norm.

    Args:
        network: images to logits (N, K).
        beta: weight of the divergence, >= 0; 6 for the paper's CIFAR10; 1.5, 1 and 8 for the tasks of the MLVGM paper.

    Raises:
        GenclsError: for a negative beta.
    """

    def __init__(self, network: CNN, *, beta: float, **shared: Any) -> None:
        super().__init__(network, **shared)
        if not beta >= 0:
            raise GenclsError(f"TRADES: expected beta >= 0, got {beta}")
        self.beta = beta

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        adversarial = self.perturbation(self.network, images, labels, epoch=at.epoch)
        logits = self.network(images)
        natural = F.cross_entropy(logits, labels)
        divergence = prediction_divergence(logits, self.network(adversarial)).mean()
        loss = natural + self.beta * divergence
        accuracy = (logits.argmax(1) == labels).float().mean()
        yield loss, {"loss": loss, "natural": natural, "divergence": divergence, "accuracy": accuracy}


@dataclass(frozen=True, kw_only=True)
class TradesPreset(ClassifierPreset):
    """Training of a CNN by TRADES; ``beta`` is described in :class:`TradesTraining`."""

    beta: float

    @property
    def recipe(self) -> str:
        return f"{super().recipe}, beta {self.beta}"

    def training(self, num_classes: int) -> TradesTraining:
        network = CNN.from_architecture(**self.card_arguments(num_classes))
        return TradesTraining(network, beta=self.beta, **self.shared)


PRESETS = tuple(
    TradesPreset(
        name=f"trades-{data.name}",
        what="CNN of thesis Table 2.1, trained by TRADES from scratch (MLVGM paper: fine-tuned) on the L2 ball",
        perturbation=KLAdversarial(norm="l2", epsilon=data.l2, steps=5, step_size=round(2 * data.l2 / 5, 6)),
        beta=3.0,
        epochs=round(7 * data.long * data.adversarial),
        dropout=0.0,
        **table_classifier(data),
    )
    for data in DATA_SETS
)
