"""The discriminator of StyleGAN2."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError
from gencls.zoo.networks.stylegan.stylegan2 import EqualizedLinear, upfirdn2d

_TINY = 1e-8


class StyleGAN2Discriminator(nn.Module):
    """Images to one number each: high for real ones.

    A 1 x 1 convolution comes first. At each size a residual block halves the size, down to 4 x 4 pixels. There the standard
    deviation over the batch is a further map. A convolution and two linear layers follow.

    Source: Karras et al. 2020, arXiv:1912.04958; the standard deviation over the batch: Karras et al. 2018, arXiv:1710.10196.

    Args:
        channels: channels at 4, 8, 16, ... pixels, as in the generator.
        colours: channels of the images.
        group: most images per standard deviation; fewer if the batch is no multiple of it.

    Raises:
        GenclsError: for a number below 1, or no channels at all.
    """

    def __init__(self, channels: Sequence[int], *, colours: int = 3, group: int = 4) -> None:
        super().__init__()
        if min(*channels, len(channels), colours, group) < 1:
            raise GenclsError(
                f"StyleGAN2Discriminator: expected channels, colours and group of at least 1, got {tuple(channels)}, {colours} "
                f"and {group}"
            )
        self.group = group
        self.colours = colours
        self.size = 2 ** (len(channels) + 1)
        large_to_small = tuple(reversed(channels))
        self.convs = nn.Sequential(
            _Conv(colours, large_to_small[0], 1),
            *(_Block(before, after) for before, after in zip(large_to_small[:-1], large_to_small[1:], strict=True)),
        )
        self.final_conv = _Conv(channels[0] + 1, channels[0], 3)
        self.final_linear = nn.Sequential(
            EqualizedLinear(channels[0] * 16, channels[0], activate=True), EqualizedLinear(channels[0], 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, colours, size, size), most values in [-1, 1], to logits (N,)."""
        maps = self.convs(images)
        maps = torch.cat([maps, self._deviation(maps)], dim=1)
        logits: Tensor = self.final_linear(self.final_conv(maps).flatten(1))
        return logits.squeeze(1)

    def _deviation(self, maps: Tensor) -> Tensor:
        """The standard deviation over the images of a group, as a mean over channels and pixels, (N, 1, 4, 4)."""
        group = math.gcd(len(maps), self.group)
        groups = maps.unflatten(0, (group, -1))
        deviation: Tensor = (groups.var(0, unbiased=False) + _TINY).sqrt().mean((1, 2, 3))
        return deviation.repeat(group).view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])


class _Conv(nn.Module):
    """Convolution whose weights start with unit variance. A blur precedes it if it halves the maps; the activation follows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, activate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.down = down
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        weight = self.weight / math.sqrt(self.weight[0].numel())
        if self.down:
            margin = (kernel + 1) // 2  # for 4 taps and a kernel of 1 or 3
            maps = upfirdn2d(maps, self.get_buffer("kernel"), pad=(margin, margin))
        maps = F.conv2d(maps, weight, self.bias, 2 if self.down else 1, 0 if self.down else kernel // 2)
        return maps if self.bias is None else F.leaky_relu(maps, 0.2) * math.sqrt(2)


class _Block(nn.Module):
    """(residual(x) + skip(x)) / sqrt(2); both halve the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _Conv(inputs, inputs, 3)
        self.conv2 = _Conv(inputs, outputs, 3, down=True)
        self.skip = _Conv(inputs, outputs, 1, down=True, activate=False)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = (self.conv2(self.conv1(maps)) + self.skip(maps)) / math.sqrt(2)
        return out
