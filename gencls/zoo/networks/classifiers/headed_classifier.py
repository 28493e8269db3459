"""The classifiers of the MLVGM paper: torchvision networks with a head of two layers."""

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn

from gencls.core.errors import GenclsError

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
            hidden: h; None takes d, as the paper does. For vgg11_bn d is 25088, and the first matrix has 629 million entries,
                2.5 GB in float32. Take a smaller h to train your own.

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
        """Images (N, 3, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.model((images - 0.5) / 0.5)
        return logits
