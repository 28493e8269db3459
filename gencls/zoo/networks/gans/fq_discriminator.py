"""The discriminator of FQ-GAN, whose features are quantised."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.settings import checked
from gencls.zoo.networks.gans.biggan_layers import DownBlock, SNEmbedding, SNLinear, orthogonal_start

_WIDTH_FACTOR = 4
_HALVED = (True, True, False, False)
"""Which of the blocks halve the size, for images of 32 pixels."""


class Judgement(NamedTuple):
    """What a discriminator with quantised features says of N images."""

    logits: Tensor
    """D(x, y), (N,): high for real images of their class."""
    commitment: Tensor
    """The commitment loss of each image, (N,), a sum over the quantisers; the discriminator minimises it besides."""


class FeatureQuantizer(nn.Module):
    """Put the nearest of a dictionary's vectors in place of each feature.

    Each place of the maps has a feature h, a vector of C numbers. Its code is the vector e_k with the least ||h - e_k||_2. The
    gradient passes straight through, as if nothing had happened. The commitment loss of an image is the mean square of h - e_k
    over places and channels, times ``commitment``. In training, after the codes are chosen, each vector becomes a moving
    average of the features that chose it. With n_k of these features in the batch and their sum s_k,

        N_k <- decay N_k + (1 - decay) n_k,    m_k <- decay m_k + (1 - decay) s_k,    e_k <- m_k / N'_k,

    where N'_k = (N_k + 1e-5) N / (N + 1e-5 K) and N is the sum of all K numbers N_k.

    Sources: Zhao et al. 2020, arXiv:2004.02088, section 3; moving averages and N'_k as in its code.

    Args:
        channels: C.
        codes: K, vectors in the dictionary.
        decay: weight of the past in the moving averages, in [0, 1).
        commitment: weight of the commitment loss, >= 0.

    Raises:
        GenclsError: for a number out of range.
    """

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor

    @checked
    def __init__(self, channels: int, codes: int = 1024, *, decay: float = 0.8, commitment: float = 1.0) -> None:
        super().__init__()
        if min(channels, codes) < 1 or not 0 <= decay < 1 or commitment < 0:
            raise GenclsError(
                "FeatureQuantizer: expected channels and codes of at least 1, decay in [0, 1) and commitment >= 0, got "
                f"{channels}, {codes}, {decay} and {commitment}"
            )
        self.decay, self.commitment = decay, commitment
        self.register_buffer("embed", torch.randn(channels, codes))
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("embed_avg", self.embed.clone())

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, C, H, W) to quantised maps of the same shape and the commitment loss (N,)."""
        features = maps.detach().movedim(1, 3).flatten(0, 2)
        with torch.no_grad():
            nearest = (self.embed.square().sum(0) - 2 * features @ self.embed).argmin(1)
            quantized = self.embed.T[nearest].view(len(maps), *maps.shape[2:], -1).movedim(3, 1)
            if self.training:
                self._learn(features, nearest)
        loss = self.commitment * (quantized - maps).square().mean((1, 2, 3))
        return maps + (quantized - maps).detach(), loss

    def _learn(self, features: Tensor, nearest: Tensor) -> None:
        count = len(self.cluster_size)
        chosen = torch.bincount(nearest, minlength=count).to(features.dtype)
        sums = torch.zeros_like(self.embed_avg).index_add_(1, nearest, features.T)
        self.cluster_size.lerp_(chosen, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + 1e-5) / (total + 1e-5 * count) * total
        self.embed.copy_(self.embed_avg / smoothed)


class FQDiscriminator(nn.Module):
    """BigGAN's discriminator for images of 32 pixels, with quantisers behind its residual blocks.

    Four blocks of 4 ``width`` channels, of which the first two halve the size, then ReLU and a sum h over places;
    D(x, y) = w^T h + b + e_y^T h. All layers have spectral norm. Keys of the state dict are those of GitHub YangNaruto/FQ-GAN.

    Sources: Zhao et al. 2020, arXiv:2004.02088; Brock et al. 2019, arXiv:1809.11096.

    Args:
        width: a quarter of the channels.
        num_classes: K.
        quantized: numbers of the blocks that a quantiser follows, in 0 .. 3.
        codes: vectors in each dictionary.
        decay: weight of the past in the dictionaries' moving averages, in [0, 1).
        commitment: weight of the commitment loss, >= 0.
        sn_eps: least norm of the power steps.

    Raises:
        GenclsError: for a number out of range.
    """

    size = 32
    """H = W of the images."""

    @checked
    def __init__(
        self,
        *,
        width: int = 64,
        num_classes: int = 10,
        quantized: Sequence[int] = (0, 1, 2, 3),
        codes: int = 1024,
        decay: float = 0.8,
        commitment: float = 1.0,
        sn_eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if min(width, num_classes) < 1 or sn_eps < 0:
            raise GenclsError(
                "FQDiscriminator: expected width and num_classes of at least 1 and sn_eps >= 0, got "
                f"{width}, {num_classes} and {sn_eps}"
            )
        if not set(quantized) <= set(range(len(_HALVED))):
            raise GenclsError(f"FQDiscriminator: expected quantized to be blocks in 0 .. {len(_HALVED) - 1}, got {quantized}")
        self.num_classes = num_classes
        channels = _WIDTH_FACTOR * width
        self.blocks = nn.ModuleList()
        for index, halved in enumerate(_HALVED):
            before = channels if index else 3
            parts: list[nn.Module] = [DownBlock(before, channels, halved=halved, first=not index, sn_eps=sn_eps)]
            if index in quantized:
                parts.append(FeatureQuantizer(channels, codes, decay=decay, commitment=commitment))
            self.blocks.append(nn.ModuleList(parts))
        self.linear = SNLinear(channels, 1, sn_eps=sn_eps)
        self.embed = SNEmbedding(num_classes, channels, sn_eps=sn_eps)
        orthogonal_start(self)

    def forward(self, images: Tensor, labels: Tensor) -> Judgement:
        """Judge images.

        Args:
            images: (N, 3, 32, 32) in [0, 1].
            labels: int64 (N,), values in 0 .. K - 1.

        Raises:
            GenclsError: for images of another shape.
        """
        if images.shape[1:] != (3, self.size, self.size):
            raise GenclsError(f"FQDiscriminator: expected images of shape (N, 3, 32, 32), got {tuple(images.shape)}")
        maps, commitment = 2 * images - 1, images.new_zeros(len(images))
        for parts in self.blocks:
            block, *quantizers = parts.children()
            maps = block(maps)
            for quantizer in quantizers:
                maps, loss = quantizer(maps)
                commitment = commitment + loss
        features = maps.relu().sum((2, 3))
        logits: Tensor = self.linear(features).squeeze(1) + (self.embed(labels) * features).sum(1)
        return Judgement(logits, commitment)
