"""Training of the MLVGM paper's classifiers: torchvision networks with a head of two layers."""

import re
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.checkpoints.checkpoint import load_state_dict
from gencls.zoo.networks.classifiers.headed_classifier import BACKBONES, HeadedClassifier
from gencls.zoo.training.headed_presets import HeadedPreset
from gencls.zoo.training.methods.modules import ClassifierTraining

__all__ = ["HeadedTraining", "headed_training", "start_from"]


class HeadedTraining(ClassifierTraining):
    """Cross-entropy on perturbed images by SGD with momentum at a constant rate.

    Source: Serez et al., WACV 2025, supplement, appendix C ("we train the full model (backbone + head) on each task"); the
    optimiser is its public code's.

    Args:
        network: images to logits (N, K).
        momentum: of SGD; 0.9 there.
        **shared: see :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.
    """

    extendable = True  # the rate is constant

    def __init__(self, network: HeadedClassifier, *, momentum: float, **shared: Any) -> None:
        super().__init__(network, **shared)
        self.momentum = momentum

    def configure_optimizers(self) -> Any:
        """SGD without a schedule."""
        return torch.optim.SGD(self.parameter_groups(), lr=self.learning_rate, momentum=self.momentum)


def headed_training(settings: HeadedPreset, num_classes: int, **shared: Any) -> HeadedTraining:
    """The network of a preset in its Lightning module.

    Args:
        settings: the preset.
        num_classes: K.
        **shared: arguments of :class:`~gencls.zoo.training.methods.modules.NetworkTraining`.

    Raises:
        GenclsError: see :func:`start_from`.
    """
    network = HeadedClassifier(num_classes=num_classes, **settings.arguments)
    if settings.pretrained is not None:
        start_from(network, settings.backbone, settings.pretrained)
    return HeadedTraining(network, momentum=settings.momentum, **shared)


def start_from(network: HeadedClassifier, backbone: str, path: Path) -> None:
    """Give a network the weights that torchvision publishes for its backbone; the head keeps its own.

    Args:
        network: of this backbone.
        backbone: a key of ``BACKBONES``.
        path: the file as torchvision names it, for instance ``resnet50-0676ba61.pth``: the name has the first eight digits
            of its SHA-256.

    Raises:
        GenclsError: for a file that is missing, named otherwise, changed, or of another network.
    """
    named = re.fullmatch(rf"{backbone}-([0-9a-f]{{8}})\.pth", path.name)
    if named is None:
        raise GenclsError(
            f"expected weights of {backbone} as torchvision names them, {backbone}- and eight digits of the SHA-256; got {path}"
        )
    state = load_state_dict(path)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if not digest.startswith(named[1]):
        raise GenclsError(f"{path}: expected SHA-256 {named[1]}..., as its name says; got {digest}")
    head = f"{BACKBONES[backbone]}."
    given = {f"model.{key}": value for key, value in state.items() if not key.startswith(head)}
    body = {key: _kind(value) for key, value in network.state_dict().items() if not key.startswith(f"model.{head}")}
    # Files of old versions of torch lack the counters of batch norm, which nothing here reads.
    wrong = {key for key in given.keys() | body.keys() if key not in given or _kind(given[key]) != body.get(key)}
    wrong = {key for key in wrong if key in given or not key.endswith(".num_batches_tracked")}
    if wrong:
        raise GenclsError(f"{path}: expected the weights of {backbone}; {len(wrong)} do not fit, one is {min(wrong)}")
    network.load_state_dict(given, strict=False)


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()
