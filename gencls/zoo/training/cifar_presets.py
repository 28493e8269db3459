"""The trainings of CIFAR10 classifiers that variational smoothing is put on."""

from dataclasses import dataclass
from typing import Any

from gencls.zoo.networks.classifiers.published import KUANGLIU
from gencls.zoo.training.settings import NetworkPreset
from gencls.zoo.training.views.padded_crops import PaddedCrops
from gencls.zoo.training.views.perturbations import SMOOTHING_NOISE, Composed

__all__ = ["CIFAR_PRESETS", "CifarPreset"]


@dataclass(frozen=True, kw_only=True)
class CifarPreset(NetworkPreset):
    """Training of :class:`gencls.zoo.networks.CifarResNet`, whose normalisation is that of kuangliu's script.

    Attributes:
        blocks: of each stage.
        width: channels of the first stage.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
    """

    shape: tuple[int, int, int] = (3, 32, 32)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor, without the number of classes, which is the data set's."""
        normalization = {key: list(numbers) for key, numbers in KUANGLIU.items()}  # as a card has them
        return {"blocks": list(self.blocks), "width": self.width, **normalization}

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, SGD from learning rate {self.learning_rate} along a cosine "
            f"to 0 with momentum {self.momentum} and weight decay {self.weight_decay}, images: {self.perturbation}"
        )


_SHARED: dict[str, Any] = {"data": "cifar10", "epochs": 200, "batch_size": 128, "learning_rate": 0.1}
_SOURCE = "ResNet-18 by the recipe of GitHub kuangliu/pytorch-cifar, sized for a GPU"

CIFAR_PRESETS: tuple[CifarPreset, ...] = (
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
