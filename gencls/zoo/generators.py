"""Trained generators with several latent levels, by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gencls.core import GenclsError, MultiLatentModel, checked, did_you_mean
from gencls.zoo.networks import NVAE, SmallStyleAutoencoder
from gencls.zoo.trained import WEIGHTS, trained_network

__all__ = ["GENERATORS", "generator_names", "load_generator"]

GENERATORS: Mapping[str, type[MultiLatentModel]] = MappingProxyType(
    {
        "nvae-fashion": NVAE,
        "nvae-mnist": NVAE,
        "nvae-large-fashion": NVAE,
        "stylegan2-fashion": SmallStyleAutoencoder,
        "stylegan2-large-fashion": SmallStyleAutoencoder,
        "nvae-faces": NVAE,
        "nvae-large-faces": NVAE,
        "nvae-cars": NVAE,
        "stylegan2-cars": SmallStyleAutoencoder,
    }
)
"""The network of each training of a generator."""


def generator_names() -> tuple[str, ...]:
    """The names that :func:`load_generator` builds from committed weights; other trainings' names need ``weights``."""
    return tuple(name for name in GENERATORS if (WEIGHTS / f"{name}.safetensors").is_file())


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
    if name not in GENERATORS:
        known = ", ".join(GENERATORS)
        raise GenclsError(f"unknown generator {name!r}; {did_you_mean(name, GENERATORS)}expected one of {known}")
    return trained_network(GENERATORS[name], name, weights)
