"""Training of residual networks on CIFAR10."""

from typing import Any

import torch

from gencls.zoo.networks import CifarResNet
from gencls.zoo.training.cifar_presets import CifarPreset
from gencls.zoo.training.methods.modules import ClassifierTraining

__all__ = ["CifarTraining", "cifar_training"]


class CifarTraining(ClassifierTraining):
    """Cross-entropy on perturbed images by SGD with momentum and weight decay, the rate falling to zero along a cosine.

    Source: GitHub kuangliu/pytorch-cifar, whose rate falls after each epoch; here it falls after each step.

    Args:
        network: images to logits (N, K).
        momentum: of SGD.
        weight_decay: of SGD.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.
    """

    def __init__(self, network: CifarResNet, *, momentum: float, weight_decay: float, **shared: Any) -> None:
        super().__init__(network, **shared)
        self.momentum = momentum
        self.weight_decay = weight_decay

    def new_optimizer(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(
            self.parameter_groups(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


def cifar_training(settings: CifarPreset, num_classes: int, **shared: Any) -> CifarTraining:
    """The network of a preset in its Lightning module.

    Args:
        settings: the preset.
        num_classes: K.
        **shared: arguments of :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.
    """
    network = CifarResNet(num_classes=num_classes, **settings.arguments)
    return CifarTraining(network, momentum=settings.momentum, weight_decay=settings.weight_decay, **shared)
