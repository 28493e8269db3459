"""The trainings of the MLVGM paper's classifiers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencls.zoo.training.settings import NetworkPreset
from gencls.zoo.training.views.photo_views import PhotoViews

__all__ = ["HEADED_PRESETS", "HeadedPreset"]


@dataclass(frozen=True, kw_only=True)
class HeadedPreset(NetworkPreset):
    """Training of :class:`gencls.zoo.networks.HeadedClassifier`.

    Attributes:
        backbone: torchvision's name of the network.
        hidden: width of the head; None takes that of the features, as the paper does.
        momentum: of SGD.
        pretrained: file of torchvision's weights for the backbone; None starts from random ones. Nothing is downloaded.
    """

    backbone: str
    hidden: int | None = None
    momentum: float = 0.9
    pretrained: Path | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor, without the number of classes, which is the data set's."""
        return {"backbone": self.backbone, "hidden": self.hidden}

    @property
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""
        start = "random weights (paper: ImageNet's)" if self.pretrained is None else f"torchvision's {self.pretrained.name}"
        return (
            f"{self.epochs} epochs of batches of {self.batch_size}, SGD at learning rate {self.learning_rate} with momentum "
            f"{self.momentum}, backbone from {start}, head from random weights, images: {self.perturbation}"
        )


_SHARED: dict[str, Any] = {"perturbation": PhotoViews(), "learning_rate": 1e-3}
_PAPER = "with a head of two layers (MLVGM paper, supplement, appendix C), sized for a GPU"

HEADED_PRESETS: tuple[HeadedPreset, ...] = (
    HeadedPreset(
        name="resnet50-gender",
        what=f"ResNet-50 {_PAPER}",
        data="celeba-hq-gender",
        shape=(3, 256, 256),
        backbone="resnet50",
        epochs=50,
        batch_size=128,
        **_SHARED,
    ),
    HeadedPreset(
        name="vgg11-identities",
        what=f"VGG-11 with batch norm, {_PAPER}",
        data="celeba-identities",
        shape=(3, 64, 64),
        backbone="vgg11_bn",
        epochs=200,
        batch_size=256,
        **_SHARED,
    ),
    HeadedPreset(
        name="resnext50-cars",
        what=f"ResNeXt-50 32x4d {_PAPER}",
        data="stanford-cars-types",
        shape=(3, 128, 128),
        backbone="resnext50_32x4d",
        epochs=150,
        batch_size=128,
        **_SHARED,
    ),
)
