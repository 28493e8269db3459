"""Networks of our own trainings, from weights files with cards."""

from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from gencls.core import GenclsError
from gencls.zoo import networks
from gencls.zoo.checkpoints.checkpoint import Architectures, restore

N = TypeVar("N", bound=nn.Module)

WEIGHTS = Path(__file__).parent / "weights"
"""Where the committed weights lie."""

ARCHITECTURES: Architectures = MappingProxyType(
    {
        "AVAE": networks.AVAE,
        "CNN": networks.CNN.from_architecture,
        "CifarResNet": networks.CifarResNet,
        "HeadedClassifier": networks.HeadedClassifier,
        "NDVAE": networks.NDVAE,
        "ClassDecoders": networks.ClassDecoders.from_architecture,
        "ClassConditionalAutoencoder": networks.ClassConditionalAutoencoder.from_architecture,
        "NVAE": networks.NVAE,
        "SmallStyleAutoencoder": networks.SmallStyleAutoencoder.of_sizes,
    }
)
"""Constructors by the names that cards use."""


def weights_places(name: str, folder: Path) -> tuple[Path, Path]:
    """Where a folder has the weights of a training: as ``gencls train --out`` leaves them, or without a folder of their own."""
    return folder / name / f"{name}.safetensors", folder / f"{name}.safetensors"


def trained_network(kind: type[N], trained: str, weights: str | Path | None = None) -> N:
    """The network of a training, in eval mode, its parameters frozen; of the committed weights unless others are named.

    Raises:
        GenclsError: for weights that are missing (naming the command that makes them), damaged, or of another kind.
    """
    path = WEIGHTS / f"{trained}.safetensors" if weights is None else Path(weights)
    if not path.is_file():
        raise GenclsError(
            f"expected the weights of {trained} at {path}; got no such file. "
            f"Make them with: gencls train {trained} --data-root DATA"
        )
    network, card = restore(path, {kind.__name__: kind, **ARCHITECTURES})  # a class that is not listed builds itself
    if not isinstance(network, kind):
        raise GenclsError(f"{path}: expected the weights of a {kind.__name__} for {trained}; got a {card.architecture}")
    return network
