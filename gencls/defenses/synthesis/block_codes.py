"""Overparameterised inversion: each block of a self-modulated generator gets a code of its own (thesis, section 3.2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gencls.core import BlockwiseGenerator, ClassConditionalGenerator, GenclsError, Latents, checked
from gencls.defenses.synthesis.checks import check_one_level, check_same_generator

__all__ = ["BlockCodes", "ZeroOffsets"]


class BlockCodes(ClassConditionalGenerator):
    """The generator G with the levels (z, z_1, ..., z_k): its first layer takes z, and block i takes z + z_i (Figure 3.2).

    Blocks beyond the k-th take z. With all z_i = 0 it is G.
    """

    @checked
    def __init__(self, generator: BlockwiseGenerator, blocks: int | None = None) -> None:
        """Take the generator and k, the number of blocks with a code of their own; None gives one to every block.

        Raises:
            GenclsError: for a generator whose blocks take no codes of their own or that has several latent levels, no code, or
                more codes than blocks; later, for another generator in its place.
        """
        super().__init__()
        check_one_level(len(generator.latent_shapes), owner="BlockCodes", what="a generator")
        own = generator.num_blocks if blocks is None else blocks
        if not 1 <= own <= generator.num_blocks:
            raise GenclsError(f"BlockCodes: expected 1 to {generator.num_blocks} codes, one for a block, got {own}")
        self.generator = generator
        self.blocks = own
        self.num_classes = generator.num_classes
        self.latent_shapes = generator.latent_shapes * (1 + own)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another generator: random starts decode with the one that it was built with."""
        if name == "generator":
            check_same_generator(self.__dict__.get("_modules", {}).get(name), value, owner="BlockCodes")
        super().__setattr__(name, value)

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        """Decode (z, z_1, ..., z_k), (M, *shape) each, to images (M, C, H, W) in [0, 1]."""
        shared, *offsets = latents
        rest = self.generator.num_blocks - self.blocks
        return self.generator.decode_codes((shared, *(shared + own for own in offsets), *(shared,) * rest), labels)

    def sample_latents(self, count: int) -> Latents:
        """A z from the prior of G, and offsets 0: the images are samples of G."""
        (shared,) = self.generator.sample_latents(count)
        return shared, *(torch.zeros_like(shared) for _ in range(self.blocks))

    def log_prior(self, latents: Latents) -> Tensor:
        """That of z under G; the offsets have no prior."""
        return self.generator.log_prior(latents[:1])

    def extra_repr(self) -> str:
        """The setting."""
        return f"blocks={self.blocks}"


class ZeroOffsets(nn.Module):
    """A start of z, and offsets z_1, ..., z_k that begin at 0."""

    @checked
    def __init__(self, start: Callable[[Tensor], Latents], count: int) -> None:
        """Take the start, images -> one level (N, K, *shape), and k."""
        super().__init__()
        self.start = start
        self.count = count

    def forward(self, images: Tensor) -> Latents:
        """Images (N, C, H, W) -> 1 + k levels (N, K, *shape).

        Raises:
            GenclsError: for a start of several levels.
        """
        levels = self.start(images)
        check_one_level(len(levels), owner="ZeroOffsets", what="a start")
        shared = levels[0]
        return shared, *(torch.zeros_like(shared) for _ in range(self.count))
