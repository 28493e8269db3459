"""Colour data sets, read by torchvision: CIFAR10, SVHN, GTSRB, CelebA, StanfordCars, Imagenette.

The folders under the data root are torchvision's own. Files whose MD5 torchvision knows are checked before they are
read (CIFAR10's are pickles: torchvision opens them only after that check).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import DataSet, ImageSource, resize_and_crop
from gencls.zoo.data.known_files import needed_root
from gencls.zoo.data.stanford_cars import read_cars


@dataclass(frozen=True)
class _Opened:
    """A torchvision data set of (PIL image, target) pairs, and the labels and classes it is used with here."""

    dataset: Any
    labels: Sequence[int]
    class_names: tuple[str, ...]


def open_torchvision(name: str, split: str, root: Path | None, *, download: bool = False) -> ImageSource:
    """Read the labels of one split; its images are decoded when asked for.

    CelebA's labels are the attribute "Male", the two-class task of the purification papers. Imagenette is the full-size
    version.

    Raises:
        GenclsError: Files are missing, damaged, or could not be downloaded.
    """
    opened = _opened(name, split, needed_root(name, root), download=download)
    return ImageSource(
        labels=torch.as_tensor(opened.labels, dtype=torch.int64),
        class_names=opened.class_names,
        read=lambda positions, size: _read(name, split, opened.dataset, positions, size),
        indices=torch.arange(len(opened.labels)),
    )


def _opened(name: str, split: str, root: Path, *, download: bool) -> _Opened:
    if name == "stanford-cars":
        try:
            cars = read_cars(root, split, name)
        except GenclsError as error:
            if not download:
                raise
            raise GenclsError(f"{name} could not be downloaded into {root}: The original URL is broken; {error}") from error
        return _Opened(cars, cars.labels, cars.class_names)
    from torchvision import datasets

    needed = _needed(datasets, name, split)
    missing = [path for path, _ in needed if not (root / path).exists()]
    if missing and not download:
        raise GenclsError(
            f"{name}: expected {', '.join(missing)} under the data root {root}; got no such file or folder. Put the set "
            "there as torchvision lays it out, or allow the download with download=True"
        )
    try:
        return _read_labels(datasets, name, root, split, bool(missing))
    except Exception as error:  # the formats' readers (pickle, scipy, csv, PIL) share no error class
        if missing:
            raise GenclsError(f"{name} could not be downloaded into {root}: {error}") from error
        raise GenclsError(_diagnosis(name, root, needed, error)) from error


def _read(name: str, split: str, dataset: Any, positions: Tensor, size: int | None) -> Tensor:
    """Decode images into one tensor, (n, 3, H, W) uint8."""
    from torchvision.transforms.functional import pil_to_tensor

    images: list[Tensor] = []
    for position in positions.tolist():
        try:
            image = pil_to_tensor(dataset[position][0].convert("RGB"))
        except OSError as error:
            raise GenclsError(f"{name}: image {position} of split {split} cannot be read: {error}") from error
        image = resize_and_crop(image, size)
        if images and image.shape != images[0].shape:
            first, other = (f"{height}x{width}" for _, height, width in (images[0].shape, image.shape))
            raise GenclsError(
                f"{name}: expected images of one size; got {first} and {other} (height x width). Pass size= to scale "
                f"the shorter side to it and cut out the centre square"
            )
        images.append(image)
    return torch.stack(images)


def _needed(datasets: Any, name: str, split: str) -> list[tuple[str, str | None]]:
    """Files and folders of a split under the data root, with their MD5 where torchvision knows it."""
    if name == "cifar10":
        cifar, folder = datasets.CIFAR10, datasets.CIFAR10.base_folder
        files = [*cifar.train_list, *cifar.test_list, [cifar.meta["filename"], cifar.meta["md5"]]]
        return [(f"{folder}/{file}", md5) for file, md5 in files]
    if name == "svhn":
        _, file, md5 = datasets.SVHN.split_list[split]
        return [(file, md5)]
    if name == "celeba":
        folder = datasets.CelebA.base_folder
        lists = [(f"{folder}/{file}", md5) for _, md5, file in datasets.CelebA.file_list if not file.endswith(".zip")]
        return [(f"{folder}/img_align_celeba", None), *lists]
    paths = {
        ("gtsrb", "train"): ("gtsrb/GTSRB/Training",),
        ("gtsrb", "test"): ("gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
        ("imagenette", "train"): ("imagenette2/train",),
        ("imagenette", "val"): ("imagenette2/val",),
    }[name, split]
    return [(path, None) for path in paths]


def _diagnosis(name: str, root: Path, needed: list[tuple[str, str | None]], error: Exception) -> str:
    """Say what is wrong with files that are there but cannot be used."""
    from torchvision.datasets.utils import calculate_md5

    for path, md5 in needed:
        if md5 is not None and (actual := calculate_md5(root / path)) != md5:
            return (
                f"{root / path}: expected the original file, MD5 {md5}; got MD5 {actual} "
                f"({(root / path).stat().st_size} bytes). Remove it and fetch it again"
            )
    return f"{name}: the files under the data root {root} cannot be read: {error}"


def _read_labels(datasets: Any, name: str, root: Path, split: str, download: bool) -> _Opened:
    if name == "cifar10":
        dataset = datasets.CIFAR10(root, train=split == "train", download=download)
        return _Opened(dataset, dataset.targets, tuple(dataset.classes))
    if name == "svhn":
        dataset = datasets.SVHN(root, split, download=download)
        return _Opened(dataset, dataset.labels, tuple("0123456789"))
    if name == "celeba":
        dataset = datasets.CelebA(root, split, target_type="attr", download=download)
        return _Opened(dataset, dataset.attr[:, dataset.attr_names.index("Male")], ("female", "male"))
    dataset = (datasets.GTSRB if name == "gtsrb" else datasets.Imagenette)(root, split, download=download)
    names = map(str, range(43)) if name == "gtsrb" else (names[0] for names in dataset.classes)
    # Torchvision offers no other way to these labels than to decode every image.
    return _Opened(dataset, [int(label) for _, label in dataset._samples], tuple(names))


def _row(name: str, *splits: str, trainable: bool = False, **settings: Any) -> DataSet:
    fetch = partial(open_torchvision, name, download=True)
    return DataSet(open=partial(open_torchvision, name), fetch=fetch, splits=splits, trainable=trainable, **settings)


TORCHVISION = {
    "cifar10": _row("cifar10", "train", "test", trainable=True),
    "svhn": _row("svhn", "train", "test", "extra", trainable=True),
    "gtsrb": _row("gtsrb", "train", "test"),
    "celeba": _row("celeba", "train", "valid", "test"),
    "stanford-cars": _row("stanford-cars", "train", "test"),
    "imagenette": _row("imagenette", "train", "val", training=("train", "val"), research_only=True),
}
