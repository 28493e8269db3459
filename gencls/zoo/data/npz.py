"""Images and labels as arrays of numpy, in .npz files."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.core.foreign import as_images, as_labels, unit_range
from gencls.core.images import check_images, check_labels
from gencls.zoo.data.image_data import ImageSource, in_memory
from gencls.zoo.data.known_files import needed_root

Pairs = Sequence[tuple[str, str]]

PAIRS: Pairs = (("images", "labels"), ("x", "y"), ("data", "labels"), ("data", "targets"), ("arr_0", "arr_1"))
"""Names of the two arrays of a file that has one split."""


def open_npz(name: str, class_names: tuple[str, ...], split: str, root: Path | None) -> ImageSource:
    """Read one split of a data set of arrays: ROOT/NAME/SPLIT.npz, or the arrays of the split in ROOT/NAME.npz.

    A row of the registry is ``"shapes": DataSet(open=partial(open_npz, "shapes", ("circle", "square", "triangle")))``.

    A file of a split has one of the pairs of arrays in `PAIRS`. A file of several has ``images_SPLIT`` and ``labels_SPLIT``,
    ``x_SPLIT`` and ``y_SPLIT`` (Keras), or ``SPLIT_images`` and ``SPLIT_labels`` (MedMNIST). Images are (N, C, H, W),
    (N, H, W, C) or (N, H, W), uint8 from 0 to 255 or float32 in [0, 1]; labels are whole numbers (N,) or (N, 1).

    Raises:
        GenclsError: There is no data root or no such file; it lacks the arrays; a value is out of range, or not one label for
            each image.
    """
    place = needed_root(name, root)
    path, whole = place / name / f"{split}.npz", place / f"{name}.npz"
    pairs = PAIRS
    if not path.is_file():
        if not whole.is_file():
            raise GenclsError(
                f"{name}: expected {name}/{split}.npz or {name}.npz under the data root {place}; got no such file"
            )
        path = whole
        part = split.lower()
        pairs = ((f"images_{part}", f"labels_{part}"), (f"x_{part}", f"y_{part}"), (f"{part}_images", f"{part}_labels"))
    images, labels = read_npz(path, pairs)
    try:
        if images.dtype == torch.float64:
            raise GenclsError("images: expected uint8 or float32, as networks are float32; got float64")
        check_labels(labels, num_classes=len(class_names), count=len(images))
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from None
    return in_memory(images, labels, class_names, torch.arange(len(labels)))


def read_npz(path: Path, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W), uint8, float32 or float64, and int64 labels (N,), from the only one of these pairs in the file.

    Names are compared in any case, and nothing is unpickled.

    Raises:
        GenclsError: The file cannot be read, has none of the pairs or several, or other images or labels.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is one array alone")
            found = [pair for pair in product(archive.files, repeat=2) if tuple(map(str.lower, pair)) in pairs]
            arrays = tuple(archive[name] for name in found[0]) if len(found) == 1 else None
            names = ", ".join(archive.files) or "nothing"
    except Exception as error:  # zipfile, zlib and numpy's reader share no error class
        raise GenclsError(f"{path}: expected an .npz of arrays without objects; it cannot be read: {error}") from error
    if len(found) > 1:
        got = "; ".join(map(" and ".join, found))
        raise GenclsError(f"{path}: expected one pair of images and labels, got {len(found)}: {got}; keep one of them")
    if arrays is None:
        raise GenclsError(f"{path}: expected arrays named {' or '.join(map(' and '.join, pairs))}; got {names}")
    try:
        images = as_images(arrays[0])
        check_images(unit_range(images[:1]) if images.dtype == torch.uint8 else images)
        return images, as_labels(arrays[1])
    except GenclsError as error:
        raise GenclsError(f"{path}: {error}") from None
