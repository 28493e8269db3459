"""The backbone that e4e and the Style Transformer share: IR-SE-50 with a feature pyramid."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from gencls.core.errors import GenclsError

_REDUCTION = 16  # reduction of squeeze and excitation


class StyleEncoder(nn.Module):
    """Images to codes of a StyleGAN2, relative to the average code."""

    num_levels: int
    """L, codes per image."""
    style_dim: int
    """D, numbers in a code."""


class FeaturePyramid(StyleEncoder):
    """Images to maps of three sizes. It is the base of two encoders; the keys of their further layers stand beside its own.

    The residual units have squeeze and excitation (IR-SE), in four stages that each halve height and width. The maps c1, c2, c3
    of the last three stages become

        p2 = up(c3) + conv1x1(c2),  p1 = up(p2) + conv1x1(c1)

    with up bilinear.

    Source: ArcFace (Deng et al. 2019, arXiv:1801.07698) for the units; pixel2style2pixel (Richardson et al. 2021,
    arXiv:2008.00951) for the pyramid.

    Args:
        num_levels: L, codes per image that the whole encoder gives.
        widths: channels of the four stages, at least 16; the last one is also that of the pyramid, and D, numbers in a code.
        units: residual units per stage, at least 1; (3, 4, 14, 3) is IR-SE-50.

    Raises:
        GenclsError: for other numbers.
    """

    def __init__(self, num_levels: int, widths: Sequence[int], units: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 4 or len(units) != 4 or min(widths) < _REDUCTION or min(num_levels, *units) < 1:
            raise GenclsError(
                f"{type(self).__name__}: expected at least one level, four widths >= {_REDUCTION} and four numbers of units "
                f">= 1, got {num_levels}, {tuple(widths)} and {tuple(units)}"
            )
        self.num_levels = num_levels
        self.style_dim = widths[-1]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = nn.Sequential()
        before = widths[0]
        for width, count in zip(widths, units, strict=True):
            self.body.append(_Unit(before, width, stride=2))
            self.body.extend(_Unit(width, width, stride=1) for _ in range(count - 1))
            before = width
        self.ends = [sum(units[: stage + 1]) for stage in range(4)]
        self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
        self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to c3, p2, p1 with 1/16, 1/8 and 1/4 of their height and width."""
        maps = self.input_layer(images)
        stages: list[Tensor] = []
        for first, end in zip([0, *self.ends], self.ends, strict=False):
            maps = self.body[first:end](maps)
            stages.append(maps)
        _, fine, middle, coarse = stages
        p2 = _enlarged(coarse, self.latlayer1(middle))
        return coarse, p2, _enlarged(p2, self.latlayer2(fine))


class _Unit(nn.Module):
    """x -> shortcut(x) + residual(x), without an activation after the sum."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer = (
            None
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            _SqueezeExcitation(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        kept = maps[:, :, :: self.stride, :: self.stride] if self.shortcut_layer is None else self.shortcut_layer(maps)
        out: Tensor = self.res_layer(maps) + kept
        return out


class _SqueezeExcitation(nn.Module):
    """Scales each channel by a function of the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        means = maps.mean((2, 3), keepdim=True)
        gates: Tensor = self.fc2(F.relu(self.fc1(means))).sigmoid()
        return maps * gates


def _enlarged(small: Tensor, large: Tensor) -> Tensor:
    """The small maps, enlarged bilinearly with corners on corners, plus the large ones."""
    return F.interpolate(small, size=large.shape[-2:], mode="bilinear", align_corners=True) + large
