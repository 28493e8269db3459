"""Layer tables of the E-ABS paper, and two of ours for larger photos: all networks of one data set are sized from one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from gencls.core.errors import GenclsError
from gencls.core.names import did_you_mean


class ConvLayer(NamedTuple):
    """One row of Table 2.1: a square convolution or transposed convolution."""

    channels: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Architecture:
    """The encoder, decoder and discriminator of one data set.

    Attributes:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
        latent_dim: length of the latent vector.
        encoder: convolutions, from the image down.
        decoder: transposed convolutions, from the latent up; the last one makes the image.
        discriminator: hidden neurons of the latent discriminator of E-ABS.
    """

    in_channels: int
    image_size: int
    latent_dim: int
    encoder: tuple[ConvLayer, ...]
    decoder: tuple[ConvLayer, ...]
    discriminator: tuple[int, ...]


def _layers(*rows: tuple[int, int, int, int]) -> tuple[ConvLayer, ...]:
    return tuple(ConvLayer(*row) for row in rows)


# The table prints "1 1 1" for the last decoder layer of MNIST. Padding 0 is the only reading that gives 28 x 28 pixels.
_MNIST = Architecture(
    in_channels=1,
    image_size=28,
    latent_dim=10,
    encoder=_layers((16, 5, 2, 2), (32, 5, 2, 2), (64, 5, 2, 2), (64, 4, 1, 1)),
    decoder=_layers((32, 4, 1, 0), (32, 5, 2, 0), (16, 5, 2, 0), (8, 4, 1, 0), (1, 1, 1, 0)),
    discriminator=(256, 128),
)
_SUPERTRAFFIC10 = Architecture(
    in_channels=3,
    image_size=32,
    latent_dim=16,
    encoder=_layers((16, 5, 2, 2), (32, 5, 2, 2), (64, 5, 2, 2), (128, 4, 1, 0)),
    decoder=_layers((64, 4, 1, 0), (64, 4, 2, 1), (32, 4, 2, 1), (16, 4, 2, 1), (3, 1, 1, 0)),
    discriminator=(256, 128),
)
_SVHN = Architecture(
    in_channels=3,
    image_size=32,
    latent_dim=40,
    encoder=_layers((32, 5, 2, 2), (64, 5, 2, 2), (128, 5, 2, 2), (128, 4, 1, 0)),
    decoder=_layers((64, 4, 1, 0), (64, 4, 2, 1), (32, 4, 2, 1), (16, 4, 2, 1), (3, 1, 1, 0)),
    discriminator=(512, 256),
)

TABLE_2_1: Mapping[str, Architecture] = MappingProxyType(
    {"mnist": _MNIST, "fashion-mnist": _MNIST, "supertraffic10": _SUPERTRAFFIC10, "svhn": _SVHN}
)
"""Thesis "Generative classifiers", Table 2.1, by data set."""


_PHOTO_DECODER = _layers((96, 4, 1, 0), (64, 4, 2, 1), (32, 4, 2, 1), (16, 4, 2, 1), (16, 4, 2, 1), (3, 1, 1, 0))
_PHOTO_64 = Architecture(
    in_channels=3,
    image_size=64,
    latent_dim=40,
    encoder=_layers((16, 5, 2, 2), (32, 5, 2, 2), (64, 5, 2, 2), (96, 5, 2, 2), (128, 4, 1, 0)),
    decoder=_PHOTO_DECODER,
    discriminator=(512, 256),
)
_PHOTO_128 = Architecture(
    in_channels=3,
    image_size=128,
    latent_dim=40,
    encoder=_layers((16, 5, 2, 2), (32, 5, 2, 2), (64, 5, 2, 2), (96, 5, 2, 2), (96, 5, 2, 2), (128, 4, 1, 0)),
    decoder=(*_PHOTO_DECODER[:-1], *_layers((8, 4, 2, 1), (3, 1, 1, 0))),
    discriminator=(512, 256),
)

PHOTOS: Mapping[str, Architecture] = MappingProxyType({"photo-64": _PHOTO_64, "photo-128": _PHOTO_128})
"""For photos of 64 and 128 pixels, which the thesis does not have: one more layer per halving than in its table."""


def find_architecture(name: str) -> Architecture:
    """Look up a column of Table 2.1, or of ours, by a key of ``TABLE_2_1`` or ``PHOTOS``.

    Raises:
        GenclsError: for an unknown name, listing the known ones.
    """
    known = {**TABLE_2_1, **PHOTOS}
    if name not in known:
        raise GenclsError(f"unknown architecture {name!r}; {did_you_mean(name, known)}expected one of {', '.join(known)}")
    return known[name]
