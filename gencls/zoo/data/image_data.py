"""What a data set is: images with labels, read on demand, and balanced subsets of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gencls.core.errors import GenclsError


@dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set, or a part of it, in memory.

    Attributes:
        name: Name of the data set, as `load_data` takes it.
        split: Name of the split.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64 in [0, K).
        class_names: The K classes in the order of their labels.
        indices: (N,) int64, the position of each image in the files it comes from.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    indices: Tensor

    @property
    def num_classes(self) -> int:
        """Number of classes K of the data set, also where a small subset has images of fewer."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A split whose labels are known and whose images are decoded only when asked for.

    Attributes:
        labels: (N,) int64 in [0, K).
        class_names: The K classes.
        read: `read(positions, size)` gives the images at these positions of `labels`, (n, C, H, W) uint8.
        indices: (N,) int64, the position of each image in the files it comes from.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    read: Callable[[Tensor, int | None], Tensor]
    indices: Tensor


def balanced_subset(labels: Tensor, limit: int, seed: int) -> Tensor:
    """Positions of a random subset in which the classes are as equally frequent as the labels allow.

    The classes take turns, so that K consecutive positions hold every class once until one runs out, and the subset of
    a smaller limit is the beginning of that of a larger one: a study can be extended and keeps its first samples.

    Args:
        labels: (N,) int64.
        limit: Size n of the subset, 1 to N.
        seed: 0 to 2**32 - 1.

    Returns:
        (n,) int64 positions, no two the same.

    Raises:
        GenclsError: Limit or seed is out of range.
    """
    if not 1 <= limit <= len(labels):
        raise GenclsError(f"limit must be between 1 and {len(labels)}, the number of images in the split; got {limit}")
    classes = labels.numpy()
    order = permutation(len(classes), seed)
    turn = np.empty(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = order[classes[order] == label]
        turn[members] = np.arange(len(members))
    return torch.from_numpy(order[np.argsort(turn[order], kind="stable")][:limit])


def permutation(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Random order of `count` items from `seed`.

    Raises:
        GenclsError: The seed is not in 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise GenclsError(f"seed must be between 0 and {2**32 - 1}; got {seed}")
    # RandomState, because numpy promises the same stream from it in every version, which neither its newer generators
    # nor torch do: published splits and subsets must stay what they are.
    return np.random.RandomState(seed).permutation(count).astype(np.int64)


def shuffled_classes(labels: npt.NDArray[np.int64], seed: int) -> list[npt.NDArray[np.int64]]:
    """Positions of each class in random order, the classes ascending: for splits that take a part of each.

    Args:
        labels: (N,) int64.
        seed: 0 to 2**32 - 1.

    Raises:
        GenclsError: The seed is out of range.
    """
    order = permutation(len(labels), seed)
    return [order[labels[order] == label] for label in np.unique(labels)]


def resize_and_crop(images: Tensor, size: int | None) -> Tensor:
    """Scale the shorter side to `size` (bilinear, antialiased) and cut out the centre square; None changes nothing.

    Args:
        images: (..., C, H, W) uint8.
        size: Side in pixels.

    Returns:
        (..., C, size, size) uint8, or `images` themselves.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, [size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped
