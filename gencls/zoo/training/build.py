"""The Lightning module of a preset, and the network's arguments."""

from typing import Any

from torch import nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks import CNN, ClassConditionalAutoencoder, ClassDecoders
from gencls.zoo.training.cifar_presets import CifarPreset
from gencls.zoo.training.generator_presets import GeneratorPreset
from gencls.zoo.training.generators import generator_training
from gencls.zoo.training.headed_presets import HeadedPreset
from gencls.zoo.training.methods.cifar import cifar_training
from gencls.zoo.training.methods.headed import headed_training
from gencls.zoo.training.methods.modules import AutoencoderTraining, ClassifierTraining, NetworkTraining
from gencls.zoo.training.methods.trades import TradesTraining
from gencls.zoo.training.presets import AutoencoderPreset, Preset, TablePreset, TradesPreset
from gencls.zoo.training.purifier_presets import PurifierPreset
from gencls.zoo.training.purifiers import purifier_training
from gencls.zoo.training.settings import NetworkPreset

__all__ = ["network_arguments", "training_module"]


def training_module(settings: Preset, num_classes: int, *, seed: int, description: str) -> NetworkTraining:
    """What Lightning trains.

    Args:
        settings: the preset.
        num_classes: K.
        seed: of the training.
        description: of all settings, see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.
    """
    shared: dict[str, Any] = {
        "perturbation": settings.perturbation,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "description": description,
    }
    if isinstance(settings, PurifierPreset):
        return purifier_training(settings, **shared)
    if isinstance(settings, GeneratorPreset):
        return generator_training(settings, **shared)
    if isinstance(settings, HeadedPreset):
        return headed_training(settings, num_classes, **shared)
    if isinstance(settings, CifarPreset):
        return cifar_training(settings, num_classes, **shared)
    arguments = network_arguments(settings, num_classes)
    if isinstance(settings, AutoencoderPreset):
        return AutoencoderTraining(
            ClassConditionalAutoencoder.from_architecture(**arguments),
            beta=settings.beta,
            gamma=settings.gamma if settings.discriminative else 0.0,
            classifier_epochs=settings.classifier_share * settings.epochs,
            generative_epochs=settings.generative_share * settings.epochs,
            discriminator_rate=settings.discriminator_rate,
            **shared,
        )
    if isinstance(settings, TradesPreset):
        return TradesTraining(CNN.from_architecture(**arguments), beta=settings.beta, **shared)
    return ClassifierTraining(CNN.from_architecture(**arguments), **shared)


def network_arguments(settings: Preset, num_classes: int, *, of: nn.Module | None = None) -> dict[str, Any]:
    """The constructor's arguments of the network that is trained, or of the part of it that is saved (``of``), for its card."""
    if isinstance(settings, HeadedPreset | CifarPreset):
        return settings.arguments | {"num_classes": num_classes}
    if isinstance(settings, NetworkPreset):
        return settings.arguments
    if not isinstance(settings, TablePreset):
        raise GenclsError(f"{settings.name}: expected a preset of a known kind, got a {type(settings).__name__}")
    arguments = {"architecture": settings.architecture, "num_classes": num_classes, "dropout": settings.dropout}
    if isinstance(settings, AutoencoderPreset) and not isinstance(of, ClassDecoders):
        return arguments | {"shared_encoder": settings.discriminative, "adversarial": settings.adversarial}
    return arguments
