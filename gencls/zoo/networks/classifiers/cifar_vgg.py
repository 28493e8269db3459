"""VGG networks for CIFAR10: Simonyan and Zisserman 2015, arXiv:1409.1556, with batch norm and one linear layer."""

from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.classifiers.cifar_network import CifarNetwork

VGG_GROUPS = {
    "VGG11": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "VGG13": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "VGG16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "VGG19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Channels of the convolutions between two poolings."""


class CifarVGG(CifarNetwork):
    """Groups of 3x3 convolutions with batch norm and ReLU, each followed by 2x2 max pooling; a linear layer.

    Keys of the state dict are those of GitHub kuangliu/pytorch-cifar.

    Args:
        groups: channels of the convolutions of each group, as in ``VGG_GROUPS``; one to five groups.
        num_classes: K.
        mean: mean of each channel in the normalisation inside, C numbers in [0, 1] pixel units; the default changes no image.
        std: standard deviation of each channel, C numbers > 0 in [0, 1] pixel units.

    Raises:
        GenclsError: for another number of groups, or a group without a convolution.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        num_classes: int = 10,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(num_classes, mean, std)
        if not 1 <= len(groups) <= 5 or not all(groups):
            raise GenclsError(f"CifarVGG: expected one to five groups of convolutions, got {tuple(map(tuple, groups))}")
        layers: list[nn.Module] = []
        before = len(mean)
        for group in groups:
            for after in group:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        side = 32 // 2 ** len(groups)
        self.classifier = nn.Linear(before * side**2, num_classes)

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
