"""Networks of our own trainings, from weights files with cards."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from gencls.core import GenclsError
from gencls.core.words import with_article
from gencls.zoo import networks
from gencls.zoo.checkpoints.cards import Card, read_card
from gencls.zoo.checkpoints.checkpoint import SAFETENSORS, Architectures, restore
from gencls.zoo.checkpoints.places import WEIGHTS, weights_places
from gencls.zoo.rows import TRAINED, calls_that_load, training_of

N = TypeVar("N", bound=nn.Module)


def constructor(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    """The function that makes a network from its card: a class method if the card names a table's column or sizes."""
    found: Callable[..., nn.Module] = getattr(kind, "from_architecture", None) or getattr(kind, "of_sizes", None) or kind
    return found


_KINDS = [
    found for name in networks.__all__ if isinstance(found := getattr(networks, name), type) and issubclass(found, nn.Module)
]

PUBLIC: Architectures = MappingProxyType({kind.__name__: constructor(kind) for kind in _KINDS})
"""Constructors of the public networks by the names that cards use."""


def trained_network(kind: type[N], trained: str, weights: str | Path | None = None) -> N:
    """The network of a training, in eval mode, its parameters frozen.

    It has the committed weights, or those of ``weights``: a file, or a folder that has it, see :func:`weights_places`.

    Raises:
        GenclsError: for weights that are missing (naming the command that makes them), damaged, of another kind, or of another
            training, see :func:`check_training`.
    """
    chosen = WEIGHTS / f"{trained}.safetensors" if weights is None else Path(weights)
    places = weights_places(trained, chosen) if chosen.is_dir() else (chosen,)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise GenclsError(
            f"expected the weights of {trained} at {' or '.join(map(str, places))}; got no such file. "
            f"Make them with: gencls train {trained} (and --data-root DATA, unless its images come with gencls)"
        )
    network, card = restore(path, {kind.__name__: constructor(kind), **PUBLIC})  # the network need not be public
    check_training(path, card, trained)
    if not isinstance(network, kind):
        raise GenclsError(
            f"{path}: expected the weights of {with_article(kind.__name__)} for {trained}; "
            f"got {with_article(card.architecture)}"
        )
    return network


def check_training(path: str | Path, card: Card, needed: str) -> None:
    """Refuse weights whose card names another training than the one that is needed, though their network may be the same.

    Names that begin with that of a training, such as ``eabs-mnist-dropout0.3``, are its variants or companions. Any other name
    is somebody's own, and may stand for every training.

    Args:
        path: the weights file, for the message.
        card: its card.
        needed: the training whose weights are wanted; for weights of others the name of what is made of them.

    Raises:
        GenclsError: for another training; the message says how its weights load under their own name.
    """
    if card.name == needed:
        return
    found = training_of(card.name)
    if found is not None and found != training_of(needed):
        alone = TRAINED[found].__name__ == card.architecture  # and no companion, which only trainings load
        calls, kind = " or ".join(calls_that_load(found)), with_article(f"{card.architecture:.100}")
        what = f"which load by {calls}" if alone else kind
        raise GenclsError(f"{path}: expected the weights of {needed}; got those of {card.name:.100}, {what}")


def check_no_training(path: str | Path, needed: str) -> None:
    """Refuse one of our own files where one that others published is needed; files without a card of ours pass.

    Raises:
        GenclsError: as :func:`check_training`.
    """
    if not str(path).endswith(SAFETENSORS):
        return
    try:
        card = read_card(path)
    except GenclsError:  # no card, or a file of others beside weights of others
        return
    check_training(path, card, needed)
