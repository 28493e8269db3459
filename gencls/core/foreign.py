"""Turns images and labels of any library into tensors of the one form that all code takes.

A floating-point ``torch.Tensor`` is (N, C, H, W) in [0, 1], as everywhere in the package: nothing about it is guessed. In
arrays of numpy, lists, PIL images and uint8 tensors, the axis with 1 or 3 entries is the channels, and (N, H, W) is grey. uint8
means 0 to 255 and is divided by 255. Nothing is scaled or cast beyond that: float64 stays float64.
"""

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gencls.core.errors import GenclsError
from gencls.core.images import check_images, check_labels
from gencls.core.words import with_article

__all__ = ["as_images", "as_labels", "as_samples", "in_one_tensor", "is_picture", "rank_of", "unit_range"]


def as_samples(images: object, labels: object) -> tuple[Tensor, Tensor]:
    """Bring images and labels of any library into the one form that all other code takes; tensors in that form come back as is.

    Args:
        images: N images, uint8 from 0 to 255 or floats in [0, 1], as :func:`as_images` takes them.
        labels: one class number per image, as :func:`as_labels` takes them.

    Returns:
        Images (N, C, H, W), float32 or float64 in [0, 1], and labels int64 (N,).

    Raises:
        GenclsError: these are no images or labels, there are none, or values lie outside the range.
    """
    if isinstance(images, (Dataset, DataLoader)):
        own, got = type(images).__name__, type(labels).__name__
        raise GenclsError(f"labels: expected none beside {with_article(own)}, which has its own; got {got}")
    found = unit_range(as_images(images))
    check_images(found)
    classes = as_labels(labels)
    check_labels(classes, num_classes=None, count=len(found))
    return found, classes


def as_images(value: object) -> Tensor:
    """Read images of any library, without a copy if possible; their values are not checked.

    A tensor, an array or a list of images, (N, C, H, W), (N, H, W, C) or (N, H, W), becomes (N, C, H, W) uint8, float32 or
    float64.

    Raises:
        GenclsError: for something else, images of several shapes, another dtype, or an unclear axis of channels.
    """
    if isinstance(value, (str, bytes, os.PathLike)):
        raise GenclsError(f"images: expected images, got the path {os.fsdecode(value)!r}; load it with gencls.zoo.load_data")
    if isinstance(value, (list, tuple)) and rank_of(_innermost(value)) > 0:  # else numbers in nested lists
        images = in_one_tensor([_tensor(image, "images") for image in value], torch.stack)
        exact = isinstance(value[0], Tensor) and images.is_floating_point()
        grey = images.ndim == 3
    else:
        images = _tensor(value, "images")
        if isinstance(value, (list, tuple)) and images.is_floating_point():  # Python's floats have no dtype of their own
            images = images.to(torch.get_default_dtype())
        exact = isinstance(value, Tensor) and images.is_floating_point()
        grey = images.ndim == 3 and not exact
    if images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise GenclsError(f"images: expected uint8 from 0 to 255, or float32 or float64 in [0, 1], got {images.dtype}")
    if grey:
        images, exact = images.unsqueeze(1), True
    if images.ndim != 4:
        raise GenclsError(f"images: expected shape (N, C, H, W), got rank {images.ndim} with shape {tuple(images.shape)}")
    return images if exact or images.numel() == 0 else _channels_first(images)


def as_labels(value: object) -> Tensor:
    """Read class numbers of any library: a tensor, array or list of N whole numbers, (N,) or (N, 1), becomes int64 (N,).

    Raises:
        GenclsError: for anything else: an empty list, one-hot rows, words, booleans, numbers that are not whole or
            exceed int64.
    """
    if value is None:
        raise GenclsError("labels: expected a class number per image, got none")
    if isinstance(value, (list, tuple)):
        value = [_number(label) for label in value]
    labels = _tensor(value, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim == 2:
        raise GenclsError(
            f"labels: expected a class number per image, of shape (N,), got shape {tuple(labels.shape)}; of one-hot rows take "
            "labels.argmax(1)"
        )
    if labels.ndim != 1 or labels.dtype == torch.bool or labels.is_complex():
        raise GenclsError(f"labels: expected whole numbers of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.is_floating_point():
        odd = labels[~((labels == labels.round()) & (labels.abs() < 2**53))]
        if len(odd):
            raise GenclsError(f"labels: expected whole numbers, got {float(odd[0]):.4g} among {labels.dtype} labels")
    numbers = labels.to(torch.int64)
    if labels.dtype == torch.uint64 and bool((numbers < 0).any()):  # as torch casts what is too large for int64
        raise GenclsError(f"labels: expected whole numbers below 2**63, got {int(numbers[numbers < 0][0]) + 2**64}")
    return numbers


def unit_range(images: Tensor) -> Tensor:
    """Bring images into [0, 1]: divide uint8 by 255, as float32, but refuse uint8 of only 0 and 1; others stay as they are."""
    if images.dtype != torch.uint8:
        return images
    if images.numel() and images.max() == 1:
        raise GenclsError("images: expected uint8 from 0 to 255, got 0 and 1 alone; give them as float32")
    return images.to(torch.float32).div_(255)


def in_one_tensor(parts: list[Tensor], join: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """Join images in one tensor, single ones by ``torch.stack``, batches by ``torch.cat``; they must be alike."""
    start = 1 if join is torch.cat else 0
    shapes = list(dict.fromkeys(tuple(part.shape[start:]) for part in parts))
    if len(shapes) > 1:
        raise GenclsError(
            f"images: expected images of one shape, got {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; scale them"
        )
    kinds = list(dict.fromkeys(f"{part.dtype} on {part.device}" for part in parts))
    if len(kinds) > 1:
        raise GenclsError(f"images: expected images of one dtype on one device, got {' and '.join(kinds)}")
    return join(parts)


def rank_of(value: Any) -> int:
    """The number of axes of an array, a picture, or nested lists of either; 0 for a number."""
    if isinstance(value, (list, tuple)):
        return 1 + (rank_of(value[0]) if value else 0)
    return 2 if is_picture(value) else int(getattr(value, "ndim", 0))


def is_picture(value: object) -> bool:
    """Whether the value is an image of PIL; PIL is not imported to find out."""
    return hasattr(value, "getbands") and hasattr(value, "mode")


def _number(label: Any) -> object:
    """The number in an array or a tensor of one entry; anything else as it is."""
    shape = getattr(label, "shape", None)
    return label.item() if shape is not None and math.prod(shape) == 1 else label


def _tensor(value: Any, what: str) -> Tensor:
    """Read an array of any library as a tensor, in its own dtype and memory."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise GenclsError(f"{what}: expected a dense tensor, got {value.layout} on {value.device}")
        return value.detach().as_subclass(Tensor) if value.requires_grad or type(value) is not Tensor else value
    if is_picture(value) and value.mode not in ("L", "RGB"):
        raise GenclsError(f"{what}: expected PIL images of mode L or RGB, got {value.mode}; convert them")
    if np.ma.is_masked(value):
        raise GenclsError(f"{what}: expected all values, got an array with masked ones")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenclsError(f"{what}: expected numbers in one regular array, got {type(value).__name__}: {error}") from None
    if array.dtype.kind not in "biufc":
        raise GenclsError(f"{what}: expected numbers, got {type(value).__name__} of {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():  # about arrays that cannot be written: nothing here writes
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.from_numpy(array)
        except TypeError:  # long double
            raise GenclsError(f"{what}: expected a dtype that torch has, got {array.dtype}") from None


def _channels_first(images: Tensor) -> Tensor:
    """Move channels first: (N, H, W, C) with 1 or 3 channels becomes (N, C, H, W), which itself passes unchanged."""
    first, last = (images.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        why = "both the second and the last axis could be the channels" if first else "neither has 1 or 3 entries"
        raise GenclsError(
            f"images: expected 1 or 3 channels, (N, C, H, W) or (N, H, W, C), got shape {tuple(images.shape)}, where {why}; "
            "give a floating-point torch.Tensor, which is taken as (N, C, H, W)"
        )
    return images if first else images.permute(0, 3, 1, 2).contiguous()


def _innermost(value: Any) -> object:
    while isinstance(value, (list, tuple)):
        value = value[0] if value else 0
    return value
