"""All of CIFAR10 as JPEG, 32x32, small enough for tests: two archives instead of `cifar10`, 18 MB instead of 170.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The files are lossy: pixels differ from the originals
by 7.9/255 (root mean square), and a network that was trained on the originals is right on about 10 % fewer of these.
"""

from pathlib import Path

from gencls.zoo.data.image_data import DataSet, ImageSource
from gencls.zoo.data.known_files import KnownFile, read_archive
from gencls.zoo.data.pictures import picture_source, whole

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes in the order of their labels."""

CIFAR10_JPEG_FILES = {
    "train": KnownFile(
        "CIFAR10-jpeg/cifar10-jpeg-train.tar.xz", 15_360_964, "670800a2870b1f4fdaa9eed6815199125416b4dd207b55f74eeb977351c50d2f"
    ),
    "test": KnownFile(
        "CIFAR10-jpeg/cifar10-jpeg-test.tar.xz", 3_084_104, "274acdb6b93c7ea17b86dd1df7a3447712512619e3ab70340fcd515dc631c4ab"
    ),
}

_NAME = "cifar10-jpeg"
_SIDE = 32


def open_cifar10_jpeg(split: str, root: Path | None) -> ImageSource:
    """Read one split from its archive in the folder CIFAR10-jpeg under the data root.

    Images are sorted by class. `indices` are positions in the archive.
    """
    members = read_archive(_NAME, root, CIFAR10_JPEG_FILES[split])
    labels = [CIFAR10_CLASSES.index(name.split("/")[1]) for name in members]
    return picture_source(_NAME, list(members.values()), whole(_SIDE), _SIDE, labels=labels, class_names=CIFAR10_CLASSES)


DATA_SET = DataSet(open=open_cifar10_jpeg)
