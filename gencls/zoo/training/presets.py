"""The trainings that make the weights of the zoo, by name: ``METHOD-DATA``. Each method has a file in ``methods``."""

from collections.abc import Mapping
from types import MappingProxyType

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean
from gencls.zoo.training.base import Preset
from gencls.zoo.training.methods import (
    a_vae,
    adversarial,
    cifar,
    class_conditional,
    classifier,
    headed,
    hierarchical_vae,
    nd_vae,
    stylegan,
    trades,
)

_METHODS: tuple[tuple[Preset, ...], ...] = (
    classifier.PRESETS,
    adversarial.PRESETS,
    trades.PRESETS,
    class_conditional.PRESETS,
    headed.PRESETS,
    cifar.PRESETS,
    a_vae.PRESETS,
    nd_vae.PRESETS,
    hierarchical_vae.PRESETS,
    stylegan.PRESETS,
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for presets in _METHODS for preset in presets})
"""All presets by name."""


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        GenclsError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise GenclsError(f"unknown training {name!r}; {did_you_mean(name, PRESETS)}expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
