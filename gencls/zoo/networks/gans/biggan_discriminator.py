"""The discriminator of BigGAN for images of 64 pixels and more."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencls.core.errors import GenclsError
from gencls.core.images import check_labels
from gencls.core.settings import checked
from gencls.zoo.networks.gans.biggan_layers import Attention, DownBlock, SNEmbedding, SNLinear, orthogonal_start

_LAST = 4  # H = W of the last maps


class BigGANDiscriminator(nn.Module):
    """D(x, y) = w^T h + b + e_y^T h: residual blocks, ReLU, and the sum h over places.

    Every block but the last halves the size, down to 4 x 4 pixels. All layers have spectral norm. Keys of the state dict are
    those of GitHub ajbrock/BigGAN-PyTorch. The defaults are those of the published network.

    Source: Brock et al. 2019, arXiv:1809.11096, appendix B.

    Args:
        channels: channels of each block.
        num_classes: number of the classes in the weights.
        attention: sizes H = W of the maps, each of which attention follows.
        classes: which of these classes the labels 0 .. K - 1 mean; None: all. The spectral norm of the embedding is that of
            all classes in any case.
        sn_eps: least norm of the power steps.

    Raises:
        GenclsError: for fewer than two blocks, a number below 1, a class that the weights lack, or attention at a size that no
            block has or with fewer than 8 channels.
    """

    classes: Tensor

    @checked
    def __init__(
        self,
        *,
        channels: Sequence[int] = (96, 192, 384, 768, 1536, 1536),
        num_classes: int = 1000,
        attention: Sequence[int] = (64,),
        classes: Sequence[int] | None = None,
        sn_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        chosen = list(range(num_classes)) if classes is None else list(classes)
        if len(channels) < 2 or min(*channels, num_classes) < 1 or sn_eps < 0:
            raise GenclsError(
                "BigGANDiscriminator: expected at least two blocks, channels and num_classes of at least 1 and sn_eps >= 0, "
                f"got {tuple(channels)}, {num_classes} and {sn_eps}"
            )
        if not chosen or min(chosen) < 0 or max(chosen) >= num_classes:
            raise GenclsError(
                f"BigGANDiscriminator: expected classes in 0 .. {num_classes - 1}, as the weights have, got {tuple(chosen)}"
            )
        self.size = _LAST * 2 ** (len(channels) - 1)
        sides = [max(self.size // 2 ** (index + 1), _LAST) for index in range(len(channels))]
        wide = {side for side, count in zip(sides, channels, strict=True) if count >= 8}
        if not set(attention) <= wide:
            raise GenclsError(
                f"BigGANDiscriminator: expected attention at sizes with at least 8 channels, among {sorted(wide)}, got "
                f"{tuple(attention)}"
            )
        self.num_classes = len(chosen)
        # No weight; loaders build networks on the device "meta", where it would have no values.
        self.register_buffer("classes", torch.tensor(chosen, device="cpu"), persistent=False)
        self.blocks = nn.ModuleList()
        before = 3
        for index, (after, side) in enumerate(zip(channels, sides, strict=True)):
            halved = index < len(channels) - 1
            parts: list[nn.Module] = [DownBlock(before, after, halved=halved, first=not index, sn_eps=sn_eps)]
            if side in attention:
                parts.append(Attention(after, sn_eps=sn_eps))
            self.blocks.append(nn.ModuleList(parts))
            before = after
        self.linear = SNLinear(before, 1, sn_eps=sn_eps)
        self.embed = SNEmbedding(num_classes, before, sn_eps=sn_eps)
        orthogonal_start(self)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (N, 3, size, size) in [0, 1] and int64 labels (N,) in 0 .. K - 1 to D(x, y), (N,).

        Raises:
            GenclsError: for images of another shape, or labels of another kind, number or class.
        """
        if images.shape[1:] != (3, self.size, self.size):
            expected = f"(N, 3, {self.size}, {self.size})"
            raise GenclsError(f"BigGANDiscriminator: expected images of shape {expected}, got {tuple(images.shape)}")
        check_labels(labels, num_classes=self.num_classes, count=len(images))
        maps = 2 * images - 1
        for parts in self.blocks:
            for part in parts.children():
                maps = part(maps)
        features = maps.relu().sum((2, 3))
        judged: Tensor = self.linear(features).squeeze(1) + (self.embed(self.classes[labels]) * features).sum(1)
        return judged
