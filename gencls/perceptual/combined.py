"""A distance on pixels and a perceptual distance together."""

from typing import Any

from torch import Tensor

from gencls.core import Embedding, GenclsError, ImageDistance, checked

__all__ = ["Combined"]


class Combined(ImageDistance):
    """The sum D(x, x') = pixel(x, x') + weight * percept(x, x').

    Its embedding has both embeddings. A first part of zeros, (N, P, 1, 1), tells that the next P parts belong to ``pixel``.
    With weight 0 the perceptual distance is not computed at all.

    Source: the GAN-inversion thesis, eq. 3.7: ``pixel`` is :class:`SquaredL2`, and the weight lambda_percept is 1 by default
    (10 in Table 3.5).

    Args:
        pixel: the distance on pixels.
        percept: the perceptual distance.
        weight: lambda_percept >= 0; a plain ``weight`` of a classifier is lambda, the factor of its R.

    Raises:
        GenclsError: the weight is negative, or is set again later.
    """

    @checked
    def __init__(self, pixel: ImageDistance, percept: ImageDistance, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise GenclsError(f"Combined: expected weight >= 0, got {weight}")
        self.pixel, self.percept, self.weight = pixel, percept, weight

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another weight: it was checked, and embeddings made with weight 0 have fewer parts."""
        if name == "weight" and name in vars(self):
            raise GenclsError(f"Combined: expected its weight to stay {self.weight}, got {value!r}; make another Combined")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The setting."""
        return f"weight={self.weight}"

    def embed(self, images: Tensor) -> Embedding:
        """Where the two embeddings meet, (N, P, 1, 1), then both of them."""
        pixel = self.pixel.embed(images)
        percept = self.percept.embed(images) if self.weight else ()
        return (pixel[0].new_zeros(len(images), len(pixel), 1, 1), *pixel, *percept)

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        end = 1 + first[0].shape[-3]
        distance = self.pixel.compare(first[1:end], second[1:end])
        return distance + self.weight * self.percept.compare(first[end:], second[end:]) if self.weight else distance
