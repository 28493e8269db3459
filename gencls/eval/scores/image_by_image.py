"""A model that is asked one image at a time."""

import torch
from torch import Tensor, nn

from gencls.core.streams.keyed import alone

__all__ = ["ImageByImage", "name_of"]


class ImageByImage(nn.Module):
    """Gives a model one row of the batch per forward pass, each with the random streams of that row alone.

    Two kinds of model need it: those that make one random draw for a whole batch, of which a batch of 32 is one draw and not
    32; and those whose scores of an image depend on the other images in the batch.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a model images (N, C, H, W) -> scores (N, K)."""
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        scores = []
        with alone(len(images)) as turn:
            for index in range(len(images)):
                turn(index)
                scores.append(self.model(images[index : index + 1]))
        return torch.cat(scores)


def name_of(model: nn.Module) -> str:
    """The class of a model, for messages: that of the user's own where it is asked image by image."""
    return type(model.model if isinstance(model, ImageByImage) else model).__name__
