"""The classifiers of the MLVGM paper: torchvision networks with a head of two layers."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError

__all__ = ["BACKBONES", "HeadedClassifier", "headed_classifier"]

BACKBONES: Mapping[str, str] = MappingProxyType({"resnet50": "fc", "vgg11_bn": "classifier", "resnext50_32x4d": "fc"})
"""torchvision's name of a network -> the part of it that the head replaces."""


class HeadedClassifier(nn.Module):
    """A torchvision network whose last layers are replaced by Linear(d, h, no bias), BatchNorm, ReLU, Linear(h, K).

    Images are normalised with mean 0.5 and standard deviation 0.5 first. Keys of the state dict are those of the paper's public
    code (SerezD/gen_adversarial): ``model.*``, the head ``model.fc.*`` or ``model.classifier.*``.

    Source: Serez et al., WACV 2025, supplement, appendix C: resnet50 for gender, vgg11_bn for identities, resnext50_32x4d for
    cars.
    """

    def __init__(self, backbone: str, num_classes: int, *, hidden: int | None = None) -> None:
        """Build the network, untrained.

        Args:
            backbone: a key of ``BACKBONES``.
            num_classes: K >= 1.
            hidden: h; None takes d, as the paper does. For vgg11_bn d is 25088 and the first matrix has 629 million entries,
                2.5 GB in float32: take a smaller one for training of your own.

        Raises:
            GenclsError: for an unknown backbone or numbers below 1.
        """
        super().__init__()
        if backbone not in BACKBONES or num_classes < 1 or (hidden is not None and hidden < 1):
            raise GenclsError(
                f"HeadedClassifier: expected a backbone among {', '.join(BACKBONES)}, num_classes >= 1 and hidden >= 1, "
                f"got {backbone!r}, {num_classes} and {hidden}"
            )
        from torchvision import models

        self.num_classes = num_classes
        self.model: nn.Module = getattr(models, backbone)(weights=None)
        replaced = getattr(self.model, BACKBONES[backbone])
        first = replaced if isinstance(replaced, nn.Linear) else replaced[0]
        width = hidden or first.in_features
        head = nn.Sequential(
            nn.Linear(first.in_features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, num_classes)
        )
        setattr(self.model, BACKBONES[backbone], head)

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: (N, 3, H, W) in [0, 1].

        Returns:
            Logits (N, K).
        """
        logits: Tensor = self.model((images - 0.5) / 0.5)
        return logits


def headed_classifier(state: Mapping[str, Tensor]) -> HeadedClassifier:
    """Build the classifier that a checkpoint is of: backbone, number of classes and width of the head are those of the weights.

    Args:
        state: as :func:`gencls.zoo.checkpoints.load_state_dict` reads it. Its tensors become the network's, without a copy.

    Returns:
        The classifier in eval mode.

    Raises:
        GenclsError: for a state without such a head, or with a key that is missing, unknown, or of another shape.
    """
    name = next((name for name in set(BACKBONES.values()) if f"model.{name}.3.weight" in state), None)
    head = None if name is None else state[f"model.{name}.3.weight"]
    if head is None or head.ndim != 2:
        found = ", ".join(list(state)[:3]) or "nothing"
        raise GenclsError(
            f"headed classifier: expected a matrix model.fc.3.weight or model.classifier.3.weight; got {found}, ..."
        )
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    sizes = tuple(head.shape)
    layouts = {backbone: _layout(backbone, *sizes) for backbone, part in BACKBONES.items() if part == name}
    backbone = max(layouts, key=lambda candidate: len(layouts[candidate].items() & shapes.items()))
    layout = layouts[backbone]
    missing, unknown = sorted(layout.keys() - shapes), sorted(shapes.keys() - layout)
    if missing or unknown:
        some = (", ".join(keys[:3]) or "none" for keys in (missing, unknown))
        raise GenclsError("headed classifier: expected the keys of {}; missing: {}; unknown: {}".format(backbone, *some))
    for key, shape in layout.items():
        if shapes[key] != shape:
            raise GenclsError(f"headed classifier: expected {key} of shape {shape} for {backbone}, got {shapes[key]}")
    with torch.device("meta"):
        classifier = HeadedClassifier(backbone, sizes[0], hidden=sizes[1])
    try:
        classifier.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise GenclsError(f"headed classifier: expected floating point weights for {backbone}: {error}") from None
    return classifier.eval()


@cache
def _layout(backbone: str, num_classes: int, hidden: int) -> Mapping[str, tuple[int, ...]]:
    """Shapes by key; nothing is allocated."""
    with torch.device("meta"):
        network = HeadedClassifier(backbone, num_classes, hidden=hidden)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
