"""Normalisation of images, inside the network."""

from collections.abc import Sequence

from torch import Tensor, nn

from gencls.core.errors import GenclsError


class Normalization(nn.Module):
    """(x - mean) / std, per channel.

    It adds nothing to a state dict: published weights lack these numbers, and rounding the others does not round them.

    Args:
        mean: C numbers, in [0, 1] pixel units.
        std: likewise, > 0.

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
