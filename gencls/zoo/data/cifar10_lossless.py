"""4,000 training and 200 test images of CIFAR10, pixel by pixel the originals, from two sprite sheets and a label table.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The training images are the first of its training
set. The test images were picked by papers on verification, not at random: an accuracy on them is not one on CIFAR10's test set.
"""

import io
from pathlib import Path

import numpy as np
import torch

from gencls.zoo.data.cifar10_jpeg import CIFAR10_CLASSES
from gencls.zoo.data.image_data import DataSet, ImageSource, in_memory
from gencls.zoo.data.known_files import KnownFile, read_known
from gencls.zoo.data.pictures import sheet_tiles

CIFAR10_LOSSLESS_SHEETS = {
    "train": KnownFile(
        "CIFAR10-lossless-subset/cifar10-lossless-train4000.webp",
        6_826_836,
        "9614f3af6bfc92371376ddb139af4f6af87f47f7af0ae63980b668353707e092",
    ),
    "test": KnownFile(
        "CIFAR10-lossless-subset/cifar10-lossless-test200.webp",
        330_756,
        "9a7f70b6424081fb05d50172464eda4dd1aaaee2e3426768fe3eba452c84de7c",
    ),
}
CIFAR10_LOSSLESS_LABELS = KnownFile(
    "CIFAR10-lossless-subset/cifar10-lossless-labels.npz",
    12_336,
    "be3a6a5cc55417deff8f4879d43a3d15000c1edcfcf431e24c1fbd6092e0f0cf",
)

_NAME = "cifar10-lossless"
_SIDE = 32


def open_cifar10_lossless(split: str, root: Path | None) -> ImageSource:
    """Read one split from the folder CIFAR10-lossless-subset under the data root.

    `indices` are positions in the sheet, and for "train" in CIFAR10's training set.
    """
    sheet, table = (read_known(_NAME, root, file) for file in (CIFAR10_LOSSLESS_SHEETS[split], CIFAR10_LOSSLESS_LABELS))
    with np.load(io.BytesIO(table)) as columns:
        labels = columns[f"y_{split}"].astype(np.int64)
    images = torch.from_numpy(sheet_tiles(sheet, len(labels), _SIDE))
    return in_memory(images, torch.from_numpy(labels), CIFAR10_CLASSES, torch.arange(len(labels)))


DATA_SET = DataSet(open=open_cifar10_lossless)
