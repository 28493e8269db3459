"""Published classifiers of the MLVGM paper: a file to a network, its sizes read off the weights."""

from pathlib import Path
from typing import Any

from gencls.zoo.checkpoints.checkpoint import load_state_dict
from gencls.zoo.checkpoints.published import State, Weights
from gencls.zoo.networks.classifiers.headed_classifier import BACKBONES, HeadedClassifier

__all__ = ["headed_classifier_from_state", "load_headed_classifier"]


def load_headed_classifier(path: str | Path) -> HeadedClassifier:
    """Read a classifier of GitHub SerezD/gen_adversarial.

    Args:
        path: the file, see :func:`gencls.zoo.checkpoints.checkpoint.load_state_dict`.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for a file that is missing, damaged or something else; weights that are not those of such a classifier.
    """
    return headed_classifier_from_state(load_state_dict(path))


def headed_classifier_from_state(state: State) -> HeadedClassifier:
    """Build the classifier whose weights these are; the network shares the tensors.

    Args:
        state: a state dict of GitHub SerezD/gen_adversarial.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        GenclsError: for keys that are missing or surplus, tensors of an unexpected shape, or integers as parameters.
    """
    weights = Weights(HeadedClassifier, state)
    return weights.build(**_sizes(weights))


def _sizes(weights: Weights[HeadedClassifier]) -> dict[str, Any]:
    """Arguments of HeadedClassifier, from the names and shapes of its weights."""
    if any(key.startswith("model.classifier.") for key in weights.state):
        backbone = "vgg11_bn"
    else:  # the middle convolutions of resnext50_32x4d have groups
        whole = weights.shape("model.layer1.0.conv2.weight", 4)[1] == 64
        backbone = "resnet50" if whole else "resnext50_32x4d"
    num_classes, hidden = weights.shape(f"model.{BACKBONES[backbone]}.3.weight", 2)
    return {"backbone": backbone, "num_classes": num_classes, "hidden": hidden}
