"""Training of classifiers: cross-entropy on perturbed images."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.zoo.networks import CNN
from gencls.zoo.training.base import Moment, NetworkTraining, Steps, TablePreset
from gencls.zoo.training.thesis import DATA_SETS, ThesisData
from gencls.zoo.training.views.perturbations import SMOOTHING_NOISE, AddedNoise, Plain
from gencls.zoo.training.views.photo_views import PhotoViews


class ClassifierTraining(NetworkTraining):
    """Cross-entropy on perturbed images, for a network from images to logits (N, K)."""

    replannable = True

    def __init__(self, network: nn.Module, **shared: Any) -> None:
        super().__init__(**shared)
        self.network = network

    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        images = self.perturbation(self.network, images, labels, epoch=at.epoch)
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        yield loss, {"loss": loss, "accuracy": (logits.argmax(1) == labels).float().mean()}


class SGDTraining(ClassifierTraining):
    """Cross-entropy on perturbed images, by SGD with momentum and weight decay on all parameters."""

    def __init__(self, network: nn.Module, *, momentum: float, weight_decay: float = 0.0, **shared: Any) -> None:
        super().__init__(network, **shared)
        self.momentum, self.weight_decay = momentum, weight_decay

    def optimizers(self) -> list[torch.optim.Optimizer]:
        groups, rate = self.parameter_groups(), self.learning_rate
        return [torch.optim.SGD(groups, lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)]


@dataclass(frozen=True, kw_only=True)
class ClassifierPreset(TablePreset):
    """Training of a CNN."""

    def training(self, num_classes: int) -> ClassifierTraining:
        return ClassifierTraining(CNN.from_architecture(**self.card_arguments(num_classes)), **self.shared)


def table_classifier(data: ThesisData) -> dict[str, Any]:
    """Settings of all classifiers of one data set of the thesis."""
    return {"data": data.data, "architecture": data.architecture, "batch_size": 128, "learning_rate": 2e-3}


def _small_photo(task: str, data: str, architecture: str, *, epochs: int, dropout: float) -> ClassifierPreset:
    return ClassifierPreset(
        name=f"cnn-{task}",
        what=f"CNN in the manner of thesis Table 2.1 for a small set of the MLVGM paper's task {task}, sized for one CPU core",
        data=data,
        architecture=architecture,
        perturbation=PhotoViews(),
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        dropout=dropout,
    )


_NOISY = {
    data.name: ClassifierPreset(
        name="cnn-gaussian-mnist" if data.name == "mnist" else f"cnn-{data.name}",
        what="CNN of thesis Table 2.1, trained with additive Gaussian noise",
        perturbation=AddedNoise(sigma=data.noise),
        epochs=round(10 * data.long),
        dropout=0.1,
        **table_classifier(data),
    )
    for data in DATA_SETS
}
_PLAIN: dict[str, Any] = {"what": "CNN of thesis Table 2.1, trained plainly", "perturbation": Plain()}

PRESETS: tuple[ClassifierPreset, ...] = (
    replace(_NOISY["mnist"], name="cnn-mnist", **_PLAIN),
    replace(_NOISY["fashion"], name="cnn-plain-fashion", epochs=5, **_PLAIN),
    replace(
        _NOISY["fashion"],
        name="cnn-gaussian-fashion",
        what="CNN of thesis Table 2.1, trained with the Gaussian noise of thesis section 4.3",
        perturbation=SMOOTHING_NOISE,
    ),
    *_NOISY.values(),
    _small_photo("gender", "celeba-10k-gender", "photo-64", epochs=30, dropout=0.1),
    _small_photo("identities", "celeba-100-identities", "photo-64", epochs=40, dropout=0.3),
    _small_photo("cars", "stanford-cars-4", "photo-128", epochs=30, dropout=0.3),
)
