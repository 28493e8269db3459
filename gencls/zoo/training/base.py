"""What every training has: its settings, the network, how it learns, and what is measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.settings import check_settings
from gencls.zoo.data import ImageData
from gencls.zoo.networks import find_architecture
from gencls.zoo.training.measure import measure_classifier
from gencls.zoo.training.views.perturbations import Perturbation

Steps = Iterator[tuple[Tensor, dict[str, Tensor]]]
"""A loss for each optimiser, and figures to be logged."""


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a step begins.

    Attributes:
        step: steps that the optimisers have taken, all together.
        epoch: epochs that have passed, with the fraction of the current one.
        epochs: of the whole training, >= 1.
    """

    step: int = 0
    epoch: float = 0.0
    epochs: int = 1


class NetworkTraining(nn.Module, ABC):
    """A network and how it learns. :mod:`gencls.zoo.training.lightning` runs it, with a random stream for each step.

    Args:
        perturbation: of the training images.
        learning_rate: of the optimisers, at the start. Subclasses pass both on as ``shared``.

    Attributes:
        network: what learns.
        extendable: whether the first epochs of a long training are those of a short one, so that it can go on.
        replannable: whether it can go on after its last epoch at the rates of a longer training. The result is that of neither
            training alone, so its card names both commands.
        constant_rate: whether the learning rate stays; else it falls to zero along a cosine.
    """

    extendable = False
    replannable = False
    constant_rate = False
    network: nn.Module

    def __init__(self, *, perturbation: Perturbation, learning_rate: float) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.learning_rate = learning_rate

    @property
    def product(self) -> nn.Module:
        """The network that is saved."""
        return self.network

    @abstractmethod
    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        """Learn from one batch: yield a loss for each optimiser in turn, which takes its step before this goes on.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            at: when.
        """

    @property
    def restart_epochs(self) -> float:
        """After so many epochs the learning rate has fallen to zero and starts once more."""
        return 0.0

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam."""
        return [torch.optim.Adam(self.parameter_groups(), lr=self.learning_rate)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser learns, and at which rates."""
        return [{"params": list(self.parameters())}]

    def finish(self, seed: int) -> None:  # noqa: B027 (most trainings have nothing to do)
        """What remains to be done with the network after the last step; the seed is that of the training."""


@dataclass(frozen=True, kw_only=True)
class Preset(ABC):
    """A training: everything but the seed.

    Attributes:
        name: of the weights.
        what: one sentence for the card.
        data: the data set, unless another is asked for.
        perturbation: of the training images.
        epochs: passes over the training set.
        batch_size: images per step.
        learning_rate: of the optimiser, at the start.
    """

    name: str
    what: str
    data: str
    perturbation: Perturbation
    epochs: int
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        check_settings(self)
        if self.batch_size < 1 or self.learning_rate <= 0:
            got = f"{self.batch_size} and {self.learning_rate}"
            raise GenclsError(f"{self.name}: expected batch_size >= 1 and learning_rate > 0, got {got}")

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the network takes."""

    @property
    @abstractmethod
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""

    @property
    def duration(self) -> str:
        """How a recipe begins."""
        return f"{self.epochs} epoch{'s' * (self.epochs != 1)} of batches of {self.batch_size}"

    @abstractmethod
    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        """Arguments that build the saved network of K classes again, for its card: what JSON can hold."""

    @abstractmethod
    def training(self, num_classes: int) -> NetworkTraining:
        """The network of K classes, untrained, and how it learns."""

    def measure(self, network: nn.Module, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the trained network, for the card: as a classifier, unless a training says otherwise.

        Args:
            network: what the training gave, in eval mode.
            tests: one or more test sets; what is slow is measured on the last one.
            few: images of what is slow, see :func:`gencls.zoo.training.measure.measured_part`.

        Returns:
            Figures by a description of the measurement.
        """
        return measure_classifier(network, tests, few=few)

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the command line that this preset was changed by."""
        return ()

    def starting_from(self, pretrained: Path) -> Self:
        """The same training, from these weights.

        Raises:
            GenclsError: for a training that starts from none.
        """
        raise GenclsError(
            f"train: expected pretrained weights for a torchvision network only, got {pretrained} for {self.name}"
        )

    def chosen(self, *names: str) -> dict[str, Any]:
        """Some of the settings by their names."""
        return {name: getattr(self, name) for name in names}

    @property
    def shared(self) -> dict[str, Any]:
        """Arguments of every :class:`NetworkTraining`."""
        return self.chosen("perturbation", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class NetworkPreset(Preset):
    """A training that names the sizes of its network itself.

    Attributes:
        shape: (C, H, W) of the images.
    """

    shape: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor, without the number of classes, which is the data set's."""

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        """Those and ``num_classes``; presets of networks without classes return :attr:`arguments` alone."""
        return self.arguments | {"num_classes": num_classes}


@dataclass(frozen=True, kw_only=True)
class TablePreset(Preset):
    """Training of a network of thesis Table 2.1.

    The thesis trains for 500 epochs (200 more for adversarial training) with batches of 512. The presets are cut to
    minutes on one CPU core: fewer epochs, smaller batches and a learning rate that falls to zero along a cosine.

    Attributes:
        dropout: rate; not given in the thesis.
        architecture: column of Table 2.1.
    """

    dropout: float
    architecture: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        column = find_architecture(self.architecture)
        return column.in_channels, column.image_size, column.image_size

    @property
    def recipe(self) -> str:
        return (
            f"{self.duration}, Adam from learning rate {self.learning_rate} along a "
            f"cosine to 0, dropout {self.dropout}, images: {self.perturbation}"
        )

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        return {"architecture": self.architecture, "num_classes": num_classes, "dropout": self.dropout}
