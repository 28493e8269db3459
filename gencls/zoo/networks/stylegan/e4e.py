"""The encoder of encoder4editing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.zoo.networks.stylegan.feature_pyramid import FeaturePyramid
from gencls.zoo.networks.stylegan.stylegan2 import EqualizedLinear

_COARSE, _MIDDLE = 3, 7  # the first levels that see finer maps
LARGEST = 256
"""Height and width, in pixels, that the heads halve to one."""


class E4EEncoder(FeaturePyramid):
    """Images to codes of a StyleGAN2: one code for all levels, and one addition to it for each further level.

        w_0 = h_0(c3),  w_i = w_0 + h_i(f_i),

    where f_i is c3 for i < 3, p2 for 3 <= i < 7 and p1 above. A head h_i halves its maps to a single pixel. Keys of the state
    dict are those behind ``encoder.`` in checkpoints of GitHub omertov/encoder4editing.

    Source: Tov et al. 2021, arXiv:2102.02766.

    Arguments and errors are those of :class:`FeaturePyramid`; the default is IR-SE-50.
    """

    def __init__(
        self, num_levels: int, *, widths: Sequence[int] = (64, 128, 256, 512), units: Sequence[int] = (3, 4, 14, 3)
    ) -> None:
        super().__init__(num_levels, widths, units)
        self.styles = nn.ModuleList(_Head(widths[-1], 4 + (i >= _COARSE) + (i >= _MIDDLE)) for i in range(num_levels))

    def forward(self, images: Tensor, *, stage: int | None = None) -> Tensor:
        """Encode.

        Args:
            images: images (N, 3, H, W) in [-1, 1]. The published training has 256 x 256 pixels, for cars 192 x 256; no more are
                allowed.
            stage: stage of the progressive training: only levels 1 to ``stage`` add to the first code; None is the last stage.

        Returns:
            Codes (N, L, D), relative to the average code of the checkpoint.

        Raises:
            GenclsError: for larger images, whose maps the heads would not halve to one pixel.
        """
        if max(images.shape[-2:]) > LARGEST:
            height, width = images.shape[-2:]
            raise GenclsError(f"e4e: expected images of at most {LARGEST} x {LARGEST} pixels, got {height} x {width}")
        coarse, middle, fine = self.pyramid(images)
        first = self.styles[0](coarse)
        codes = [first]
        for level, head in enumerate(self.styles[1:], start=1):
            maps = coarse if level < _COARSE else middle if level < _MIDDLE else fine
            codes.append(first + head(maps) if stage is None or level <= stage else first)
        return torch.stack(codes, dim=1)


class _Head(nn.Module):
    """Maps to one code, by convolutions of stride 2."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.convs = nn.Sequential()
        for _ in range(halvings):
            self.convs.extend([nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.01)])
        self.linear = EqualizedLinear(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        code: Tensor = self.linear(self.convs(maps).flatten(1))
        return code
