"""The parts of a data set: images with labels, read on demand, and balanced subsets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
        """Number of classes K of the data set, even if a small subset has images of fewer."""
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


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """How a data set is read; one row of the registry.

    Attributes:
        open: `open(split, root)` finds the images of a split. `root` is the data root, None if nobody named one. It raises
            GenclsError if a file is missing or not the original.
        splits: Names of the splits.
        fetch: `open` that lets torchvision download what is missing; None: gencls has no address of the files.
        embedded: Whether it needs no data root.
        training: The splits to train on and to test on.
        trainable: Whether one can train on it as it is; if images differ in size, only trainings that scale them can.
        also_tested: Other sets whose test split trained networks are measured on.
        research_only: Whether its makers allow only non-commercial research with what is derived from it.
    """

    open: Callable[[str, Path | None], ImageSource]
    splits: tuple[str, ...] = ("train", "test")
    fetch: Callable[[str, Path | None], ImageSource] | None = None
    embedded: bool = False
    training: tuple[str, str] = ("train", "test")
    trainable: bool = True
    also_tested: tuple[str, ...] = ()
    research_only: bool = False


def in_memory(images: Tensor, labels: Tensor, class_names: tuple[str, ...], indices: Tensor) -> ImageSource:
    """Images (N, C, H, W) that need no decoding, as a source."""
    return ImageSource(labels, class_names, lambda positions, size: resize_and_crop(images[positions], size), indices)


def balanced_subset(labels: Tensor, limit: int, seed: int) -> Tensor:
    """Positions of a random subset in which the classes are as equally frequent as the labels allow.

    The classes take turns, so that K consecutive positions hold every class once until one runs out. A smaller subset is the
    beginning of a larger one, so a study can be extended and keeps its first samples.

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
    # RandomState, because numpy promises the same stream from it in every version. Its newer generators and torch do not, and
    # published splits and subsets must stay what they are.
    return np.random.RandomState(seed).permutation(count).astype(np.int64)


def shuffled_classes(labels: npt.NDArray[np.int64], seed: int) -> list[npt.NDArray[np.int64]]:
    """Positions of each class of labels (N,) in random order, classes ascending; a split may take a part of each class."""
    order = permutation(len(labels), seed)
    return [order[labels[order] == label] for label in np.unique(labels)]


def part_of_each_class(labels: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose a random part of each class of labels (N,), this share of its images, as (N,) bool."""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for members in shuffled_classes(labels, seed):
        chosen[members[: round(share * len(members))]] = True
    return chosen


def resize_and_crop(images: Tensor, size: int | None) -> Tensor:
    """Scale the shorter side of images (..., C, H, W) uint8 to `size` (bilinear, antialiased), and cut out the centre square.

    None changes nothing.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(images, [size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped
