"""The base of every training: its settings, its network, how the network learns, and how it is measured."""

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
"""One loss for each turn of an optimiser, with figures to log."""


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a step begins.

    Attributes:
        step: steps that all optimisers together have taken.
        epoch: epochs that have passed, with the fraction of the current one.
        epochs: epochs of the whole training, >= 1.
    """

    step: int = 0
    epoch: float = 0.0
    epochs: int = 1


class NetworkTraining(nn.Module, ABC):
    """A network and how it learns. :mod:`gencls.zoo.training.lightning` runs it, with a random stream for each step.

    Args:
        perturbation: changes the training images of each batch.
        learning_rate: rate of the optimisers at the start. Subclasses pass both arguments on as ``shared``.

    Attributes:
        network: the network that learns.
        extendable: whether a long training begins with the epochs of a short one, so that a short one can go on.
        replannable: whether the training can go on after its last epoch at the rates of a longer one. The result is that of
            neither training alone, so its card names both commands.
        constant_rate: whether the learning rate stays; otherwise it falls to zero along a cosine.
        channels_last: whether weights are stored with their channels next to each other, which CPUs prefer.
    """

    extendable = False
    replannable = False
    constant_rate = False
    channels_last = True
    network: nn.Module

    def __init__(self, *, perturbation: Perturbation, learning_rate: float) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.learning_rate = learning_rate

    @property
    def product(self) -> nn.Module:
        """The network that the training saves."""
        return self.network

    @property
    def companions(self) -> dict[str, nn.Module]:
        """Networks that are saved beside the product, by their parts: a file NAME-PART with a card for each."""
        return {}

    @abstractmethod
    def steps(self, images: Tensor, labels: Tensor, at: Moment) -> Steps:
        """Learn from one batch: yield a loss for each optimiser in turn. The optimiser takes its step before the next loss.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,).
            at: where the training stands.
        """

    @property
    def restart_epochs(self) -> float:
        """Epochs after which the learning rate has fallen to zero and starts once more."""
        return 0.0

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam over all parameter groups."""
        return [torch.optim.Adam(self.parameter_groups(), lr=self.learning_rate)]

    @property
    def turns(self) -> tuple[int, ...]:
        """The places of the optimisers that take the losses of :meth:`steps` in turn; empty if each takes one, in order."""
        return ()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters that the optimiser learns, and their rates."""
        return [{"params": list(self.parameters())}]

    def finish(self, seed: int) -> None:  # noqa: B027 (most trainings have nothing to do)
        """Do what remains after the last step; ``seed`` is the seed of the training."""


@dataclass(frozen=True, kw_only=True)
class Preset(ABC):
    """A training with all its settings but the seed.

    Attributes:
        name: name of the weights.
        what: one sentence for the card.
        data: name of the data set, unless the caller chooses another.
        perturbation: changes the training images of each batch.
        epochs: passes over the training set.
        batch_size: images per step.
        learning_rate: rate of the optimiser at the start.
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
    def scaled_to(self) -> int | None:
        """Height and width to which the images of the data set are scaled; None takes them as they are."""
        return None

    @property
    @abstractmethod
    def recipe(self) -> str:
        """All settings in one sentence, for the card."""

    @property
    def duration(self) -> str:
        """How the recipe begins: epochs and batch size."""
        return f"{self.epochs} epoch{'s' * (self.epochs != 1)} of batches of {self.batch_size}"

    @abstractmethod
    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        """Arguments that build the saved network of K classes again, for its card; JSON can hold them."""

    def companion_arguments(self, part: str, num_classes: int) -> dict[str, Any]:
        """Arguments that build the network ``part`` of :attr:`NetworkTraining.companions` again, for its card.

        Raises:
            GenclsError: for a preset whose training saves no such network.
        """
        raise GenclsError(f"{self.name}: expected a preset that builds the {part!r} of its training again, got none")

    @abstractmethod
    def training(self, num_classes: int) -> NetworkTraining:
        """Make the network of K classes, untrained, with its way to learn."""

    def measure(self, network: nn.Module, tests: Sequence[ImageData], *, few: int = 1000) -> dict[str, float]:
        """Measure the trained network, for the card: as a classifier, unless a training says otherwise.

        Args:
            network: the trained network, in eval mode.
            tests: one or more test sets; slow measurements take the last one.
            few: most images of a slow measurement, see :func:`gencls.zoo.training.measure.measured_part`.

        Returns:
            Measured values by a description of the measurement.
        """
        return measure_classifier(network, tests, few=few)

    def require(self) -> None:  # noqa: B027 (most trainings need nothing)
        """Check that files of the user that the training begins with are there.

        Raises:
            GenclsError: for a file that is missing; the message says which, and where it comes from.
        """

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the command line that changed this preset."""
        return ()

    def starting_from(self, pretrained: Path) -> Self:
        """The same training, but from these weights.

        Raises:
            GenclsError: for a training that cannot start from weights.
        """
        raise GenclsError(
            f"train: expected pretrained weights for a torchvision network only, got {pretrained} for {self.name}"
        )

    def chosen(self, *names: str) -> dict[str, Any]:
        """Some of the settings by their names."""
        return {name: getattr(self, name) for name in names}

    @property
    def shared(self) -> dict[str, Any]:
        """Arguments that every :class:`NetworkTraining` takes."""
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
        """Arguments of the network's constructor. The number of classes comes from the data set."""

    def card_arguments(self, num_classes: int) -> dict[str, Any]:
        """:attr:`arguments` and ``num_classes``; presets of networks without classes return :attr:`arguments` alone."""
        return self.arguments | {"num_classes": num_classes}


@dataclass(frozen=True, kw_only=True)
class TablePreset(Preset):
    """Training of a network of thesis Table 2.1.

    The thesis trains for 500 epochs (200 more for adversarial training) with batches of 512. The presets are cut to
    minutes on one CPU core: fewer epochs, smaller batches and a learning rate that falls to zero along a cosine.

    Attributes:
        dropout: rate in [0, 1); the thesis does not give it.
        architecture: name of a column of Table 2.1.
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
