"""Trainings of generators, made from their presets."""

from typing import Any

from gencls.core.errors import GenclsError
from gencls.zoo.networks import NVAE
from gencls.zoo.training.generator_presets import GeneratorPreset, NVAEPreset
from gencls.zoo.training.hierarchical import HierarchicalVAETraining
from gencls.zoo.training.modules import NetworkTraining

__all__ = ["generator_training"]


def generator_training(settings: GeneratorPreset, **shared: Any) -> NetworkTraining:
    """The network of a preset in its Lightning module.

    Args:
        settings: the preset.
        **shared: arguments of :class:`NetworkTraining`.

    Raises:
        GenclsError: for a preset of an unknown kind.
    """
    if isinstance(settings, NVAEPreset):
        return HierarchicalVAETraining(
            NVAE(**settings.arguments),
            warm_up_share=settings.warm_up_share,
            regularization=settings.regularization,
            statistics_passes=settings.statistics_passes,
            **shared,
        )
    raise GenclsError(f"{settings.name}: expected a preset of a generator, got a {type(settings).__name__}")
