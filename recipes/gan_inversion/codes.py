"""Figure 3.8: how far the optimal codes of two methods lie apart."""

import math

import torch
from torch import Tensor

from gencls.core import Latents
from recipes.gan_inversion.inversions import Found

__all__ = ["agreement", "block_codes", "true_codes"]


def true_codes(found: Found) -> Latents:
    """Codes of each image for its true class, (N, d) per level."""
    return tuple(found.in_domain(level) for level in found.codes())


def block_codes(codes: Latents, blocks: int) -> Tensor:
    """The code that the first layer and each block take, (N, 1 + blocks, d): z, z + z_1, ..., or z everywhere.

    Args:
        codes: (N, d) per level: z alone, or z and the offsets z_i.
        blocks: number of the generator's blocks.
    """
    shared, *offsets = codes
    made = [shared, *(shared + own for own in offsets)]
    return torch.stack([*made, *[shared] * (1 + blocks - len(made))], dim=1)


def agreement(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean cosine similarity and mean L2 distance of the codes (N, B, d) of two methods, over images and blocks."""
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1)
    distance = (first - second).norm(dim=-1)
    return float(cosine.mean()), float(distance.mean())


def prior_distance(size: int) -> float:
    """The expected L2 distance of two codes of the standard normal prior with ``size`` numbers, sqrt(2) E||z||."""
    return 2 * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))
