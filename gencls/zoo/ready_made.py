"""Rows of the registry: each says how to put a ready-made defense together."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gencls.core import Defense, GenclsError, Transform, TransformedClassifier
from gencls.zoo.networks import CNN
from gencls.zoo.trained import WEIGHTS, trained_network, weights_places

_SUPPLIED = ("encoder", "discriminator", "variant")
"""Keyword arguments that the row itself gives."""


@dataclass(frozen=True)
class ReadyMade:
    """A defense that is built on the network of a training, on files that others published, or on a dependency's weights.

    Attributes:
        build: makes the defense, or with ``classifier`` the transform, from the network in eval mode and keyword arguments.
            Without a network it takes the folder of the published files, or nothing if there are none.
        network: class of the network; None: ``build`` reads the weights itself.
        trained: name of the training; None: the name of the defense.
        classifier: name of the training of the CNN behind the transform; its committed weights are used.
        settings: function with the keyword arguments, if ``build`` only passes them on.
        files: name of the first published file, if there are any.
    """

    build: Callable[..., Defense | Transform]
    network: type[nn.Module] | None = None
    trained: str | None = None
    classifier: str | None = None
    settings: Callable[..., Defense] | None = None
    files: str | None = None

    def make(self, name: str, *, weights: str | Path | None = None, **settings: Any) -> Defense:
        """Put the defense together, see :func:`gencls.zoo.registry.load`; other settings are those of ``build``."""
        built = self._built(name, weights, settings)
        if isinstance(built, Defense):
            return built
        if self.classifier is None:
            raise GenclsError(f"{name}: expected the row of a transform to say the classifier behind it; got none")
        classifier = trained_network(CNN, self.classifier)
        return TransformedClassifier(built, classifier, classifier.num_classes)

    def _built(self, name: str, weights: str | Path | None, settings: dict[str, Any]) -> Defense | Transform:
        if self.network is not None:
            return self.build(trained_network(self.network, self.trained or name, weights), **settings)
        if self.files is None:
            return self.build()
        if weights is None:
            raise GenclsError(f"{name}: expected weights=FOLDER with the published files, {self.files} first; got none")
        return self.build(weights, **settings)

    def overrides(self) -> list[str]:
        """Keyword arguments of :meth:`make`."""
        if self.network is None and self.files is None:
            return []
        build = self.settings or self.build
        parameters = inspect.signature(build.func if isinstance(build, partial) else build).parameters.values()
        own = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY and item.name not in _SUPPLIED]
        return ["weights", *own]

    def is_here(self, name: str) -> bool:
        """Whether the weights are committed, or come with a dependency."""
        if self.network is None:
            return self.files is None
        return (WEIGHTS / f"{self.trained or name}.safetensors").is_file()

    def places(self, name: str, folder: Path) -> tuple[Path, ...]:
        """The places where a folder may have the weights; none for those of a dependency."""
        if self.network is not None:
            return weights_places(self.trained or name, folder)
        return () if self.files is None else (folder / name / self.files, folder / self.files)
