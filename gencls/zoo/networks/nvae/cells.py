"""The cells of NVAE in the layout of NVAE-from-scratch, and the parts that join the encoder, the codes and the decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

RESIDUAL_WEIGHT = 0.1
"""Factor of the residual that a cell adds to its input."""

NORM_EPS, NORM_MOMENTUM = 1e-5, 0.05
"""Constants of batch norm in the public codes (NVAE, section 3.1)."""

USUAL_NORM = 3**-0.5
"""Mean norm of the filters that ``nn.Conv2d`` starts with: n uniform numbers within 1 / sqrt(n)."""


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the momentum of the public codes."""
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


def filter_norms(weight: Tensor) -> Tensor:
    """The L2 norm of the weights of each output channel, (C_out, 1, 1, 1)."""
    out: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
    return out


class WeightNormConv2d(nn.Module):
    """A convolution with the weight g v / ||v||, the norm over all but the output channels. At stride 1 it keeps the size.

    Its keys are those of ``torch.nn.utils.parametrizations.weight_norm``. Modules of that function cannot be pickled, this one
    can.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        start = nn.Conv2d(in_channels, out_channels, kernel)
        self.stride, self.padding = stride, kernel // 2
        self.bias = start.bias
        self.parametrizations = nn.ModuleDict({"weight": _NormAndDirection(start.weight.detach())})

    def effective_weight(self) -> Tensor:
        """The weight of the convolution, (C_out, C_in, kernel, kernel)."""
        out: Tensor = self.parametrizations["weight"]()
        return out

    def forward(self, images: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        out: Tensor = functional.conv2d(images, self.effective_weight(), self.bias, self.stride, self.padding)
        return out


class _NormAndDirection(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.original0 = nn.Parameter(torch.full((len(weight), 1, 1, 1), USUAL_NORM))
        self.original1 = nn.Parameter(weight)

    def forward(self) -> Tensor:
        return self.original1 * (self.original0 / filter_norms(self.original1))


class SqueezeExcitation(nn.Module):
    """Each channel times a number in (0, 1) that depends on the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.linear_1 = nn.Linear(channels, hidden)
        self.linear_2 = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        scale = self.linear_2(self.linear_1(features.mean((2, 3))).relu()).sigmoid()
        out: Tensor = features * scale[:, :, None, None]
        return out


class EncoderCell(nn.Module):
    """skip(x) + 0.1 residual(x), residual: twice batch norm, SiLU, convolution (NVAE, Figure 3b).

    "Down" halves height and width and doubles the channels.
    """

    def __init__(self, channels: int, *, down: bool = False) -> None:
        super().__init__()
        stride, out_channels = (2, 2 * channels) if down else (1, channels)
        self.skip_connection = _DownSkip(channels) if down else nn.Identity()
        self.residual = nn.Sequential(
            batch_norm(channels),
            nn.SiLU(),
            WeightNormConv2d(channels, out_channels, 3, stride=stride),
            batch_norm(out_channels),
            nn.SiLU(),
            WeightNormConv2d(out_channels, out_channels, 3),
            SqueezeExcitation(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; if down to (N, 2 C, H / 2, W / 2)."""
        out: Tensor = self.skip_connection(features) + RESIDUAL_WEIGHT * self.residual(features)
        return out


class _DownSkip(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = WeightNormConv2d(channels, 2 * channels, 1, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.silu(features))
        return out


class DecoderCell(nn.Module):
    """skip(x) + 0.1 residual(x), residual: an inverted bottleneck with a depthwise convolution (NVAE, Figure 3a).

    The bottleneck has ``expansion`` times the channels of the input. "Up" doubles height and width and halves the channels.
    """

    def __init__(self, channels: int, *, expansion: int, up: bool = False) -> None:
        super().__init__()
        wide, out_channels = expansion * channels, channels // 2 if up else channels
        upsampling = [nn.UpsamplingNearest2d(scale_factor=2)] if up else []
        self.skip_connection = _UpSkip(channels) if up else nn.Identity()
        # Batch norm subtracts the mean, so a bias in front of it would have no effect.
        self.residual = nn.Sequential(
            *upsampling,
            batch_norm(channels),
            nn.Conv2d(channels, wide, 1, bias=False),
            batch_norm(wide),
            nn.SiLU(),
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False),
            batch_norm(wide),
            nn.SiLU(),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            batch_norm(out_channels),
            SqueezeExcitation(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; if up to (N, C / 2, 2 H, 2 W)."""
        out: Tensor = self.skip_connection(features) + RESIDUAL_WEIGHT * self.residual(features)
        return out


class _UpSkip(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = WeightNormConv2d(channels, channels // 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        larger = functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.conv(larger)
        return out


class ConstantFlow(nn.Module):
    """The normalizing flow of NVAE-from-scratch: z - b, one constant b per channel.

    The published layers are an autoregressive network. The mask of its last convolution, 1x1, has only zeros, so that its bias
    alone reaches the code. The other weights are here for their keys; no time is spent on them.

    Args:
        channels: channels of the code.
        flipped: whether this is the second flow of a pair, whose masks are turned over.
    """

    def __init__(self, channels: int, *, flipped: bool) -> None:
        super().__init__()
        wide = 6 * channels
        self.layers = nn.Sequential(
            _MaskedConv2d(channels, wide, 3, groups=1, centre=True, flipped=flipped),
            nn.ELU(),
            _MaskedConv2d(wide, wide, 5, groups=wide, centre=False, flipped=flipped),
            nn.ELU(),
            _MaskedConv2d(wide, channels, 1, groups=1, centre=False, flipped=flipped),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        shift: Tensor = self.layers.get_parameter("4.bias")
        return codes - shift[:, None, None]


class _MaskedConv2d(nn.Conv2d):
    """A layer that never runs. The mask keeps the positions before the centre, in reading order, and the centre if asked."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, groups: int, centre: bool, flipped: bool) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups)
        kept = (torch.arange(kernel**2) < kernel**2 // 2 + centre).view(kernel, kernel).to(self.weight.dtype)
        self.register_buffer("mask", (kept.flip(0, 1) if flipped else kept).expand_as(self.weight).clone())


class Add(nn.Module):
    """Feature of the encoder + conv(state of the decoder), conv: 1 x 1, to the channels of the feature."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, feature: Tensor, state: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C', h, w) to (N, C, h, w)."""
        out: Tensor = feature + self.conv(state)
        return out


class Concatenate(nn.Module):
    """conv([state of the decoder, code]), conv: 1 x 1, to the channels of the state."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, state: Tensor, codes: Tensor) -> Tensor:
        """(N, C, h, w) and (N, L, h, w) to (N, C, h, w)."""
        out: Tensor = self.conv(torch.cat([state, codes], dim=1))
        return out
