"""The generator of BigGAN."""

from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.generator import ClassConditionalGenerator, Latents, check_classes, check_latents
from gencls.core.settings import checked
from gencls.zoo.networks.gans.biggan_layers import (
    Attention,
    ConditionalBatchNorm,
    PlainBatchNorm,
    SNConv2d,
    SNLinear,
    orthogonal_start,
)

WIDTHS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        32: (4, 4, 4, 4),
        64: (16, 16, 8, 4, 2),
        128: (16, 16, 8, 4, 2, 1),
        256: (16, 16, 8, 8, 4, 2, 1),
        512: (16, 16, 8, 8, 4, 2, 1, 1),
    }
)
"""Size of the images -> channels at 4, 8, 16, ... pixels, as multiples of the width."""

_FIRST = 4  # H = W of the first maps
_LAST_EPS = 1e-5  # of the last batch norm, whatever the others have


class BigGAN(ClassConditionalGenerator):
    """Latents and labels to images: residual blocks, each of which doubles the size, with class-conditional batch norm.

    A linear layer makes maps of 4 x 4 pixels of the latent. With a shared embedding, one vector per class is the condition of
    all batch norms; without, each batch norm has an embedding of its own. With hierarchical latents, the latent is cut into a
    chunk for the linear layer and one for each block, and the chunk is part of the block's condition. The network ends with
    tanh, and (tanh + 1) / 2 is the image. Spectral norm does one power step in eval mode too, see
    :class:`~gencls.zoo.networks.gans.biggan_layers.SpectralWeight`.

    Keys of the state dict are those of GitHub ajbrock/BigGAN-PyTorch, which FQ-GAN has too. There is one latent level, standard
    normal. The defaults are those of the published network.

    Source: Brock et al. 2019, arXiv:1809.11096.

    Args:
        size: H = W of the images: 32, 64, 128, 256 or 512.
        width: channels of which the layers have multiples, see :data:`WIDTHS`.
        num_classes: K.
        latent_dim: d, numbers in a latent. Hierarchical latents have the largest multiple of the number of chunks below it.
        shared_dim: numbers in a class's vector of the shared embedding; None: no shared embedding.
        hierarchical: whether each block takes a chunk of the latent; needs a shared embedding.
        attention: sizes of the maps, each of which attention follows.
        bn_eps: least variance of the batch norms within blocks; that of the last one is 1e-5.
        sn_eps: least norm of the power steps.
        truncation: factor of the standard normal numbers that :meth:`sample_latents` draws.

    Raises:
        GenclsError: for another size, a number below 1, hierarchical latents without a shared embedding or with fewer numbers
            than chunks, attention at a size that no block has or with fewer than 8 channels, an eps < 0 or a truncation <= 0.
    """

    @checked
    def __init__(
        self,
        *,
        size: int = 128,
        width: int = 96,
        num_classes: int = 1000,
        latent_dim: int = 120,
        shared_dim: int | None = 128,
        hierarchical: bool = True,
        attention: Sequence[int] = (64,),
        bn_eps: float = 1e-5,
        sn_eps: float = 1e-6,
        truncation: float = 1.0,
    ) -> None:
        super().__init__()
        _check(size, width, num_classes, latent_dim, shared_dim, hierarchical, attention, bn_eps, sn_eps)
        channels = [width * factor for factor in WIDTHS[size]]
        blocks = len(channels) - 1
        chunk = latent_dim // (blocks + 1) if hierarchical else latent_dim
        self.size, self.num_classes, self.hierarchical = size, num_classes, hierarchical
        self.truncation = _positive(truncation)
        self.latent_shapes = (torch.Size([chunk * (blocks + 1) if hierarchical else chunk]),)
        self.shared = None if shared_dim is None else nn.Embedding(num_classes, shared_dim)
        condition = None if shared_dim is None else shared_dim + chunk * hierarchical
        self.linear = SNLinear(chunk, channels[0] * _FIRST**2, sn_eps=sn_eps)
        self.blocks = nn.ModuleList()
        for index, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            parts: list[nn.Module] = [_Block(before, after, condition, num_classes, bn_eps=bn_eps, sn_eps=sn_eps)]
            if _FIRST * 2 ** (index + 1) in attention:
                parts.append(Attention(after, sn_eps=sn_eps))
            self.blocks.append(nn.ModuleList(parts))
        norm, conv = PlainBatchNorm(channels[-1], eps=_LAST_EPS), SNConv2d(channels[-1], 3, 3, sn_eps=sn_eps)
        self.output_layer = nn.Sequential(norm, nn.ReLU(), conv)
        orthogonal_start(self)

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """Decode M latents, one level (M, d), each for the class of its label.

        Args:
            latents: one tensor (M, d).
            labels: int64 (M,), values in 0 .. K - 1.

        Returns:
            Images (M, 3, size, size) in [0, 1].

        Raises:
            GenclsError: for other shapes, or a label that is none of the K classes.
        """
        check_latents(self, latents, (len(labels),))
        check_classes(self, labels, len(labels), wait=True)
        return self._decode(latents[0], labels)

    def decode_all(self, latents: Latents) -> Tensor:
        """Decode one latent per class for each of N images, one level (N, K, d), to images (N, K, 3, size, size) in [0, 1]."""
        check_latents(self, latents, (len(latents[0]), self.num_classes))
        (codes,) = latents
        labels = torch.arange(self.num_classes, device=codes.device).repeat(len(codes))  # known: no need to wait for a GPU
        images = self._decode(codes.flatten(0, 1), labels)
        return images.view(*codes.shape[:2], *images.shape[1:])

    def sample_latents(self, count: int, *, truncation: float | None = None) -> Latents:
        """Draw normal latents (count, d) whose standard deviation is ``truncation``; None takes the network's own.

        Numbers below 1 give images that look better and differ less. ``log_prior`` stays that of the standard normal.

        Raises:
            GenclsError: for a truncation <= 0.
        """
        factor = self.truncation if truncation is None else _positive(truncation)
        return tuple(level * factor for level in super().sample_latents(count))

    def _decode(self, codes: Tensor, labels: Tensor) -> Tensor:
        chunks = codes.chunk(len(self.blocks) + 1, dim=1) if self.hierarchical else (codes,) * (len(self.blocks) + 1)
        condition = labels if self.shared is None else self.shared(labels)
        maps: Tensor = self.linear(chunks[0]).unflatten(1, (-1, _FIRST, _FIRST))
        maps = maps.contiguous(memory_format=torch.channels_last)  # which convolutions of CPUs prefer
        for parts, chunk in zip(self.blocks, chunks[1:], strict=True):
            block, *attention = parts.children()
            maps = block(maps, torch.cat([condition, chunk], dim=1) if self.hierarchical else condition)
            for part in attention:
                maps = part(maps)
        images: Tensor = self.output_layer(maps).contiguous()
        return images.tanh().add(1).div(2)


class _Block(nn.Module):
    """Batch norm, ReLU, upsampling, convolution, batch norm, ReLU, convolution; added to the upsampled and convolved input."""

    def __init__(
        self, before: int, after: int, condition: int | None, num_classes: int, *, bn_eps: float, sn_eps: float
    ) -> None:
        super().__init__()
        self.bn1, self.bn2 = (
            ConditionalBatchNorm(channels, condition, num_classes, eps=bn_eps, sn_eps=sn_eps) for channels in (before, after)
        )
        self.conv1 = SNConv2d(before, after, 3, upsample=True, sn_eps=sn_eps)
        self.conv2 = SNConv2d(after, after, 3, sn_eps=sn_eps)
        self.conv_sc = SNConv2d(before, after, 1, upsample=True, sn_eps=sn_eps)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Maps (N, before, H, W) and condition (N, length) or label (N,) to maps (N, after, 2 H, 2 W)."""
        inner = self.conv1(self.bn1(maps, condition).relu())
        out: Tensor = self.conv2(self.bn2(inner, condition).relu()) + self.conv_sc(maps)
        return out


def _positive(truncation: float) -> float:
    if not (truncation > 0 and isfinite(truncation)):
        raise GenclsError(f"BigGAN: expected truncation > 0, got {truncation}")
    return truncation


def _check(
    size: int,
    width: int,
    num_classes: int,
    latent_dim: int,
    shared_dim: int | None,
    hierarchical: bool,
    attention: Sequence[int],
    bn_eps: float,
    sn_eps: float,
) -> None:
    if size not in WIDTHS:
        raise GenclsError(f"BigGAN: expected size to be one of {', '.join(map(str, WIDTHS))}, got {size}")
    numbers = {"width": width, "num_classes": num_classes, "latent_dim": latent_dim, "shared_dim": shared_dim or 1}
    if shared_dim == 0 or min(numbers.values()) < 1:
        raise GenclsError(
            f"BigGAN: expected width, num_classes, latent_dim and shared_dim of at least 1, got {width}, {num_classes}, "
            f"{latent_dim} and {shared_dim}"
        )
    if hierarchical and shared_dim is None:
        raise GenclsError("BigGAN: expected a shared embedding (shared_dim) for hierarchical latents, got None")
    if hierarchical and latent_dim < len(WIDTHS[size]):
        raise GenclsError(f"BigGAN: expected latent_dim >= {len(WIDTHS[size])}, one for each chunk, got {latent_dim}")
    channels = {_FIRST * 2**index: width * factor for index, factor in enumerate(WIDTHS[size]) if index}
    odd = [side for side in attention if channels.get(side, 0) < 8]
    if odd:
        raise GenclsError(
            f"BigGAN: expected attention at sizes with at least 8 channels, among {channels} (size: channels), got {odd}"
        )
    if bn_eps < 0 or sn_eps < 0:
        raise GenclsError(f"BigGAN: expected bn_eps and sn_eps >= 0, got {bn_eps} and {sn_eps}")
