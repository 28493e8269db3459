"""Trained models and ready-made defenses by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from torch import nn

from gencls.core import Defense, GenclsError, Transform, TransformedClassifier
from gencls.defenses import ABS, GaussianBlur, GaussianNoise, PlainClassifier
from gencls.zoo.checkpoints import restore
from gencls.zoo.networks import CNN, ClassDecoders, GroupedDecoders

__all__ = ["WEIGHTS", "load", "names"]

N = TypeVar("N", bound=nn.Module)

WEIGHTS = Path(__file__).parent / "weights"
"""Where the committed weights lie."""


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows."""
    return tuple(_BUILDERS)


def load(name: str, **overrides: Any) -> Defense:
    """Build a defense from committed weights.

    ``cnn-mnist`` is trained plainly, ``cnn-gaussian-mnist`` with Gaussian noise, ``adv-linf-mnist`` and
    ``adv-l2-mnist`` adversarially; ``cnn-noise-mnist`` is Gaussian noise in front of ``cnn-gaussian-mnist``,
    ``cnn-blur-mnist`` Gaussian blur in front of ``cnn-mnist``, ``abs-mnist`` is analysis by synthesis.

    Args:
        name: one of :func:`names`.
        **overrides: ``weights`` (path of a file that ``gencls train`` made) for every name; ``sigma`` for noise (in
            [0, 1] pixel units) and blur (in pixels); for ``abs-mnist`` the keyword arguments of
            :func:`gencls.defenses.ABS`.

    Returns:
        The defense in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown name (listing the known ones), an override that the model does not have, or
            weights that are missing (naming the command that makes them) or damaged.
    """
    if name not in _BUILDERS:
        raise GenclsError(f"unknown model {name!r}; expected one of {', '.join(_BUILDERS)}")
    builder = _BUILDERS[name]
    for key in overrides:
        if key not in _overrides(builder):
            raise GenclsError(f"{name}: expected overrides among {', '.join(_overrides(builder))}; got {key!r}")
    return builder(**overrides).eval().requires_grad_(False)


def _overrides(builder: Callable[..., Defense]) -> list[str]:
    own = inspect.signature(builder).parameters
    # The first parameter of ABS is the generator, which comes from the weights.
    return [*own] if builder is not _abs else ["weights", *list(inspect.signature(ABS).parameters)[1:]]


def _network(kind: type[N], trained: str, weights: str | Path | None) -> N:
    path = WEIGHTS / f"{trained}.safetensors" if weights is None else Path(weights)
    if not path.is_file():
        raise GenclsError(
            f"expected the weights of {trained} at {path}; got no such file. "
            f"Make them with: gencls train {trained} --data-root DATA"
        )
    network, card = restore(path, _ARCHITECTURES)
    if not isinstance(network, kind):
        raise GenclsError(f"{path}: expected the weights of a {kind.__name__} for {trained}; got a {card.architecture}")
    return network


def _classifier(trained: str, *, weights: str | Path | None = None) -> Defense:
    network = _network(CNN, trained, weights)
    return PlainClassifier(network, network.num_classes)


def _behind(trained: str, transform: Transform, weights: str | Path | None) -> Defense:
    network = _network(CNN, trained, weights)
    return TransformedClassifier(transform, network, network.num_classes)


def _noise(*, sigma: float = 0.2, weights: str | Path | None = None) -> Defense:
    return _behind("cnn-gaussian-mnist", GaussianNoise(sigma), weights)


def _blur(*, sigma: float = 1.0, weights: str | Path | None = None) -> Defense:
    return _behind("cnn-mnist", GaussianBlur(sigma), weights)


def _abs(*, weights: str | Path | None = None, **settings: Any) -> Defense:
    return ABS(GroupedDecoders.from_decoders(_network(ClassDecoders, "abs-mnist", weights)), **settings)


# Constructors by the names that cards use.
_ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"CNN": CNN.from_architecture, "ClassDecoders": ClassDecoders.from_architecture}
)

_BUILDERS: Mapping[str, Callable[..., Defense]] = MappingProxyType(
    {
        **{name: partial(_classifier, name) for name in ("cnn-mnist", "cnn-gaussian-mnist", "adv-linf-mnist", "adv-l2-mnist")},
        "cnn-noise-mnist": _noise,
        "cnn-blur-mnist": _blur,
        "abs-mnist": _abs,
    }
)
