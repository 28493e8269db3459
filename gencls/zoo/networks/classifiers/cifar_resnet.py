"""Residual networks for CIFAR10 and other small images.

Source: He et al. 2016, arXiv:1512.03385, and with pre-activation, arXiv:1603.05027.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.zoo.networks.classifiers.cifar_network import CifarNetwork

_LARGE = 64
"""H = W of the least images whose channels are not put next to each other.

On a CPU torch 2.15 writes beyond its memory in the backward pass of a 1 x 1 convolution with stride 2 over maps of 64 pixels
whose channels are next to each other.
"""


class CifarResNet(CifarNetwork):
    """A 3x3 convolution, stages of basic blocks (all but the first halve the size), average pooling, a linear layer.

    Keys of the state dict are those of GitHub kuangliu/pytorch-cifar (``projections``; four stages of width 64) and
    akamaster/pytorch_resnet_cifar10 (no projections; three stages of width 16).

    Args:
        blocks: number of blocks in each stage; (2, 2, 2, 2) is ResNet-18.
        width: channels of the first stage; each further one has twice as many.
        projections: whether a shortcut between stages is a convolution ("option B" of arXiv:1512.03385); otherwise it leaves
            out every other pixel and adds channels of zeros ("option A").
        num_classes: K.
        mean: mean of each channel in [0, 1] pixel units, see :class:`CifarNetwork`; the default changes no image. One number
            makes a network for grey images.
        std: standard deviation of each channel, as many numbers > 0 in [0, 1] pixel units.
        image_size: H = W of the images, in pixels.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        *,
        width: int = 64,
        projections: bool = True,
        num_classes: int = 10,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        image_size: int = 32,
    ) -> None:
        super().__init__(num_classes, mean, std, image_size)
        self.conv1 = _convolution(len(mean), width)
        self.bn1 = nn.BatchNorm2d(width)
        self.num_stages = len(blocks)
        out = _add_stages(self, blocks, width, lambda before, after, stride: _Block(before, after, stride, projections))
        self.linear = nn.Linear(out, num_classes)

    def logits(self, images: Tensor) -> Tensor:
        return _classified(self, F.relu(self.bn1(self.conv1(images))))


class CifarPreActResNet(CifarNetwork):
    """A CifarResNet with batch norm and ReLU before each convolution of a block; none follow the last block.

    Keys of the state dict are those of GitHub kuangliu/pytorch-cifar. RobustBench's networks with these keys compute something
    else, see :func:`gencls.zoo.networks.classifiers.published.load_robustbench`.

    Its arguments are those of :class:`CifarResNet`.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        *,
        width: int = 64,
        num_classes: int = 10,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        image_size: int = 32,
    ) -> None:
        super().__init__(num_classes, mean, std, image_size)
        self.conv1 = _convolution(len(mean), width)
        self.num_stages = len(blocks)
        self.linear = nn.Linear(_add_stages(self, blocks, width, _PreActBlock), num_classes)

    def logits(self, images: Tensor) -> Tensor:
        if images.device.type == "cpu" and images.shape[-1] < _LARGE:  # convolutions of CPUs prefer it
            # A copy: "contiguous" would leave grey images as they are, and the maps of the first convolution with them.
            images = images.clone(memory_format=torch.channels_last)
        return _classified(self, self.conv1(images))


class _Block(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, before: int, after: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(before, after, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = _convolution(after, after)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            projected = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            self.shortcut = projected if projection else _ZeroChannels(after - before, stride)

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class _PreActBlock(nn.Module):
    """conv2(relu(bn2(conv1(y)))) + shortcut(y) with y = relu(bn1(x)); without a convolution the shortcut is x."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = _convolution(before, after, stride)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = _convolution(after, after)
        self.projected = stride > 1 or before != after
        if self.projected:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        shortcut = self.shortcut(active) if self.projected else maps
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + shortcut


class _ZeroChannels(nn.Module):
    """Leaves out pixels and adds channels of zeros, half of them before the others."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = (channels // 2, channels - channels // 2)
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        return F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _add_stages(network: nn.Module, blocks: Sequence[int], width: int, block: Callable[[int, int, int], nn.Module]) -> int:
    """Add ``layer1``, ``layer2``, ...; gives the number of channels after the last."""
    before = width
    for stage, count in enumerate(blocks):
        after = width * 2**stage
        first = block(before, after, 2 if stage else 1)
        network.add_module(f"layer{stage + 1}", nn.Sequential(first, *(block(after, after, 1) for _ in range(count - 1))))
        before = after
    return before


def _classified(network: CifarResNet | CifarPreActResNet, maps: Tensor) -> Tensor:
    for stage in range(network.num_stages):
        maps = network.get_submodule(f"layer{stage + 1}")(maps)
    logits: Tensor = network.linear(maps.mean(dim=(2, 3)))
    return logits
