"""Image distances."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gencls.core.errors import GenclsError

__all__ = ["Embedding", "ImageDistance"]

Embedding = tuple[Tensor, ...]
"""What a distance compares: the pixels themselves, or features of several layers."""


class ImageDistance(nn.Module, ABC):
    """A distance between images, differentiable in both.

    It is split into ``embed`` and ``compare`` so that an inner loop embeds its fixed input once: in GAN inversion with a
    perceptual distance the feature network is over 90 % of the cost.
    """

    @abstractmethod
    def embed(self, images: Tensor) -> Embedding:
        """Images (N, C, H, W) in [0, 1] -> tensors (N, c, h, w): pixels, maps of features, or features of size 1 x 1."""

    @abstractmethod
    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Two embeddings (..., c, h, w) whose leading dimensions broadcast -> distances of their shape.

        So one image is compared with K others without being copied: (N, 1, c, h, w) and (N, K, c, h, w) give (N, K).
        """

    def compare_all(self, first: Embedding, second: Embedding, shape: tuple[int, ...]) -> Tensor:
        """:meth:`compare`, which must give this shape.

        Raises:
            GenclsError: for distances of another one.
        """
        found = self.compare(first, second)
        if found.shape != shape:
            raise GenclsError(
                f"{type(self).__name__}: expected compare to broadcast over the leading dimensions of (..., c, h, w), as in "
                f"(N, 1, c, h, w) and (N, K, c, h, w) to (N, K); got {tuple(found.shape)}, not {tuple(shape)}"
            )
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (N,) between two batches of images (N, C, H, W) in [0, 1]."""
        return self.compare(self.embed(first), self.embed(second))
