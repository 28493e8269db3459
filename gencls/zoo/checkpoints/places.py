"""Where the weights of our own trainings lie."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

__all__ = ["WEIGHTS", "Read", "weights_in", "weights_places"]

Read = Callable[[type[nn.Module], str, str | Path | None], nn.Module]
"""Makes the network of a training: from its class, the training's name, and weights, a file or folder, None for the committed.

Rows take it as an argument. It is :func:`gencls.zoo.trained.trained_network`, which asks the rows what trainings there are.
"""

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where the committed weights lie."""


def weights_places(name: str, folder: Path) -> tuple[Path, Path]:
    """The two places where a folder may have a training's weights: as ``gencls train --out`` leaves them, or directly in it."""
    return folder / name / f"{name}.safetensors", folder / f"{name}.safetensors"


def weights_in(folder: Path | None, name: str) -> Path | None:
    """The file of a training's weights in a folder; None if it has none, so that the committed ones are taken."""
    places = weights_places(name, folder) if folder else ()
    return next((place for place in places if place.is_file()), None)
