"""A StyleGAN2 for small images, with an encoder like e4e's."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks.parts.margins import crop
from gencls.zoo.networks.stylegan.autoencoders import StyleAutoencoder
from gencls.zoo.networks.stylegan.feature_pyramid import StyleEncoder
from gencls.zoo.networks.stylegan.stylegan2 import EqualizedLinear, StyleGAN2

_SIDE = 4  # height and width of the maps that a head sees
_THIN = 16  # channels of these maps
_COARSE, _MIDDLE = 2, 4  # the first levels that see finer maps: codes of 8 pixels, and of 16 pixels and more


class SmallStyleEncoder(StyleEncoder):
    """Images to codes of a StyleGAN2: one code for all levels, and one addition to it for each further level.

        w_0 = h_0(p3),  w_i = w_0 + h_i(f_i)

    as in e4e (Tov et al. 2021, arXiv:2102.02766). The pyramid p3, p2, p1 has 1/8, 1/4 and 1/2 of the height and width. f_i is
    p3 for i < 2, p2 for i < 4 and p1 above. Three residual units replace IR-SE-50. A head averages its maps to 4 x 4 pixels and
    is linear from there, because e4e's heads of five convolutions each would be most of a small network.

    Args:
        num_levels: L, codes per image.
        style_dim: D, numbers in a code.
        colours: channels of the images.
        widths: channels of the three units.

    Raises:
        GenclsError: for a number below 1, or other than three widths.
    """

    def __init__(self, num_levels: int, style_dim: int, *, colours: int = 3, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        if len(widths) != 3 or min(*widths, num_levels, style_dim, colours) < 1:
            raise GenclsError(
                f"SmallStyleEncoder: expected three widths and other numbers of at least 1, got {tuple(widths)}, num_levels "
                f"{num_levels}, style_dim {style_dim} and colours {colours}"
            )
        self.num_levels, self.style_dim = num_levels, style_dim
        self.stem = nn.Conv2d(colours, widths[0], 3, padding=1)
        self.units = nn.ModuleList(
            _Unit(before, after) for before, after in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, style_dim, 1) for width in widths)
        self.heads = nn.ModuleList(_Head(style_dim) for _ in range(num_levels))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, colours, H, W) in [-1, 1] to codes (N, L, D); H and W are multiples of 8, of 32 pixels or more."""
        maps: Tensor = self.stem(images)
        pyramid: list[Tensor] = []
        for unit, lateral in zip(self.units, self.lateral, strict=True):
            maps = unit(maps)
            pyramid.append(lateral(maps))
        fine, middle, coarse = pyramid
        middle = middle + F.interpolate(coarse, scale_factor=2, mode="nearest")
        fine = fine + F.interpolate(middle, scale_factor=2, mode="nearest")
        first = self.heads[0](coarse)
        codes = [first]
        for level, head in enumerate(self.heads[1:], start=1):
            codes.append(first + head(coarse if level < _COARSE else middle if level < _MIDDLE else fine))
        return torch.stack(codes, dim=1)


class _Unit(nn.Module):
    """x -> skip(x) + residual(x), with half the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.LeakyReLU(0.2),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outputs, outputs, 3, stride=2, padding=1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.skip(F.avg_pool2d(maps, 2)) + self.residual(maps)
        return out


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, _THIN, 1)
        self.linear = EqualizedLinear(_THIN * _SIDE**2, channels)

    def forward(self, maps: Tensor) -> Tensor:
        code: Tensor = self.linear(F.adaptive_avg_pool2d(F.leaky_relu(self.conv(maps), 0.2), _SIDE).flatten(1))
        return code


class SmallStyleAutoencoder(StyleAutoencoder):
    """StyleGAN2 and :class:`SmallStyleEncoder`.

    Images smaller than the generator's, by an even number of pixels, get a black margin before the encoder. After the generator
    the margin is cut off.

    Raises:
        GenclsError: for parts that do not fit together.
    """

    def __init__(self, encoder: SmallStyleEncoder, generator: StyleGAN2, latent_avg: Tensor, *, image_size: int) -> None:
        margin, odd = divmod(generator.size - image_size, 2)
        if margin < 0 or odd:
            raise GenclsError(
                f"SmallStyleAutoencoder: expected images of {generator.size} pixels, as the generator has, less an even "
                f"number; got {image_size}"
            )
        super().__init__(encoder, generator, latent_avg, image_size=image_size, noise_std=1.0)
        self.margin = margin

    @classmethod
    def of_sizes(
        cls,
        image_shape: tuple[int, int, int],
        *,
        channels: Sequence[int],
        style_dim: int,
        mapping_layers: int,
        encoder_widths: Sequence[int],
    ) -> Self:
        """Make an untrained autoencoder for images (C, H, W), H = W; other sizes, and errors, are those of the two parts."""
        colours, size, _ = image_shape
        generator = StyleGAN2(channels, style_dim=style_dim, mapping_layers=mapping_layers, colours=colours)
        encoder = SmallStyleEncoder(generator.num_levels, style_dim, colours=colours, widths=encoder_widths)
        return cls(encoder, generator, torch.zeros(style_dim), image_size=size)

    def padded(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] with the margin, (N, C, size, size)."""
        return F.pad(images, (self.margin,) * 4, value=-1.0)

    def encode(self, images: Tensor) -> Tensor:
        codes: Tensor = self.encoder(self.padded(images))
        return codes

    def frame(self, images: Tensor) -> Tensor:
        return crop(images, (self.margin,) * 4)
