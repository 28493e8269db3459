"""The trainings that make the weights of the zoo, by name: ``METHOD-DATA``. Each method is a file in ``methods``."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.zoo.training import methods
from gencls.zoo.training.base import Preset

_FILES = sorted((file.name for file in iter_modules(methods.__path__)), key=lambda name: (name != "classifier", name))
_METHODS = [import_module(f"{methods.__name__}.{name}") for name in _FILES]

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for method in _METHODS for preset in getattr(method, "PRESETS", ())}
)
"""All presets by name, from every file in ``methods``; plain classifiers come first."""


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        GenclsError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise GenclsError(f"unknown training {name!r}; {did_you_mean(name, PRESETS)}expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
