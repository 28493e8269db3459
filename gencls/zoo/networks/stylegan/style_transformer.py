"""The encoder of the Style Transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencls.zoo.networks.stylegan.feature_pyramid import FeaturePyramid


class StyleTransformerEncoder(FeaturePyramid):
    """Images to codes of a StyleGAN2: learned queries look at the maps of a feature pyramid, coarse to fine.

    A transformer has three decoder layers, one for each of c3, p2 and p1. Each has self-attention, attention to the maps and
    two linear layers, each of these with a residual connection and then a layer norm. There is no positional encoding. The
    queries are ``z``, after the generator's mapping network. Keys of the state dict are those behind ``encoder.module.`` in
    checkpoints of GitHub sapphire497/style-transformer.

    Source: Hu et al. 2022, arXiv:2203.07932.

    Args:
        num_levels: L, codes per image. The published code always has 18; the purification of the MLVGM paper has 16 for cars.
        widths: channels of the four stages, see :class:`FeaturePyramid`; the default is IR-SE-50.
        units: residual units per stage, see :class:`FeaturePyramid`; the default is IR-SE-50.
        heads: heads of each attention; they divide D.
        hidden: width between the two linear layers.

    Raises:
        GenclsError: as :class:`FeaturePyramid`.
    """

    def __init__(
        self,
        num_levels: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        heads: int = 4,
        hidden: int = 1024,
    ) -> None:
        super().__init__(num_levels, widths, units)
        self.z = nn.Parameter(torch.randn(1, num_levels, widths[-1]))
        self.transformerlayer_coarse, self.transformerlayer_medium, self.transformerlayer_fine = (
            nn.TransformerDecoderLayer(widths[-1], heads, hidden, dropout=0.1, batch_first=True) for _ in range(3)
        )

    def forward(self, images: Tensor, queries: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] and queries (1, L, D), the generator's mapping of ``z``, to codes (N, L, D).

        The published training has images of 256 x 256 pixels, for cars 192 x 256.
        """
        codes = queries.expand(len(images), -1, -1)
        layers = (self.transformerlayer_coarse, self.transformerlayer_medium, self.transformerlayer_fine)
        for layer, maps in zip(layers, self.pyramid(images), strict=True):
            codes = layer(codes, maps.flatten(2).transpose(1, 2))
        return codes
