"""Transposed convolutions of several decoders at once, in the form that a CPU computes fastest."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["relu", "elu", "sigmoid"]
Size = tuple[int, ...]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu, "sigmoid": torch.sigmoid}
_IN_PLACE: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "elu": F.elu_, "sigmoid": torch.sigmoid_}

# A CPU computes elements that do not fill a last pair of vector registers (AVX-512) one by one, which rounds differently.
_VECTORS = 32


class Layer(ABC):
    """A transposed convolution for G classes: maps (N, G * in, h, w) to (N, G * out, h', w'), all channels last.

    Attributes:
        columns: neighbouring columns of the result that lie in its channels: (N, G * columns * out, h', w' / columns).
    """

    columns = 1

    @abstractmethod
    def __call__(self, maps: Tensor) -> Tensor:
        """Maps to maps, as above."""


class Transposed(Layer):
    """Torch's own transposed convolution."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: Size, padding: Size) -> None:
        """Take weight (G, in, out, k, k) and bias (G, out)."""
        self.groups, self.stride, self.padding = len(weight), stride, padding
        self.weight, self.bias = channels_last(weight).flatten(0, 1), bias.flatten()

    def __call__(self, maps: Tensor) -> Tensor:
        return F.conv_transpose2d(maps, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


class ColumnPairs(Layer):
    """A convolution that makes two neighbouring columns at once, for stride 1. Its kernel is one column wider.

    Few output channels leave most of a CPU's vector registers empty, and convolutions are faster than transposed ones.
    """

    columns = 2

    def __init__(self, weight: Tensor, bias: Tensor, padding: Size) -> None:
        """Take weight (G, in, out, k, k) and bias (G, out)."""
        self.groups = len(weight)
        self.transposed, self.padding = channels_last(weight).flatten(0, 1), padding
        flipped = weight.transpose(1, 2).flip(3, 4)
        pairs = torch.stack([F.pad(flipped, (column, 1 - column)) for column in range(2)], dim=1)
        self.weight = pairs.flatten(0, 2).to(memory_format=torch.channels_last)
        self.bias = bias.unsqueeze(1).expand(-1, 2, -1).flatten()
        self.around = tuple(size - 1 - pad for size, pad in zip(weight.shape[3:], padding, strict=True))
        self.doubled = self if self.groups > 1 else ColumnPairs(weight.repeat(2, 1, 1, 1, 1), bias.repeat(2, 1), padding)

    def __call__(self, maps: Tensor) -> Tensor:
        if self.groups > 1:
            return cast(Tensor, _PairedColumns.apply(maps, self))
        # This is twice the work. But for a single group a CPU takes another kernel, which is no faster here and rounds
        # differently.
        return cast(Tensor, _PairedColumns.apply(maps.repeat(1, 2, 1, 1), self.doubled))[:, : len(self.bias)]


class _PairedColumns(torch.autograd.Function):
    """The function of ColumnPairs. Its gradient is the plain convolution that the transposed one has."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, layer: ColumnPairs) -> Tensor:
        return F.conv2d(maps, layer.weight, layer.bias, (1, 2), layer.around, groups=layer.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ColumnPairs], output: Tensor) -> None:
        ctx.layer = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer: ColumnPairs = ctx.layer
        count, _, height, width = gradient.shape
        apart = gradient.permute(0, 2, 3, 1).reshape(count, height, width, layer.groups, 2, -1).transpose(3, 4)
        columns = apart.reshape(count, height, 2 * width, -1).permute(0, 3, 1, 2)
        return F.conv2d(columns, layer.transposed, None, 1, layer.padding, groups=layer.groups), None


class Pointwise(Layer):
    """Matrix products instead of torch's 1 x 1 convolution, which rounds differently in batches of less than 16."""

    def __init__(self, weight: Tensor, bias: Tensor, columns: int) -> None:
        """Take weight (G, in, out, 1, 1) and bias (G, out), and how many columns lie in the channels of the maps."""
        self.weight = torch.stack([torch.block_diag(*[one] * columns) for one in weight[..., 0, 0]])
        self.bias = bias.repeat(1, columns).unsqueeze(1)
        self.out = weight.shape[2]

    def __call__(self, maps: Tensor) -> Tensor:
        (count, _, height, width), groups = maps.shape, len(self.weight)
        rows = maps.permute(0, 2, 3, 1).reshape(count * height * width, groups, -1).transpose(0, 1)
        pixels = torch.baddbmm(self.bias, rows, self.weight).view(groups, count, height, -1, self.out)
        return pixels.permute(1, 0, 4, 2, 3).flatten(1, 2)


def activate(name: Activation, maps: Tensor, *, in_place: bool = False) -> Tensor:
    """Apply an activation to each element in the same way, wherever it lies in the batch."""
    if name == "relu" or maps.numel() % _VECTORS == 0:
        return (_IN_PLACE if in_place else _ACTIVATIONS)[name](maps)
    last = maps.is_contiguous(memory_format=torch.channels_last)
    flat = (maps.permute(0, 2, 3, 1) if last else maps).flatten()
    done = _ACTIVATIONS[name](F.pad(flat, (0, -len(flat) % _VECTORS)))[: len(flat)]
    (count, channels, height, width) = maps.shape
    return done.view(count, height, width, channels).permute(0, 3, 1, 2) if last else done.view(maps.shape)


def layers_of(
    weights: Sequence[tuple[Tensor, Tensor]], strides: Sequence[Size], paddings: Sequence[Size], *, width: int
) -> list[Layer]:
    """The layers of G classes from weights (G, in, out, k, k) and biases (G, out), for first maps of a width."""
    pointwise = [
        weight.shape[3:] == (1, 1) and stride == (1, 1) and padding == (0, 0)
        for (weight, _), stride, padding in zip(weights, strides, paddings, strict=True)
    ]
    layers: list[Layer] = []
    for i, (weight, bias) in enumerate(weights):
        columns = layers[-1].columns if layers else 1
        width = (width - 1) * strides[i][1] - 2 * paddings[i][1] + weight.shape[4]
        if pointwise[i]:
            layers.append(Pointwise(weight, bias, columns))
        elif weight.device.type == "cpu" and strides[i] == (1, 1) and width % 2 == 0 and pointwise[i + 1 : i + 2] == [True]:
            layers.append(ColumnPairs(weight, bias, paddings[i]))
        else:
            layers.append(Transposed(weight, bias, strides[i], paddings[i]))
    return layers


def channels_last(weight: Tensor) -> Tensor:
    """The same weight (G, in, out, k, k), in memory (G, in, k, k, out)."""
    return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
