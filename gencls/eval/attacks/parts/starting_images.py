"""Images from which attacks start: their check, and their key in a study."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from gencls.core import GenclsError, check_images, stream_seed
from gencls.core.images import sample_hashes


def repr_with_starts(attack: Any, starts: Tensor | None) -> str:
    """The repr of an attack, a dataclass with a field ``starts``, with a digest of the images in place of their pixels.

    It keys the cells of a study.

    Raises:
        GenclsError: for starts that are no images.
    """
    name, key = type(attack).__name__, "None"
    if starts is not None:
        check_images(starts, name=f"{name} starts")
        key = f"{len(starts)} images:{stream_seed(*sample_hashes(starts, torch.zeros(len(starts)))):x}"
    settings = {item.name: getattr(attack, item.name) for item in fields(attack) if item.repr} | {"starts": key}
    return f"{name}({', '.join(f'{setting}={value}' for setting, value in settings.items())})"


def check_shape(name: str, starts: Tensor | None, images: Tensor) -> None:
    """Check that starts (M, C, H, W) have the shape of the images that are attacked.

    Raises:
        GenclsError: if they have not.
    """
    if starts is not None and starts.shape[1:] != images.shape[1:]:
        raise GenclsError(f"{name}: expected starts of shape {tuple(images.shape[1:])}, got {tuple(starts.shape[1:])}")
