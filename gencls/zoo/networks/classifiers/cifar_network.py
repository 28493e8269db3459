"""The base of CIFAR10's classifiers: the shape of their images, and normalisation inside."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.images import check_image_shape


class CifarNetwork(nn.Module, ABC):
    """A classifier of images of 32 x 32 pixels.

    Args:
        num_classes: K.
        mean: mean of each channel in the normalisation, 3 numbers in [0, 1] pixel units.
        std: standard deviation of each channel in the normalisation, 3 numbers > 0 in [0, 1] pixel units.
    """

    def __init__(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalization = Normalization(mean, std)

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, 32, 32) to logits (N, K)."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, K).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, (3, 32, 32), name=type(self).__name__)
        return self.logits(self.normalization(images))


class Normalization(nn.Module):
    """(x - mean) / std, per channel.

    It adds nothing to a state dict. Published weights lack these numbers, and a change of the weights' precision leaves them.

    Args:
        mean: C numbers, in [0, 1] pixel units.
        std: C numbers > 0, in [0, 1] pixel units.

    Raises:
        GenclsError: for other numbers.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)
        if len(self.mean) != len(self.std) or min(self.std, default=0.0) <= 0:
            raise GenclsError(f"Normalization: expected as many means as std > 0, got {self.mean} and {self.std}")

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to numbers of about mean 0 and standard deviation 1."""
        mean, std = (images.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std

    def extra_repr(self) -> str:
        """For printing."""
        return f"mean={self.mean}, std={self.std}"
