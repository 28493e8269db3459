"""Training of the networks whose features measure perceptual distances: one plainly, one on corrupted images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core.streams.seeds import seeded
from gencls.zoo.data import ImageData
from gencls.zoo.data.image_data import balanced_subset
from gencls.zoo.networks import CifarPreActResNet
from gencls.zoo.networks.classifiers.published import KUANGLIU
from gencls.zoo.training.base import NetworkPreset
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.classifier import SGDTraining
from gencls.zoo.training.views.corruptions import CORRUPTIONS, HELD_OUT, TRAINED_ON, Corruptions, corrupted
from gencls.zoo.training.views.padded_crops import PaddedCrops
from gencls.zoo.training.views.perturbations import Composed

_LEVELS = 5
_MORE = 5  # The card has this many times more corrupted images than attacked ones.


@dataclass(frozen=True, kw_only=True)
class FeaturePreset(NetworkPreset):
    """Training of :class:`gencls.zoo.networks.CifarPreActResNet` by SGD, whose rate falls to zero along a cosine.

    The thesis (section 3.3) compares features of a plain VGG with those of robust PreActResNet-18s. Here one architecture
    serves both trainings, so that a difference of the distances is one of the training.

    Attributes:
        blocks: number of residual blocks in each stage.
        width: channels of the first stage.
        mean: mean of each channel of the images, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: weight decay of SGD on all parameters, >= 0.
    """

    blocks: tuple[int, ...]
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def arguments(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("blocks", "mean", "std")}  # as a card has them
        return lists | {"width": self.width, "image_size": self.shape[1]}

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, SGD from learning rate {self.learning_rate} along a cosine "
            f"to 0 with momentum {self.momentum} and weight decay {self.weight_decay}, images: {self.perturbation}"
        )

    def training(self, num_classes: int) -> SGDTraining:
        network = CifarPreActResNet(**self.card_arguments(num_classes))
        return SGDTraining(network, momentum=self.momentum, weight_decay=self.weight_decay, **self.shared)

    def measure(self, network: nn.Module, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the network as a classifier, also on corrupted images of the last test set; see :func:`under_corruptions`."""
        return super().measure(network, tests, few=few) | under_corruptions(network, tests[-1], _MORE * few)


def under_corruptions(network: nn.Module, test: ImageData, count: int) -> dict[str, float]:
    """Accuracy of a classifier in eval mode on corrupted images, equally many of each severity 0.2, 0.4, ..., 1.

    Args:
        network: images (N, C, S, S) in [0, 1] to scores (N, K).
        test: the images.
        count: most images of each kind; they are chosen equally often from each class.

    Returns:
        The accuracies by kind, their mean over the kinds of the trainings, and that over the kinds which are held out.
    """
    part = balanced_subset(test.labels, min(count, len(test)), seed=0)
    images, labels = test.images[part], test.labels[part]
    where = f"severities 0.2 to 1, {test.name} {test.split}, {len(part)} images"
    found = {}
    with seeded(0):
        for kind in CORRUPTIONS:
            found[kind] = accuracy(network, at_all_levels(images, kind), labels)
    figures = {f"accuracy under {kind}, {where}": round(value, 6) for kind, value in found.items()}
    for what, kinds in (("kinds of the corruption training", TRAINED_ON), ("held-out kinds", HELD_OUT)):
        mean = sum(found[kind] for kind in kinds) / len(kinds)
        figures[f"mean accuracy under the {len(kinds)} {what}, {where}"] = round(mean, 6)
    return figures


def at_all_levels(images: Tensor, kind: str) -> Tensor:
    """Corrupt images (N, C, S, S) in one way; the first has severity 0.2, the next 0.4, and so on in turn up to 1."""
    levels = torch.arange(len(images), device=images.device) % _LEVELS
    return corrupted(images, kind, (levels + 1) / _LEVELS)


def _presets(name: str, crops: PaddedCrops, *, sized: str, **settings: Any) -> tuple[FeaturePreset, FeaturePreset]:
    plain = FeaturePreset(
        name=f"features-{name}",
        what=f"PreActResNet for feature distances (thesis, section 3.2), trained plainly with light augmentation, {sized}",
        perturbation=crops,
        learning_rate=0.1,
        **settings,
    )
    robust = FeaturePreset(
        name=f"features-corruptions-{name}",
        what=(
            "PreActResNet for feature distances, trained on common corruptions but for "
            f"{' and '.join(HELD_OUT)} (thesis, section 3.3: Robust-Corruptions), {sized}"
        ),
        perturbation=Composed((crops, Corruptions())),
        learning_rate=0.1,
        **settings,
    )
    return plain, robust


_SMALL: dict[str, Any] = {"shape": (1, 28, 28), "blocks": (1, 1, 1, 1), "batch_size": 128}
_DIGITS = PaddedCrops(padding=2, flip=0.0)

PRESETS: tuple[FeaturePreset, ...] = (
    *_presets(
        "fashion",
        PaddedCrops(padding=2),
        sized="sized for minutes on one CPU core",
        data="fashion-mnist",
        width=16,
        mean=(0.286,),
        std=(0.353,),
        epochs=8,
        **_SMALL,
    ),
    *_presets(
        "mnist",
        _DIGITS,
        sized="sized for minutes on one CPU core",
        data="mnist",
        width=8,
        mean=(0.1307,),
        std=(0.3081,),
        epochs=5,
        **_SMALL,
    ),
    *_presets(
        "cifar10",
        PaddedCrops(),
        sized="sized for a GPU",
        data="cifar10",
        shape=(3, 32, 32),
        blocks=(2, 2, 2, 2),
        width=64,
        epochs=30,
        batch_size=128,
        **KUANGLIU,
    ),
)
