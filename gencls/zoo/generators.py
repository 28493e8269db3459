"""Trained generators with several latent levels, by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gencls.core import GenclsError, MultiLatentModel, checked, did_you_mean
from gencls.zoo.networks import NVAE, SmallStyleAutoencoder
from gencls.zoo.trained import WEIGHTS, trained_network
from gencls.zoo.training.generator_presets import GENERATOR_PRESETS, NVAEPreset, StylePreset
from gencls.zoo.training.settings import Preset

__all__ = ["generator_names", "load_generator"]


_KINDS: Mapping[type[Preset], type[MultiLatentModel]] = MappingProxyType({NVAEPreset: NVAE, StylePreset: SmallStyleAutoencoder})


def generator_names() -> tuple[str, ...]:
    """The names that :func:`load_generator` builds from committed weights; other trainings' names need ``weights``."""
    return tuple(item.name for item in GENERATOR_PRESETS if (WEIGHTS / f"{item.name}.safetensors").is_file())


@checked
def load_generator(name: str, *, weights: str | Path | None = None) -> MultiLatentModel:
    """A generator of our own, for instance for :class:`gencls.defenses.MLVGMPurification`.

    Published checkpoints have readers of their own: :mod:`gencls.zoo.networks.nvae.published` and
    :mod:`gencls.zoo.networks.stylegan.published`.

    Args:
        name: one of :func:`generator_names`, or with ``weights`` of any training of a generator.
        weights: path of a file that ``gencls train`` made; None is the committed one.

    Returns:
        The generator in eval mode, its parameters frozen.

    Raises:
        GenclsError: for an unknown name (listing the known ones), weights that are missing (naming the command that makes
            them), damaged, or of something else.
    """
    kinds = {item.name: _KINDS[type(item)] for item in GENERATOR_PRESETS}
    if name not in kinds:
        raise GenclsError(f"unknown generator {name!r}; {did_you_mean(name, kinds)}expected one of {', '.join(kinds)}")
    return trained_network(kinds[name], name, weights)
