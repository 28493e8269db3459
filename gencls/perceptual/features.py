"""The distance of deep features: what a network sees in two images."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gencls.core import Embedding, GenclsError, ImageDistance, checked
from gencls.perceptual.maps import FeatureMaps, frozen_copy
from gencls.perceptual.shapes import check_one_shape

__all__ = ["FeatureDistance"]

_DEAD = 1e-12
"""A channel whose mean square is smaller counts as 0: its direction is rounding, its second derivative overflows float32."""


class FeatureDistance(ImageDistance):
    """Squared L2 distance of the maps of K layers: 1/K sum_k 1/c_k ||norm(F_k(x)) - norm(F_k(x'))||_2^2.

    F_k(x) has c_k channels of h_k x w_k. ``norm`` divides each channel by its root mean square, so that its L2 norm is
    sqrt(w_k h_k). A channel whose mean square is below 1e-12 becomes 0, with gradient 0. As in the paper, the squares are
    summed over the places of a map. The embedding holds one normalised map per layer, (N, c_k, h_k, w_k).

    The distance keeps a frozen copy of the network in eval mode; the network that was given stays as it is.

    Source: the GAN-inversion thesis, eq. 3.6. It normalises on CIFAR10, not on ImageNet.

    Args:
        network: images (N, C, H, W) in [0, 1] to anything; it normalises its input itself.
        layers: names of the network's parts, as ``network.named_modules()`` has them; their outputs (N, c, h, w) or (N, c) are
            the maps. Parts behind the last one do not run. If a part runs more than once, its first run counts. None: the
            network returns its maps itself, one tensor, a sequence or a mapping.
        normalize: whether channels are normalised.
        channels: the C that the network takes; None reads it from the network's first convolution, and a network without
            convolutions takes any.
        grey_as_rgb: whether images with one channel are repeated for a network that takes three.

    Raises:
        GenclsError: a layer is unknown, named twice or does not run; images have another number of channels or another dtype
            than the network; a map has another shape, has only one pixel (its norm would leave only signs) or is overwritten
            in place.
    """

    @checked
    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        normalize: bool = True,
        channels: int | None = None,
        grey_as_rgb: bool = False,
    ) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        self.normalize = normalize
        self._maps = FeatureMaps(self.network, layers, channels=channels, grey_as_rgb=grey_as_rgb)

    @property
    def layers(self) -> Sequence[str] | None:
        """Names of the layers whose maps are compared; None if the network returns them."""
        return self._maps.layers

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the network of a distance stays in eval mode."""
        return super().train(False)

    def extra_repr(self) -> str:
        """The settings."""
        return f"layers={self.layers}, normalize={self.normalize}, grey_as_rgb={self._maps.grey_as_rgb}"

    def embed(self, images: Tensor) -> Embedding:
        """One map per layer, (N, c, h, w), normalised if the distance normalises."""
        maps = self._maps(images)
        return tuple(_normalized(name, part) for name, part in maps.items()) if self.normalize else tuple(maps.values())

    def compare(self, first: Embedding, second: Embedding) -> Tensor:
        """Distances >= 0, over the leading dimensions of both."""
        check_one_shape(self, first, second, "maps (c, h, w)")
        parts = [(a - b).square().flatten(-3).sum(-1) / a.shape[-3] for a, b in zip(first, second, strict=True)]
        return sum(parts[1:], parts[0]) / len(parts)


def _normalized(name: str, part: Tensor) -> Tensor:
    if part.shape[-2:].numel() == 1:
        raise GenclsError(
            f"FeatureDistance: expected maps of more than one pixel, got {tuple(part.shape)} from layer {name}, of which "
            "normalize=True leaves only the signs; leave the layer out, or set normalize=False"
        )
    flat = part.flatten(-2)
    power: Tensor = torch.linalg.vecdot(flat, flat)[..., None, None] / flat.shape[-1]  # half the time of a mean of squares
    alive = power >= _DEAD
    scale = power.where(alive, power.new_ones(())).rsqrt() * alive
    return part * scale
