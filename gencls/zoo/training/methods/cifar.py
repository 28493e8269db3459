"""Training of the residual networks on CIFAR10 that variational smoothing surrounds."""

from dataclasses import dataclass
from typing import Any

from gencls.zoo.networks import CifarResNet
from gencls.zoo.networks.classifiers.published import KUANGLIU
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.methods.classifier import SGDTraining
from gencls.zoo.training.views.padded_crops import PaddedCrops
from gencls.zoo.training.views.perturbations import SMOOTHING_NOISE, Composed


@dataclass(frozen=True, kw_only=True)
class CifarPreset(NetworkPreset):
    """Training of :class:`gencls.zoo.networks.CifarResNet` by SGD, whose rate falls to zero along a cosine.

    Source: GitHub kuangliu/pytorch-cifar, with its normalisation. There the rate falls after each epoch; here after each step.

    Attributes:
        blocks: number of residual blocks in each stage.
        width: channels of the first stage.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: weight decay of SGD on all parameters, >= 0.
    """

    shape: tuple[int, int, int] = (3, 32, 32)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def arguments(self) -> dict[str, Any]:
        normalization = {key: list(numbers) for key, numbers in KUANGLIU.items()}  # as a card has them
        return {"blocks": list(self.blocks), "width": self.width, **normalization}

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, SGD from learning rate {self.learning_rate} along a cosine "
            f"to 0 with momentum {self.momentum} and weight decay {self.weight_decay}, images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> SGDTraining:
        network = CifarResNet(**self.card_arguments(num_classes))
        return SGDTraining(network, momentum=self.momentum, weight_decay=self.weight_decay, **self.shared)


_SHARED: dict[str, Any] = {"data": "cifar10", "epochs": 200, "batch_size": 128, "learning_rate": 0.1}
_SOURCE = "ResNet-18 by the recipe of GitHub kuangliu/pytorch-cifar, sized for a GPU"

PRESETS: tuple[CifarPreset, ...] = (
    CifarPreset(
        name="resnet18-cifar10", what=f"{_SOURCE} (thesis, section 4.3: Bare pretrained)", perturbation=PaddedCrops(), **_SHARED
    ),
    CifarPreset(
        name="resnet18-gaussian-cifar10",
        what=f"{_SOURCE}, with Gaussian noise added (thesis, section 4.3: Bare Gaussian)",
        perturbation=Composed((PaddedCrops(), SMOOTHING_NOISE)),
        **_SHARED,
    ),
)
