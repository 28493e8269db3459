"""The form of images and labels that all code takes: checks of it, and keys of their content.

Values are checked once, at the public boundary. Inner loops do not check: to read a value of a CUDA tensor costs a device
synchronisation.
"""

import hashlib
from collections import Counter

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.words import counted

__all__ = ["check_image_shape", "check_images", "check_labels", "sample_hashes"]


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
        raise GenclsError(
            f"{name}: expected {counted(channels, 'channel')}, got {images.shape[1]} (shape {tuple(images.shape)})"
        )
    if not bool(torch.isfinite(images).all()):
        bad = int((~torch.isfinite(images)).sum())
        raise GenclsError(f"{name}: expected finite values, got {bad} NaN or infinite values")
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise GenclsError(f"{name}: expected values in [0, 1], got values in [{low:.4g}, {high:.4g}]")


def check_image_shape(images: Tensor, shape: tuple[int, ...], *, name: str, why: str = "") -> None:
    """Refuse images that are not floating point, (N, *shape), as the named network wants them; values are not read.

    ``why`` stands behind the shape in the message: ", as the generator makes".
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not images.is_floating_point():
        raise GenclsError(
            f"{name}: expected floating-point images of shape (N, {', '.join(map(str, shape))}){why}, "
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
        raise GenclsError(f"labels: expected {counted(count, 'label')}, one per image, got {labels.shape[0]}")
    if labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if num_classes is None and low < 0:
            raise GenclsError(f"labels: expected values >= 0, got values in {low}..{high}")
        if num_classes is not None and (low < 0 or high >= num_classes):
            raise GenclsError(
                f"labels: expected values in 0..{num_classes - 1} for {counted(num_classes, 'class')}, got values in "
                f"{low}..{high}"
            )


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
