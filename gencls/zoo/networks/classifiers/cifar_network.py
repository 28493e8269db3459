"""The base of the classifiers of CIFAR10 and other small images: the shape of their images, and normalisation inside."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.images import check_image_shape


class CifarNetwork(nn.Module, ABC):
    """A classifier of small square images, by default of 32 x 32 pixels.

    Args:
        num_classes: K.
        mean: mean of each channel in the normalisation, in [0, 1] pixel units: C numbers, as many as images have channels.
        std: standard deviation of each channel in the normalisation, C numbers > 0 in [0, 1] pixel units.
        image_size: H = W of the images, in pixels.

    Attributes:
        image_shape: (C, H, W) of the images.

    Raises:
        GenclsError: for no mean, another number of standard deviations, or images without pixels.
    """

    def __init__(self, num_classes: int, mean: Sequence[float], std: Sequence[float], image_size: int = 32) -> None:
        super().__init__()
        if image_size < 1 or not mean:
            got = f"{image_size} and {tuple(mean)}"
            raise GenclsError(f"{type(self).__name__}: expected image_size >= 1 and a mean per channel, got {got}")
        self.num_classes = num_classes
        self.normalization = Normalization(mean, std)
        self.image_shape = (len(mean), image_size, image_size)

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name=type(self).__name__)
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
