"""Training of the MLVGM paper's classifiers: torchvision networks with a head of two layers."""

import re
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints.reading import load_state_dict
from gencls.zoo.networks.classifiers.headed_classifier import BACKBONES, HeadedClassifier
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.methods.classifier import SGDTraining
from gencls.zoo.training.views.photo_views import PhotoViews


class HeadedTraining(SGDTraining):
    """Cross-entropy on perturbed images by SGD with momentum at a constant rate.

    Source: Serez et al., WACV 2025, supplement, appendix C ("we train the full model (backbone + head) on each task"). The
    optimiser is the one of their public code, which has momentum 0.9.
    """

    constant_rate = True
    extendable = True


@dataclass(frozen=True, kw_only=True)
class HeadedPreset(NetworkPreset):
    """Training of :class:`gencls.zoo.networks.HeadedClassifier`.

    Attributes:
        backbone: torchvision's name of the network.
        hidden: width of the head; None takes that of the features, as the paper does.
        momentum: momentum of SGD, in [0, 1).
        pretrained: file of torchvision's weights for the backbone; None starts from random ones. Nothing is downloaded.
    """

    backbone: str
    hidden: int | None = None
    momentum: float = 0.9
    pretrained: Path | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "hidden": self.hidden}

    @property
    def recipe(self) -> str:
        start = "random weights (paper: ImageNet's)" if self.pretrained is None else f"torchvision's {self.pretrained.name}"
        return (
            f"{self.duration}, SGD at learning rate {self.learning_rate} with momentum "
            f"{self.momentum}, backbone from {start}, head from random weights, images: {self.perturbation}"
        )

    @property
    def options(self) -> tuple[str, ...]:
        return () if self.pretrained is None else (f"--pretrained {self.pretrained.name}",)

    def starting_from(self, pretrained: Path) -> Self:
        return replace(self, pretrained=pretrained)

    def training(self, num_classes: int) -> HeadedTraining:
        """The network and how it learns.

        Raises:
            GenclsError: see :func:`start_from`.
        """
        network = HeadedClassifier(**self.card_arguments(num_classes))
        if self.pretrained is not None:
            start_from(network, self.backbone, self.pretrained)
        return HeadedTraining(network, momentum=self.momentum, **self.shared)


def start_from(network: HeadedClassifier, backbone: str, path: Path) -> None:
    """Give a network the weights that torchvision publishes for its backbone, one of ``BACKBONES``. The head keeps its own.

    The file is named as torchvision does, ``resnet50-0676ba61.pth``: with the first eight digits of its SHA-256.

    Raises:
        GenclsError: for a file that is missing, has another name, was changed, or belongs to another network.
    """
    named = re.fullmatch(rf"{backbone}-([0-9a-f]{{8}})\.pth", path.name)
    if named is None:
        raise GenclsError(
            f"expected weights of {backbone} as torchvision names them, {backbone}- and eight digits of the SHA-256; got {path}"
        )
    state = load_state_dict(path)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if not digest.startswith(named[1]):
        raise GenclsError(f"{path}: expected SHA-256 {named[1]}..., as its name says; got {digest}")
    head = f"{BACKBONES[backbone]}."
    given = {f"model.{key}": value for key, value in state.items() if not key.startswith(head)}
    body = {key: _kind(value) for key, value in network.state_dict().items() if not key.startswith(f"model.{head}")}
    # Files of old versions of torch lack the counters of batch norm, which nothing here reads.
    wrong = {key for key in given.keys() | body.keys() if key not in given or _kind(given[key]) != body.get(key)}
    wrong = {key for key in wrong if key in given or not key.endswith(".num_batches_tracked")}
    if wrong:
        raise GenclsError(f"{path}: expected the weights of {backbone}; {len(wrong)} do not fit, one is {min(wrong)}")
    network.load_state_dict(given, strict=False)


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


_PAPER = "with a head of two layers (MLVGM paper, supplement, appendix C), sized for a GPU"


def _preset(name: str, network: str, backbone: str, *, data: str, side: int, epochs: int, batch_size: int) -> HeadedPreset:
    return HeadedPreset(
        name=name,
        what=f"{network} {_PAPER}",
        data=data,
        shape=(3, side, side),
        backbone=backbone,
        epochs=epochs,
        batch_size=batch_size,
        perturbation=PhotoViews(),
        learning_rate=1e-3,
    )


PRESETS: tuple[HeadedPreset, ...] = (
    _preset("resnet50-gender", "ResNet-50", "resnet50", data="celeba-hq-gender", side=256, epochs=50, batch_size=128),
    _preset(
        "vgg11-identities", "VGG-11 with batch norm,", "vgg11_bn", data="celeba-identities", side=64, epochs=200, batch_size=256
    ),
    _preset(
        "resnext50-cars",
        "ResNeXt-50 32x4d",
        "resnext50_32x4d",
        data="stanford-cars-types",
        side=128,
        epochs=150,
        batch_size=128,
    ),
)
