"""Rows of the registry: each says how to put a ready-made defense together."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gencls.core import Defense, GenclsError, Transform, TransformedClassifier, did_you_mean
from gencls.core.words import with_article
from gencls.zoo.checkpoints.places import WEIGHTS, Read, weights_in, weights_places
from gencls.zoo.networks import CNN

__all__ = ["Part", "ReadyMade", "network_part", "purifier"]

_SUPPLIED = ("encoder", "discriminator", "variant")
"""Keyword arguments that the row itself gives."""


@dataclass(frozen=True)
class Part:
    """What a defense takes besides its own network: the network of another training, or what is made of it.

    Attributes:
        trained: name of the training; empty if the part needs none.
        make: makes the part, from how networks of trainings are read and from the path of its weights, None for the committed.
    """

    trained: str
    make: Callable[[Read, Path | None], Any]

    def made(self, read: Read, folder: Path | None) -> Any:
        """The part with the weights that a folder has, or the committed ones."""
        return self.make(read, weights_in(folder, self.trained) if self.trained else None)

    @property
    def is_here(self) -> bool:
        """Whether the weights are committed, or not needed."""
        return not self.trained or (WEIGHTS / f"{self.trained}.safetensors").is_file()


def network_part(kind: type[nn.Module], trained: str) -> Part:
    """The network of another training, of this class."""
    return Part(trained, lambda read, weights: read(kind, trained, weights))


@dataclass(frozen=True)
class ReadyMade:
    """A defense that is built on networks of trainings, on files that others published, or on a dependency's weights.

    Attributes:
        build: makes the defense from the network in eval mode, the parts, and keyword arguments. Without a network it takes the
            folder of the published files, or nothing if there are none.
        network: class of the network; None: ``build`` reads the weights itself.
        trained: name of the training; None: the name of the defense.
        parts: keyword argument of ``build`` -> what it takes from another training. With several parts by a word, the keyword
            is a setting with these words, and the first is its default.
        settings: function with the keyword arguments that ``build`` passes on.
        files: name of the first published file, if there are any.
    """

    build: Callable[..., Defense]
    network: type[nn.Module] | None = None
    trained: str | None = None
    parts: Mapping[str, Part | Mapping[str, Part]] = field(default_factory=dict)
    settings: Callable[..., Any] | None = None
    files: str | None = None

    def make(self, name: str, read: Read, *, weights: str | Path | None = None, **settings: Any) -> Defense:
        """Put the defense together, see :func:`gencls.zoo.registry.load`; other settings are those of ``build``."""
        built = self._built(name, read, weights, settings)
        if not isinstance(built, Defense):
            wanted = "a row purifier(Method, Network, classifier=...)" if isinstance(built, Transform) else "a Defense"
            raise GenclsError(f"{name}: expected {wanted}, got a ReadyMade that builds {with_article(type(built).__name__)}")
        return built

    def _built(self, name: str, read: Read, weights: str | Path | None, settings: dict[str, Any]) -> object:
        if self.network is not None:
            folder = Path(weights) if weights is not None and Path(weights).is_dir() else None
            parts = {key: self._part(name, key, settings) for key in self.parts}
            network = read(self.network, self.trained or name, weights)
            return self.build(network, **{key: part.made(read, folder) for key, part in parts.items()}, **settings)
        if self.files is None:
            return self.build()
        if weights is None:
            raise GenclsError(f"{name}: expected weights=FOLDER with the published files, {self.files} first; got none")
        return self.build(weights, **settings)

    def _part(self, name: str, key: str, settings: dict[str, Any]) -> Part:
        """The part of a keyword; a setting among several leaves ``settings``."""
        parts = self.parts[key]
        if isinstance(parts, Part):
            return parts
        word = settings.pop(key, next(iter(parts)))
        if not isinstance(word, str) or word not in parts:
            hint = did_you_mean(word, parts) if isinstance(word, str) else ""
            raise GenclsError(f"{name}: {hint}expected {key} to be one of {', '.join(parts)}; got {word!r}")
        return parts[word]

    def overrides(self) -> list[str]:
        """Keyword arguments of :meth:`make`."""
        if self.network is None and self.files is None:
            return []
        build = self.build.func if isinstance(self.build, partial) else self.build
        found = [inspect.signature(each).parameters.values() for each in (build, self.settings) if each is not None]
        own = [item.name for parameters in found for item in parameters if item.kind is item.KEYWORD_ONLY]
        given = {*_SUPPLIED, *(key for key, part in self.parts.items() if isinstance(part, Part))}
        return ["weights", *(key for key in dict.fromkeys(own) if key not in given)]

    def is_here(self, name: str) -> bool:
        """Whether the weights of all networks are committed, or come with a dependency; of settings those of the defaults."""
        if self.network is None:
            return self.files is None
        own = network_part(self.network, self.trained or name)
        return all(part.is_here for part in (own, *self.defaults().values()))

    def defaults(self) -> dict[str, Part]:
        """Keyword -> part, of settings the default."""
        return {key: part if isinstance(part, Part) else next(iter(part.values())) for key, part in self.parts.items()}

    def places(self, name: str, folder: Path) -> tuple[Path, ...]:
        """The places where a folder may have the weights; none for those of a dependency."""
        if self.network is not None:
            return weights_places(self.trained or name, folder)
        return () if self.files is None else (folder / name / self.files, folder / self.files)


def purifier(
    method: Callable[..., Transform], network: type[nn.Module], *, classifier: str, trained: str | None = None
) -> ReadyMade:
    """A row of a transform, ``method(network)``, in front of the CNN of a training; ``trained`` as in :class:`ReadyMade`."""

    def build(purifies: nn.Module, *, classifier: CNN, **settings: Any) -> Defense:
        return TransformedClassifier(method(purifies, **settings), classifier, classifier.num_classes)

    parts = {"classifier": network_part(CNN, classifier)}
    return ReadyMade(build, network, trained=trained, parts=parts, settings=method)
