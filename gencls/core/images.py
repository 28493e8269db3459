"""Checks images and labels, turns those of any library into tensors, and makes keys of their content.

A floating-point ``torch.Tensor`` is (N, C, H, W) in [0, 1], as everywhere in the package: nothing about it is guessed. In
arrays of numpy, lists, PIL images and uint8 tensors, the axis with 1 or 3 entries is the channels, and (N, H, W) is grey. uint8
means 0 to 255 and is divided by 255. Nothing is scaled or cast beyond that: float64 stays float64.

Values are checked once, at the public boundary. Inner loops do not check: to read a value of a CUDA tensor costs a device
synchronisation.
"""

import hashlib
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gencls.core.errors import GenclsError

__all__ = [
    "as_images",
    "as_labels",
    "as_samples",
    "check_image_shape",
    "check_images",
    "check_labels",
    "is_picture",
    "joined",
    "rank_of",
    "sample_hashes",
    "unit_range",
]


def check_images(images: Tensor, *, channels: int | None = None, name: str = "images") -> None:
    """Check that a batch of images keeps the convention of the whole package.

    Args:
        images: a tensor, expected to be floating point, shape (N, C, H, W) with N >= 1, finite, in [0, 1].
        channels: the expected number of channels C; None accepts any.
        name: what the message calls the tensor.

    Raises:
        GenclsError: an expectation does not hold; the message names it and what came instead.
    """
    if not isinstance(images, Tensor):
        raise GenclsError(f"{name}: expected a torch.Tensor of shape (N, C, H, W), got {type(images).__name__}")
    if images.layout != torch.strided:
        raise GenclsError(f"{name}: expected a dense tensor, got layout {images.layout}; call .to_dense()")
    if images.ndim != 4:
        raise GenclsError(f"{name}: expected shape (N, C, H, W), got rank {images.ndim} with shape {tuple(images.shape)}")
    if not images.is_floating_point():
        hint = "; divide uint8 images by 255" if images.dtype == torch.uint8 else ""
        raise GenclsError(f"{name}: expected a floating-point dtype with values in [0, 1], got {images.dtype}{hint}")
    if images.numel() == 0:
        raise GenclsError(f"{name}: expected at least one image, got an empty batch of shape {tuple(images.shape)}")
    if channels is not None and images.shape[1] != channels:
        raise GenclsError(f"{name}: expected {channels} channels, got {images.shape[1]} (shape {tuple(images.shape)})")
    if not bool(torch.isfinite(images).all()):
        bad = int((~torch.isfinite(images)).sum())
        raise GenclsError(f"{name}: expected finite values, got {bad} NaN or infinite values")
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise GenclsError(f"{name}: expected values in [0, 1], got values in [{low:.4g}, {high:.4g}]")


def check_image_shape(images: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Refuse images that are not floating point, (N, *shape), as the named network wants them; values are not read."""
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not images.is_floating_point():
        raise GenclsError(
            f"{name}: expected floating-point images of shape (N, {', '.join(map(str, shape))}), "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )


def check_labels(labels: Tensor, *, num_classes: int | None, count: int | None = None) -> None:
    """Check class labels.

    Args:
        labels: a tensor, expected int64, shape (N,), values in 0 .. num_classes - 1.
        num_classes: the number of classes K; None checks for negative labels only.
        count: the number N of images they belong to; None accepts any.

    Raises:
        GenclsError: an expectation does not hold; the message names it and what came instead.
    """
    if not isinstance(labels, Tensor):
        raise GenclsError(f"labels: expected a torch.Tensor of shape (N,), got {type(labels).__name__}")
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise GenclsError(f"labels: expected int64 of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if count is not None and labels.shape[0] != count:
        raise GenclsError(f"labels: expected {count} labels, one per image, got {labels.shape[0]}")
    if labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if num_classes is None and low < 0:
            raise GenclsError(f"labels: expected values >= 0, got values in {low}..{high}")
        if num_classes is not None and (low < 0 or high >= num_classes):
            raise GenclsError(
                f"labels: expected values in 0..{num_classes - 1} for {num_classes} classes, got values in {low}..{high}"
            )


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
        raise GenclsError(f"labels: expected none beside a {own}, which has its own; got {got}")
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
        images = joined([_tensor(image, "images") for image in value], torch.stack)
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
        GenclsError: for anything else: an empty list, one-hot rows, words, booleans, numbers that are not whole.
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
    return labels.to(torch.int64)


def unit_range(images: Tensor) -> Tensor:
    """Bring images into [0, 1]: divide uint8 by 255, as float32, but refuse uint8 of only 0 and 1; others stay as they are."""
    if images.dtype != torch.uint8:
        return images
    if images.numel() and images.max() == 1:
        raise GenclsError("images: expected uint8 from 0 to 255, got 0 and 1 alone; give them as float32")
    return images.to(torch.float32).div_(255)


def sample_hashes(images: Tensor, labels: Tensor, seen: Counter[str] | None = None) -> list[str]:
    """Make one key per sample from its pixels (float32) and label; it is the same on every machine and in every order.

    A number at the end tells repeated samples apart: ``seen`` counts how often each sample came before, and is updated.
    """
    seen = Counter() if seen is None else seen
    arrays = images.detach().cpu().float().contiguous().numpy()
    keys = []
    for array, label in zip(arrays, labels, strict=True):
        key = hashlib.blake2b(array.tobytes() + str((array.shape, int(label))).encode(), digest_size=12).hexdigest()
        keys.append(f"{key}-{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return keys


def joined(parts: list[Tensor], join: Callable[[list[Tensor]], Tensor]) -> Tensor:
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
