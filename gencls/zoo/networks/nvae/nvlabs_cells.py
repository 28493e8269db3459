"""The cells of NVAE in the layout of its authors' code."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from gencls.zoo.networks.nvae.cells import NORM_EPS, NORM_MOMENTUM, RESIDUAL_WEIGHT, USUAL_NORM, batch_norm, filter_norms

_LEAST_NORM = 1e-5


class NormedConv2d(nn.Module):
    """A convolution with the weight exp(s) v / (||v|| + 1e-5), the norm over all but the output channels.

    Arguments are those of ``nn.Conv2d``. At stride 1 it keeps the size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = True, groups: int = 1
    ) -> None:
        super().__init__()
        start = nn.Conv2d(in_channels, out_channels, kernel, groups=groups, bias=bias)
        self.stride, self.padding, self.groups = stride, kernel // 2, groups
        self.weight, self.bias = start.weight, start.bias
        self.log_weight_norm = nn.Parameter(torch.full((out_channels, 1, 1, 1), math.log(USUAL_NORM)))

    def effective_weight(self) -> Tensor:
        """The weight of the convolution, (C_out, C_in / groups, kernel, kernel)."""
        direction = self.direction()
        return direction * (self.log_weight_norm.exp() / (filter_norms(direction) + _LEAST_NORM))

    def direction(self) -> Tensor:
        """The vectors v."""
        return self.weight

    def forward(self, features: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        weight = self.effective_weight()
        out: Tensor = functional.conv2d(features, weight, self.bias, self.stride, self.padding, 1, self.groups)
        return out


class ResidualCell(nn.Module):
    """skip(x) + 0.1 residual(x) (NVAE, arXiv:2007.03898, Figure 3).

    Args:
        channels: channels of the input.
        expansion: None for a cell of the encoder: twice batch norm, SiLU, convolution. For a cell of the decoder, an inverted
            bottleneck: how many times wider its depthwise convolution is than the input.
        scale: "down" halves height and width and doubles the channels, in an encoder's cell; "up" does the opposite, in a
            decoder's; "same" does neither.
        squeeze: whether the residual ends with squeeze and excitation.
    """

    def __init__(self, channels: int, *, expansion: int | None, scale: str = "same", squeeze: bool = True) -> None:
        super().__init__()
        out_channels = {"down": 2 * channels, "up": channels // 2, "same": channels}[scale]
        self.skip = {"down": _DownSkip, "up": _up_skip, "same": nn.Identity}[scale](channels)
        if expansion is None:
            stride = 2 if scale == "down" else 1
            self._ops = nn.Sequential(
                _BatchNormConv(channels, out_channels, stride=stride), _BatchNormConv(out_channels, out_channels, stride=1)
            )
        else:
            self._ops = nn.Sequential(_InvertedBottleneck(channels, out_channels, expansion * channels, up=scale == "up"))
        if squeeze:
            self.se = _SqueezeExcitation(out_channels)
        self.squeeze = squeeze

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, to (N, 2 C, H / 2, W / 2) or to (N, C / 2, 2 H, 2 W)."""
        residual = self._ops(features)
        if self.squeeze:
            residual = self.se(residual)
        out: Tensor = self.skip(features) + RESIDUAL_WEIGHT * residual
        return out


class AutoregressiveFlow(nn.Module):
    """z - m(z). m sees only the code's elements before each one, so the Jacobian is 1 (NVAE, section 3.2).

    Before an element come those of the rows above, those to its left, and the earlier channels at its position.

    Args:
        channels: channels of the code.
        mirrored: whether the order of the positions is turned around.
    """

    def __init__(self, channels: int, *, mirrored: bool) -> None:
        super().__init__()
        wide = 6 * channels
        first = _MaskedConv2d(channels, wide, 3, strict=True, mirrored=mirrored, bias=False)
        second = _MaskedConv2d(wide, wide, 5, strict=False, mirrored=mirrored, bias=False, groups=wide)
        self.conv = nn.ModuleDict({"convz": nn.Sequential(first, nn.ELU(), second, nn.ELU())})
        self.mu = nn.ModuleDict({"conv_0": _MaskedConv2d(wide, channels, 1, strict=False, mirrored=mirrored)})

    def forward(self, codes: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        hidden = functional.elu(self.conv["convz"](codes))  # the second ELU in a row, as published
        out: Tensor = codes - self.mu["conv_0"](hidden)
        return out


class _MaskedConv2d(NormedConv2d):
    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        strict: bool,
        mirrored: bool,
        bias: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, bias=bias, groups=groups)
        # The mask is no part of a checkpoint, so it has numbers even while the weights wait on the meta device for theirs.
        device = "cpu" if self.weight.is_meta else self.weight.device
        mask = _causal_mask(in_channels, out_channels, kernel, strict=strict, depthwise=groups > 1)
        self.register_buffer("mask", (mask.flip(2, 3) if mirrored else mask).to(device), persistent=False)

    def direction(self) -> Tensor:
        return self.weight * self.mask


def _causal_mask(in_channels: int, out_channels: int, kernel: int, *, strict: bool, depthwise: bool) -> Tensor:
    """(C_out, C_in or 1, kernel, kernel) on the CPU: 1 for what comes before an element, and for the element unless strict."""
    with torch.device("cpu"):
        position = torch.arange(kernel**2).view(kernel, kernel)
        before = (position < kernel**2 // 2).float()
        centre = (position == kernel**2 // 2).float()
        if depthwise:
            channels = torch.full((out_channels, 1), float(not strict))
        else:  # the wider side has a block of consecutive channels per channel of the narrower one
            blocks = min(in_channels, out_channels)
            source = torch.arange(in_channels) * blocks // in_channels
            target = torch.arange(out_channels)[:, None] * blocks // out_channels
            channels = (source < target + (not strict)).float()
        return before + centre * channels[:, :, None, None]


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.se = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = features * self.se(features.mean((2, 3)))[:, :, None, None]
        return out


class _BatchNormSiLU(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        return functional.silu(super().forward(features))


class _BatchNormConv(nn.Module):
    def __init__(self, channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.bn_act = _BatchNormSiLU(channels)
        self.conv_0 = NormedConv2d(channels, out_channels, 3, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.conv_0(self.bn_act(features))
        return out


class _InvertedBottleneck(nn.Module):
    def __init__(self, channels: int, out_channels: int, wide: int, *, up: bool) -> None:
        super().__init__()
        upsampling = [nn.UpsamplingNearest2d(scale_factor=2)] if up else []
        # Batch norm subtracts the mean, so a bias in front of it would have no effect.
        self.conv = nn.Sequential(
            *upsampling,
            _wrapped_batch_norm(channels),
            _wrapped(nn.Conv2d(channels, wide, 1, bias=False), _BatchNormSiLU(wide)),
            _wrapped(nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), _BatchNormSiLU(wide)),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            _wrapped_batch_norm(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.conv(features)
        return out


def _wrapped(*layers: nn.Module) -> nn.Sequential:
    """A sequence whose keys are conv.0, conv.1."""
    return nn.Sequential(OrderedDict(conv=nn.Sequential(*layers)))


def _wrapped_batch_norm(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(bn=batch_norm(channels)))


class _DownSkip(nn.Module):
    """Four convolutions of stride 2. Each sees the maps moved by another one of the four pixels that become one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = 2 * channels // 4
        widths = (quarter, quarter, quarter, 2 * channels - 3 * quarter)
        self.conv_1, self.conv_2, self.conv_3, self.conv_4 = (NormedConv2d(channels, w, 1, stride=2) for w in widths)

    def forward(self, features: Tensor) -> Tensor:
        active = functional.silu(features)
        rows, columns = active[:, :, 1:], active[:, :, :, 1:]
        parts = (self.conv_1(active), self.conv_2(active[:, :, 1:, 1:]), self.conv_3(columns), self.conv_4(rows))
        return torch.cat(parts, dim=1)


def _up_skip(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.UpsamplingBilinear2d(scale_factor=2), NormedConv2d(channels, channels // 2, 1, bias=False))
