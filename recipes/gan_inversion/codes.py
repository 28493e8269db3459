"""Figure 3.8: how far the optimal codes of two methods lie apart."""

import torch
from torch import Tensor

from gencls.core import Latents
from recipes.gan_inversion.inversions import Found

__all__ = ["agreement", "block_codes", "true_codes", "unrelated_distance"]


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


def unrelated_distance(first: Tensor, second: Tensor) -> float:
    """The L2 distance that codes of these lengths have if they are unrelated: the mean of sqrt(||z_1||^2 + ||z_2||^2).

    Unrelated codes are at right angles on average, E[z_1 . z_2] = 0. Two draws of the prior would be no reference: optimal
    codes have other lengths than the prior's, and shorter codes are closer whatever their directions.

    Args:
        first: codes of one method, (N, B, d).
        second: codes of another method, (N, B, d).
    """
    squares = first.square().sum(-1) + second.square().sum(-1)
    return float(squares.sqrt().mean())
