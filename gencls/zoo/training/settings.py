"""What every training has."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from gencls.core.errors import GenclsError
from gencls.core.settings import check_settings
from gencls.zoo.training.views.perturbations import Perturbation

__all__ = ["NetworkPreset", "Preset"]


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
        """Check the values."""
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


@dataclass(frozen=True, kw_only=True)
class NetworkPreset(Preset):
    """A training that names the sizes of its network itself; others take them from the thesis's tables.

    Attributes:
        shape: (C, H, W) of the images.
    """

    shape: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the network takes."""
        return self.shape

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Of the network's constructor."""
