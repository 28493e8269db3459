"""Trainings of generators, made from their presets."""

from typing import Any

from gencls.core.errors import GenclsError
from gencls.zoo.networks import NVAE, SmallStyleAutoencoder, StyleGAN2Discriminator
from gencls.zoo.training.generator_presets import GeneratorPreset, NVAEPreset, StylePreset
from gencls.zoo.training.methods.hierarchical import HierarchicalVAETraining
from gencls.zoo.training.methods.modules import NetworkTraining
from gencls.zoo.training.methods.style import StyleTraining

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
    if isinstance(settings, StylePreset):
        return StyleTraining(
            SmallStyleAutoencoder.of_sizes(**settings.arguments),
            StyleGAN2Discriminator(settings.channels, colours=settings.shape[0]),
            epochs=settings.epochs,
            encoder_share=settings.encoder_share,
            gamma=settings.gamma,
            path_weight=settings.path_weight,
            half_life=settings.half_life,
            closeness=settings.closeness,
            evenness=settings.evenness,
            joint_weight=settings.joint_weight,
            **shared,
        )
    raise GenclsError(f"{settings.name}: expected a preset of a generator, got a {type(settings).__name__}")
