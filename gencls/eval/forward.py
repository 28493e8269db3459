"""One forward pass of a defense, and what can be said when it fails."""

import torch
from torch import Tensor, nn

from gencls.core import GenclsError
from gencls.core.generators import own_seeds_end_here
from gencls.eval.image_by_image import name_of

__all__ = ["scores_of"]


def scores_of(defense: nn.Module, images: Tensor) -> Tensor:
    """The defense's scores (N, K).

    Raises:
        GenclsError: for images of a shape that the defense does not take, or a single one where it needs several.
    """
    try:
        with own_seeds_end_here():
            scores: Tensor = defense(images)
    except GenclsError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or "memory" in reason:
            raise
        name = name_of(defense)
        if "more than 1 value per channel" in reason:  # batch statistics, as torch says it
            raise GenclsError(
                f"{name}: expected scores of one image, got batch statistics in eval mode, which one image does not have "
                f"({reason}): a decision would depend on the rest of the batch; use running statistics"
            ) from error
        raise GenclsError(
            f"{name}: expected images of the shape that it was made for, got (N, C, H, W) = {tuple(images.shape)}, or its "
            f"forward pass fails on any image: {reason}"
        ) from error
    return scores
