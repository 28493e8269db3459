"""A-VAE: the autoencoder with a style-based generator, and the critic that it is trained against."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.core.generator import Latents
from gencls.core.images import check_image_shape
from gencls.zoo.networks.parts.margins import central_margins, crop

_SLOPE = 0.2  # slope of the leaky ReLU
_TINY = 1e-8


class AVAE(nn.Module):
    """A small copy of an image is encoded; a style-based generator makes a realisation of the image at full size.

    The encoder gives mean and log-variance of a latent of 4 x 4 pixels, and the maps after its first halving. The generator
    starts from a learned constant of 4 x 4 pixels. Each size has two convolutions; the first one doubles the size, except at
    the start. After each come scaled noise, leaky ReLU and an instance norm. The style, a function of the latent, gives the
    norm's scale and shift. The encoder's maps join the generator's maps of the same size.

    Source: Zhou et al., "Manifold Projection for Adversarial Defense on Face Recognition", ECCV 2020, in the form of the MLVGM
    paper's code (encoder's maps and noise). That code pools the image to 32 x 32 pixels, from 64, 128 or 256. Here the default
    pools by a factor of 2, as there from 64. Deviations: sizes double by nearest neighbours at every step; images whose side is
    no power of 2 are padded with zeros.

    Args:
        image_shape: (C, H, W) of the images.
        channels: channels of the generator at 4, 8, 16, ... pixels. H and W are at most the last of these sizes, and above half
            of it.
        latent_channels: channels of the latent; even.
        style_dim: numbers in a style.
        style_layers: linear layers between latent and style.
        pool: factor that shrinks the image for the encoder, a power of 2; at least 16 pixels must be left.

    Raises:
        GenclsError: for sizes that do not fit together.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        channels: Sequence[int] = (64, 64, 32, 16),
        latent_channels: int = 64,
        style_dim: int = 64,
        style_layers: int = 4,
        pool: int = 2,
    ) -> None:
        super().__init__()
        side = 2 ** (len(channels) + 1)
        fits = len(image_shape) == 3 and all(side // 2 < length <= side for length in image_shape[1:])
        numbers = min(*image_shape, *channels, latent_channels, style_dim, style_layers, pool)
        if not fits or numbers < 1 or latent_channels % 2 or pool.bit_count() != 1 or side // pool < 16:
            raise GenclsError(
                f"AVAE: expected numbers >= 1, an even latent_channels, H and W above {side // 2} and at most {side} for "
                f"{len(channels)} sizes, and a power of 2 to pool by that leaves 16 pixels; got image_shape "
                f"{tuple(image_shape)}, channels {tuple(channels)}, latent_channels {latent_channels}, style_dim {style_dim}, "
                f"style_layers {style_layers} and pool {pool}"
            )
        colours, height, width = image_shape
        self.image_shape = (colours, height, width)
        self.side, self.pool = side, pool
        self._margins = central_margins((height, width), (side, side))
        halvings = (side // pool // 4).bit_length() - 1
        widths = [max(1, 2 * latent_channels // 2**i) for i in reversed(range(halvings))]  # ..., latent, 2 latent
        self.encoder = nn.ModuleList(_Down(b, a) for b, a in zip([colours, *widths], widths, strict=False))
        numbers_in = 16 * latent_channels
        sizes = [numbers_in, *[style_dim] * style_layers]
        self.style = nn.ModuleList(_EqualLinear(b, a) for b, a in zip(sizes, sizes[1:], strict=False))
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.blocks = nn.ModuleList()
        self.skip_level = (side // pool // 2).bit_length() - 3
        before = channels[0]
        for level, after in enumerate(channels):
            self.blocks.append(_Styled(before, after, style_dim, first=level == 0))
            before = after + (widths[0] if level == self.skip_level else 0)
        self.to_image = _EqualConv(before, colours, 1)

    def encode(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) in [0, 1] to the encoder's maps, mean and log-variance, each of the last two (N, L, 4, 4).

        Raises:
            GenclsError: for images of another shape.
        """
        check_image_shape(images, self.image_shape, name="AVAE")
        maps = F.avg_pool2d(self.padded(images), self.pool)
        skip = maps = self.encoder[0](maps)
        for block in list(self.encoder)[1:]:
            maps = block(maps)
        mean, log_variance = maps.chunk(2, dim=1)
        return skip, mean, log_variance

    def noise(self, encoded: Latents) -> Latents:
        """Standard normal numbers: (N, L, 4, 4) for the latent, and (N, 1, h, w) for the maps at each size."""
        mean = encoded[1]
        sizes = [4 * 2**level for level in range(len(self.blocks))]
        maps = (torch.randn(len(mean), 1, size, size, device=mean.device, dtype=mean.dtype) for size in sizes)
        return torch.randn_like(mean), *maps

    def realise(self, encoded: Latents, noise: Latents, *, temperature: float = 1.0) -> Tensor:
        """The images that the generator makes, (N, C, side, side), most values in [-1, 1]."""
        skip, mean, log_variance = encoded
        latents = mean + temperature * (0.5 * log_variance).exp() * noise[0]
        style = latents.flatten(1)
        style = style * (style.square().mean(1, keepdim=True) + _TINY).rsqrt()
        for layer in self.style:
            style = F.leaky_relu(layer(style), _SLOPE)
        maps = self.constant.expand(len(mean), -1, -1, -1)
        for level, block in enumerate(self.blocks):
            maps = block(maps, style, noise[level + 1])
            if level == self.skip_level:
                maps = torch.cat([maps, skip], dim=1)
        image: Tensor = self.to_image(maps)
        return image

    def decode(self, encoded: Latents, noise: Latents, *, temperature: float = 1.0) -> Tensor:
        """A realisation of each image, (N, C, H, W) in [0, 1]."""
        return self.cropped(self.realise(encoded, noise, temperature=temperature)).clamp(0.0, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        """One realisation of each image (N, C, H, W) in [0, 1]."""
        encoded = self.encode(images)
        return self.decode(encoded, self.noise(encoded))

    def padded(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to (N, C, side, side) in [-1, 1], with margins of -1."""
        return F.pad(2 * images - 1, self._margins, value=-1.0)

    def cropped(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`padded`."""
        return (crop(images, self._margins) + 1) / 2


class AVAECritic(nn.Module):
    """Images to one number each, higher for real ones: convolutions with instance norm; each block halves the size.

    Args:
        colours: C, channels of the images.
        channels: channels at 4, 8, 16, ... pixels, as in the generator.
    """

    def __init__(self, colours: int, channels: Sequence[int]) -> None:
        super().__init__()
        down = list(reversed(channels))
        self.from_image = _EqualConv(colours, down[0], 1)
        self.blocks = nn.ModuleList(_CriticBlock(b, a) for b, a in zip(down, down[1:], strict=False))
        self.last = nn.Sequential(
            _EqualConv(down[-1], down[-1], 3),
            nn.LeakyReLU(_SLOPE),
            _EqualConv(down[-1], down[-1], 4, padding=0),
            nn.LeakyReLU(_SLOPE),
            nn.Flatten(),
            _EqualLinear(down[-1], 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, side, side) in [-1, 1] to (N,)."""
        maps = self.from_image(images)
        for block in self.blocks:
            maps = block(maps)
        values: Tensor = self.last(maps)
        return values.squeeze(1)


class _EqualConv(nn.Module):
    """Convolution with weights sqrt(2 / fan in) w, w standard normal at the start: an equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / (inputs * kernel * kernel))
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.scale * self.weight, self.bias, self.stride, self.padding)


class _EqualLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / inputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.scale * self.weight, self.bias)


class _Blur(nn.Module):
    """The filter outer([1, 2, 1]) / 16."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        channels = maps.shape[1]
        return F.conv2d(maps, self.get_buffer("kernel").expand(channels, 1, 3, 3), padding=1, groups=channels)


class _Down(nn.Module):
    """Two convolutions; the second one halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _EqualConv(inputs, outputs, 3)
        self.second = _EqualConv(outputs, outputs, 3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        return F.leaky_relu(self.second(F.leaky_relu(self.first(maps), _SLOPE)), _SLOPE)


class _Modulated(nn.Module):
    """Noise times a learned number per channel, leaky ReLU, and an instance norm with the scale and shift of the style."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.noise_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.affine = _EqualLinear(style_dim, 2 * channels)
        self.affine.bias.data[:channels] = 1.0

    def forward(self, maps: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        modulated: Tensor = scale * F.instance_norm(F.leaky_relu(maps + self.noise_scale * noise, _SLOPE)) + shift
        return modulated


class _Styled(nn.Module):
    """The generator's part at one size."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, first: bool) -> None:
        super().__init__()
        self.up = None if first else nn.Sequential(nn.Upsample(scale_factor=2), _EqualConv(inputs, outputs, 3), _Blur())
        self.first = _Modulated(outputs, style_dim)
        self.conv = _EqualConv(outputs, outputs, 3)
        self.second = _Modulated(outputs, style_dim)

    def forward(self, maps: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        maps = self.first(maps if self.up is None else self.up(maps), style, noise)
        modulated: Tensor = self.second(self.conv(maps), style, noise)
        return modulated


class _CriticBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _EqualConv(inputs, outputs, 3)
        self.blur = _Blur()
        self.second = _EqualConv(outputs, outputs, 3)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.leaky_relu(F.instance_norm(self.first(maps)), _SLOPE)
        halved: Tensor = F.avg_pool2d(self.second(self.blur(maps)), 2)
        return F.leaky_relu(F.instance_norm(halved), _SLOPE)
