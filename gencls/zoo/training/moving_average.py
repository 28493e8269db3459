"""The moving average of a network's weights."""

import torch
from torch import nn

__all__ = ["move_average"]


def move_average(average: nn.Module, current: nn.Module, *, decay: float) -> None:
    """A <- decay * a + (1 - decay) * w for all parameters of two networks of the same kind.

    Args:
        average: holds a.
        current: holds w.
        decay: in [0, 1].
    """
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(parameter, 1 - decay)
