"""Image distances."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gencls.core.errors import GenclsError

__all__ = ["Embedding", "ImageDistance"]

Embedding = tuple[Tensor, ...]
"""A distance compares these: the pixels themselves, or features of several layers."""


class ImageDistance(nn.Module, ABC):
    """A distance between images, differentiable in both.

    A distance has two halves, ``embed`` and ``compare``, so that an inner loop embeds its fixed input once: in GAN inversion
    with a perceptual distance the feature network is over 90 % of the cost.
    """

    @abstractmethod
    def embed(self, images: Tensor) -> Embedding:
        """Turn images (N, C, H, W) in [0, 1] into tensors (N, c, h, w): pixels, maps of features, or features of size 1 x 1."""

    @abstractmethod
    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Compare two embeddings (..., c, h, w) whose leading dimensions broadcast; the distances >= 0 have these dimensions.

        One image can so be compared with K others without a copy: (N, 1, c, h, w) and (N, K, c, h, w) give (N, K).
        """

    def compare_all(self, first: Embedding, second: Embedding, shape: tuple[int, ...]) -> Tensor:
        """Call :meth:`compare` and check that the distances have this shape.

        Raises:
            GenclsError: they have another shape.
        """
        found = self.compare(first, second)
        if found.shape != shape:
            raise GenclsError(
                f"{type(self).__name__}: expected compare to broadcast over the leading dimensions of (..., c, h, w), as in "
                f"(N, 1, c, h, w) and (N, K, c, h, w) to (N, K); got {tuple(found.shape)}, not {tuple(shape)}"
            )
        return found

    def to_each(self, images: Tensor, others: Tensor) -> Tensor:
        """Distances (N, K) between images (N, C, H, W) and K others for each, (N, K, C, H, W); each image is embedded once."""
        count, classes = others.shape[:2]
        first = tuple(part.unsqueeze(1) for part in self.embed(images))
        second = tuple(part.view(count, classes, *part.shape[1:]) for part in self.embed(others.flatten(0, 1)))
        return self.compare_all(first, second, (count, classes))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (N,) between two batches of images (N, C, H, W) in [0, 1], image by image."""
        return self.compare(self.embed(first), self.embed(second))
