"""The user's own data: a folder of images by class, an .npz, or something to import."""

import os
from pathlib import Path

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.images import check_labels
from gencls.core.samples import samples_of
from gencls.zoo.data.folder import open_folder
from gencls.zoo.data.image_data import ImageData, ImageSource, in_memory
from gencls.zoo.data.npz import read_npz
from gencls.zoo.imported import imported

KINDS = "a folder of images by class, an .npz file, or package.module:attribute"
"""Forms that say where data is, beside the names of data sets."""

ARRAYS = (
    ("images", "labels"),
    ("x", "y"),
    ("x_test", "y_test"),
    ("images_test", "labels_test"),
    ("test_images", "test_labels"),
    ("data", "labels"),
    ("data", "targets"),
    ("arr_0", "arr_1"),
)
"""Names of the two arrays of an .npz, in any case; a file with two of these pairs is refused."""

_MOST_CLASSES = 10**5
"""Largest label; a larger one is hardly the number of a class."""


def is_own(name: str | Path) -> bool:
    """Whether this says where own data is. Whether it can be read shows later."""
    return isinstance(name, Path) or ":" in name or name.lower().endswith(".npz") or os.path.exists(os.path.expanduser(name))


def open_own(name: str | Path, split: str | None) -> tuple[str, str, ImageSource]:
    """Give a short name, the split ("all" without one) and the data, see :func:`gencls.zoo.load_data`.

    Raises:
        GenclsError: Nothing is there, or something else.
    """
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        return path.resolve().name or "root", split or "all", open_folder(path, split)
    if split is not None:
        raise GenclsError(f"{name}: expected no split, because these data are taken as they are; got {split!r}; leave it out")
    if path.suffix.lower() == ".npz" and os.path.isfile(path):
        return path.stem, "all", _open_npz(path)
    if os.path.exists(path):
        raise GenclsError(f"{name}: expected {KINDS}; got a file of another kind")
    if isinstance(name, Path) or ":" not in name:
        raise GenclsError(f"{name}: expected {KINDS}; got no such file or folder")
    return name.replace(":", "."), "all", _open_imported(name)


def _open_npz(path: Path) -> ImageSource:
    """Read the pair of arrays that `ARRAYS` names."""
    images, labels = read_npz(path, ARRAYS)
    try:
        return _source(images, labels)
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from None


def _open_imported(spec: str) -> ImageSource:
    found = imported(spec, lambda found: not callable(found), "data")
    try:
        images, labels = samples_of(found)
        return _source(images, labels, found.class_names if isinstance(found, ImageData) else None)
    except GenclsError as error:
        raise GenclsError(f"{spec}: {error}") from None
    except Exception as error:  # an error of the user's code
        raise GenclsError(f"{spec}: expected data that can be read; got {type(error).__name__}: {error}") from error


def _source(images: Tensor, labels: Tensor, class_names: tuple[str, ...] | None = None) -> ImageSource:
    """Images (N, C, H, W), uint8 or floating point, and their labels."""
    check_labels(labels, num_classes=None if class_names is None else len(class_names), count=len(images))
    largest = int(labels.max())
    if largest >= _MOST_CLASSES:
        raise GenclsError(f"labels: expected class numbers below {_MOST_CLASSES}, got {largest}")

    return in_memory(images, labels, class_names or tuple(map(str, range(largest + 1))), torch.arange(len(labels)))
