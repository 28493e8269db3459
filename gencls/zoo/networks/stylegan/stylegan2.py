"""The generator of StyleGAN2."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError

_TINY = 1e-8


def published_channels(size: int, *, multiplier: int = 2) -> tuple[int, ...]:
    """Channels at 4, 8, ..., ``size`` pixels in the published networks: 512 up to 32 pixels, then 2^14 multiplier / pixels.

    Raises:
        GenclsError: for a size that is no power of two, or is below 4.
    """
    if size < 4 or size.bit_count() != 1:
        raise GenclsError(f"StyleGAN2: expected a size of 4, 8, 16, ... pixels, got {size}")
    pixels = [2**n for n in range(2, size.bit_length())]
    return tuple(512 if side <= 32 else 2**14 * multiplier // side for side in pixels)


class StyleGAN2(nn.Module):
    """Codes to images: each code scales the input channels of one or two convolutions.

    A learned constant of 4 x 4 pixels is convolved with code 0 and coloured with code 1. Each following size has an upsampling
    convolution with code i, a convolution with code i + 1 and a colouring with code i + 2, i = 1, 3, 5, ... Its colours are
    added to the colours of the size before. Keys of the state dict are those of GitHub rosinality/stylegan2-pytorch.

    Truncation and mixing of styles are operations on codes, before the generator: ``torch.lerp(mean_code, codes, psi)`` and
    ``torch.cat([first[:, :i], second[:, i:]], dim=1)``.

    Source: Karras et al. 2020, arXiv:1912.04958.

    Args:
        channels: channels at 4, 8, 16, ... pixels, see :func:`published_channels`.
        style_dim: D, numbers in a code.
        mapping_layers: layers of the network that turns normal numbers into codes.
        colours: C, channels of the images; 3 in the published networks.

    Raises:
        GenclsError: for a number below 1, or no channels at all.
    """

    size: int
    """H = W of the images."""
    num_levels: int
    """L, codes per image: 2 log2(size) - 2."""

    def __init__(self, channels: Sequence[int], *, style_dim: int = 512, mapping_layers: int = 8, colours: int = 3) -> None:
        super().__init__()
        if min(*channels, len(channels), style_dim, mapping_layers, colours) < 1:
            raise GenclsError(
                "StyleGAN2: expected channels, style_dim, mapping_layers and colours of at least 1, got "
                f"{tuple(channels)}, {style_dim}, {mapping_layers} and {colours}"
            )
        self.colours = colours
        self.style_dim = style_dim
        self.size = 2 ** (len(channels) + 1)
        self.num_levels = 2 * len(channels)
        layers = (EqualizedLinear(style_dim, style_dim, rate=0.01, activate=True) for _ in range(mapping_layers))
        self.style = nn.Sequential(_PixelNorm(), *layers)
        self.input = _Constant(channels[0])
        self.conv1 = _StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = _ToRGB(channels[0], style_dim, colours, first=True)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4))
        for index, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            self.convs.append(_StyledConv(before, after, style_dim, upsample=True))
            self.convs.append(_StyledConv(after, after, style_dim))
            self.to_rgbs.append(_ToRGB(after, style_dim, colours))
            for number in (2 * index + 1, 2 * index + 2):
                self.noises.register_buffer(f"noise_{number}", torch.randn(1, 1, 8 * 2**index, 8 * 2**index))

    def mapping(self, normal: Tensor) -> Tensor:
        """Standard normal numbers (..., D) to codes (..., D); their length does not matter."""
        codes: Tensor = self.style(normal)
        return codes

    def forward(self, codes: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Decode.

        Args:
            codes: codes (N, L, D), or (N, D) for the same code at all levels.
            noise: numbers that are added to the maps after each convolution, 2 log2(size) - 3 tensors (1 or N, 1, h, w) of 4,
                8, 8, 16, 16, ... pixels; None takes the network's fixed ones.

        Returns:
            Images (N, C, size, size), most values in [-1, 1], but not clamped.

        Raises:
            GenclsError: for codes of another shape or another number of noise tensors.
        """
        expected = (self.num_levels, self.style_dim)
        if codes.shape[1:] not in (expected, expected[1:]):
            raise GenclsError(f"StyleGAN2: expected codes of shape (N, {expected[0]}, {expected[1]}), got {tuple(codes.shape)}")
        count = self.num_levels - 1
        noise = [self.noises.get_buffer(f"noise_{number}") for number in range(count)] if noise is None else noise
        if len(noise) != count:
            raise GenclsError(f"StyleGAN2: expected {count} noise tensors, got {len(noise)}")
        styles = codes.unbind(1) if codes.ndim == 3 else (codes,) * self.num_levels
        maps = self.conv1(self.input(len(codes)), styles[0], noise[0])
        image: Tensor = self.to_rgb1(maps, styles[1])
        for index, to_rgb in enumerate(self.to_rgbs):
            first = 2 * index
            maps = self.convs[first](maps, styles[first + 1], noise[first + 1])
            maps = self.convs[first + 1](maps, styles[first + 2], noise[first + 2])
            image = to_rgb(maps, styles[first + 3], image)
        return image


class EqualizedLinear(nn.Module):
    """y = W (rate / sqrt(in)) x + rate b, whose weights start with unit variance; the leaky ReLU follows if ``activate``.

    The rate multiplies weights and biases, and so their learning rate. ``bias`` is the initial value.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0, activate: bool = False) -> None:
        super().__init__()
        self.rate, self.activate = rate, activate
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., in) to (..., out)."""
        scale = self.rate / math.sqrt(self.weight.shape[1])
        out = F.linear(features, self.weight * scale, self.bias * self.rate)
        return _leaky_relu(out) if self.activate else out


class ModulatedConv2d(nn.Module):
    """Convolution with W'_noikl = d_no s_ni W_oikl / sqrt(in k^2), where s is an affine function of the code.

    d makes the sum of the squares of W' over i, k, l equal to 1 (eq. 3 of the paper), or is 1. s depends on the input channel
    only, and d on the output channel only. So they multiply the maps before and after an ordinary convolution, and no image
    needs its own weights.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: k, odd.
        style_dim: D, numbers in a code.
        demodulate: whether to scale by d.
        upsample: whether to double height and width, by a transposed convolution and a blur; for k = 3.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style_dim: int, *, demodulate: bool = True, upsample: bool = False
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualizedLinear(style_dim, inputs, bias=1.0)
        self.blur = _Resample(pad=(1, 1)) if upsample else None

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Maps (N, in, H, W) and codes (N, D) to maps (N, out, H, W), or (N, out, 2 H, 2 W) if ``upsample``."""
        weight = self.weight[0] / math.sqrt(self.weight[0, 0].numel())
        scale: Tensor = self.modulation(code)
        maps = maps * scale[:, :, None, None]
        if self.blur is None:
            maps = F.conv2d(maps, weight, padding=weight.shape[-1] // 2)
        else:
            maps = F.conv_transpose2d(maps, weight.transpose(0, 1), stride=2)
        if self.demodulate:
            squares = scale.square() @ weight.square().sum((2, 3)).T
            maps = maps * (squares + _TINY).rsqrt()[:, :, None, None]
        return maps if self.blur is None else self.blur(maps)


def upfirdn2d(maps: Tensor, kernel: Tensor, *, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Upsample with zeros, pad with zeros, and filter each channel by itself.

    Args:
        maps: maps (N, C, H, W).
        kernel: the filter, (h, w); filtering is a convolution in the mathematical sense.
        up: factor of the size; up - 1 zeros follow each value, on both axes.
        pad: zeros before and after, on both axes; >= 0.

    Returns:
        (N, C, up * H + sum(pad) - h + 1, up * W + sum(pad) - w + 1).
    """
    count, channels, height, width = maps.shape
    if up > 1:
        maps = F.pad(maps.reshape(count, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
        maps = maps.reshape(count, channels, height * up, width * up)
    # One group per channel: its gradients take a tenth of the time that images of one channel each take.
    weight = kernel.flip(0, 1).expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(maps, pad * 2), weight, groups=channels)


class _Resample(nn.Module):
    """The filter outer([1, 3, 3, 1]), with the gain of 4 that makes up for zeros between the pixels."""

    def __init__(self, *, up: int = 1, pad: tuple[int, int]) -> None:
        super().__init__()
        self.up, self.pad = up, pad
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(taps, taps))

    def forward(self, maps: Tensor) -> Tensor:
        return upfirdn2d(maps, self.get_buffer("kernel"), up=self.up, pad=self.pad)


class _StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style_dim, upsample=upsample)
        self.noise = _Noise()
        self.activate = _Activation(outputs)

    def forward(self, maps: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        activated: Tensor = self.activate(self.noise(self.conv(maps, code), noise))
        return activated


class _Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor, noise: Tensor) -> Tensor:
        return maps + self.weight * noise


class _Activation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        return _leaky_relu(maps + self.bias.view(-1, 1, 1))


class _ToRGB(nn.Module):
    """Maps to colours, added to the colours of the size before."""

    def __init__(self, inputs: int, style_dim: int, colours: int, *, first: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, colours, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, colours, 1, 1))
        self.upsample = None if first else _Resample(up=2, pad=(2, 1))

    def forward(self, maps: Tensor, code: Tensor, image: Tensor | None = None) -> Tensor:
        colours: Tensor = self.conv(maps, code) + self.bias
        return colours if self.upsample is None else colours + self.upsample(image)


class _Constant(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, count: int) -> Tensor:
        return self.input.expand(count, -1, -1, -1)


class _PixelNorm(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features * (features.square().mean(-1, keepdim=True) + _TINY).rsqrt()


def _leaky_relu(values: Tensor) -> Tensor:
    return F.leaky_relu(values, 0.2) * math.sqrt(2)
