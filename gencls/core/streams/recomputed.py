"""Layers that torch computes a second time, in the backward pass."""

import sys
from types import FrameType

from torch.utils import checkpoint

__all__ = ["is_checkpointed"]


def is_checkpointed() -> bool:
    """Whether ``torch.utils.checkpoint`` runs what calls this.

    It repeats the forward pass in the backward pass and puts torch's own generators back for it. It knows no streams of rows,
    so a draw from these would be another one in the backward pass.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == checkpoint.__file__:
            return True
        frame = frame.f_back
    return False
