"""The networks of LPIPS (VGG-16, AlexNet, SqueezeNet 1.1, and shift-tolerant kin of the first two) and of DISTS (VGG-16).

They are sequences whose parts have the numbers of the published networks, so that published files load as they are. What lies
behind the last map is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core import check_settings

__all__ = ["TRUNKS", "Trunk", "TrunkName"]

TrunkName = Literal["vgg", "alex", "squeeze", "shift-tolerant-vgg", "shift-tolerant-alex"]
"""The names that the packages lpips and stlpips-pytorch give to their networks."""

_VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of the convolutions of VGG-16; 0 is a pooling."""


class Trunk(nn.Sequential):
    """Images (N, 3, H, W), normalised as the network was trained, to its maps (N, c, h, w), from the first to the last."""

    taken: tuple[int, ...] = ()
    """The numbers of the layers whose outputs are maps."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the taken layers."""
        return tuple(self._maps(images))

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        for number, layer in enumerate(self):
            images = layer(images)
            if number in self.taken:
                yield images


def _trunk(layers: list[nn.Module], taken: tuple[int, ...]) -> Trunk:
    trunk = Trunk(*layers)
    trunk.taken = taken
    return trunk


class _Fire(nn.Module):
    """The part of SqueezeNet: a 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution side by side."""

    def __init__(self, channels: int, few: int, many: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, few, 1)
        self.expand1x1 = nn.Conv2d(few, many, 1)
        self.expand3x3 = nn.Conv2d(few, many, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        few = self.squeeze(maps).relu()
        return torch.cat((self.expand1x1(few), self.expand3x3(few)), 1).relu()


class _Blur(nn.Module):
    """Every second pixel after the binomial filter 1-2-1, with two mirrored pixels at each side.

    Source: Zhang 2019, arXiv:1904.11486; the padding is that of shift-tolerant LPIPS.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(taps, taps).expand(channels, 1, 3, 3).clone())

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(F.pad(maps, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=len(self.filt))


class _Root(nn.Module):
    """The root of every second pixel's mean square under the binomial filter 1-2-1: the pooling of DISTS."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _Blur(channels).filt, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        power = F.conv2d(maps.square(), self.filt, stride=2, padding=1, groups=len(self.filt))
        return (power + 1e-12).sqrt()


def _vgg() -> Trunk:
    return _trunk(_vgg_layers(lambda channels: [nn.MaxPool2d(2)]), (3, 8, 15, 22, 29))


def _tolerant_vgg() -> Trunk:
    return _trunk(_vgg_layers(lambda channels: [nn.MaxPool2d(2, 1), _Blur(channels)]), (3, 9, 17, 25, 33))


def _structure_vgg() -> Trunk:
    return _trunk(_vgg_layers(lambda channels: [_Root(channels)]), (3, 8, 15, 22, 29))


def _vgg_layers(pool: Callable[[int], list[nn.Module]]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else pool(channels)
        channels = width or channels
    return layers


def _alex() -> Trunk:
    first = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    second = [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    return _trunk([*first, *second, *_alex_end()], (1, 4, 7, 9, 11))


def _tolerant_alex() -> Trunk:
    first = [nn.Conv2d(3, 64, 11, 1, 2), _Blur(64), nn.ReLU(), nn.MaxPool2d(3, 1), _Blur(64)]
    second = [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 1), _Blur(192)]
    return _trunk([*first, *second, *_alex_end()], (2, 6, 10, 12, 14))


def _alex_end() -> list[nn.Module]:
    widths = ((192, 384), (384, 256), (256, 256))
    return [layer for width in widths for layer in (nn.Conv2d(*width, 3, padding=1), nn.ReLU())]


def _squeeze() -> Trunk:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    first = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool()]
    second = [_Fire(64, 16, 64), _Fire(128, 16, 64), pool(), _Fire(128, 32, 128), _Fire(256, 32, 128), pool()]
    third = [_Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256)]
    return _trunk([*first, *second, *third], (1, 4, 7, 9, 10, 11, 12))


@dataclass(frozen=True)
class Published:
    """A published trunk.

    Attributes:
        title: its name for messages.
        make: makes one with random weights.
        source: where its file comes from.
        smallest: height and width of the smallest images that it takes.
    """

    title: str
    make: Callable[[], Trunk]
    source: str
    smallest: int

    def __post_init__(self) -> None:
        """Check the types."""
        check_settings(self)


def _torchvision(file: str) -> str:
    return f"torchvision's file {file}, from https://download.pytorch.org/models/{file}"


def _stlpips(file: str) -> str:
    return f"the file {file} of the package stlpips-pytorch (pip install stlpips-pytorch)"


TRUNKS: dict[str, Published] = {
    "vgg": Published("VGG-16", _vgg, _torchvision("vgg16-397923af.pth"), 16),
    "dists": Published("VGG-16", _structure_vgg, _torchvision("vgg16-397923af.pth"), 1),
    "alex": Published("AlexNet", _alex, _torchvision("alexnet-owt-7be5be79.pth"), 31),
    "squeeze": Published("SqueezeNet 1.1", _squeeze, _torchvision("squeezenet1_1-b8a52dc0.pth"), 17),
    "shift-tolerant-vgg": Published("shift-tolerant VGG-16", _tolerant_vgg, _stlpips("vgg_shift_tolerant.pth"), 18),
    "shift-tolerant-alex": Published("shift-tolerant AlexNet", _tolerant_alex, _stlpips("alex_shift_tolerant.pth"), 21),
}
"""The published trunks by name."""
