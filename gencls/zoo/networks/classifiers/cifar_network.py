"""What the classifiers of CIFAR10 share: the shape of their images, and normalisation inside."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.images import check_image_shape
from gencls.zoo.networks.parts.normalization import Normalization


class CifarNetwork(nn.Module, ABC):
    """A classifier of images of 32 x 32 pixels.

    Args:
        num_classes: K.
        mean: of the normalisation, in [0, 1] pixel units.
        std: likewise.
    """

    def __init__(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalization = Normalization(mean, std)

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, 32, 32) to logits (N, K)."""

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: (N, 3, 32, 32) in [0, 1].

        Returns:
            Logits (N, K).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, (3, 32, 32), name=type(self).__name__)
        return self.logits(self.normalization(images))
