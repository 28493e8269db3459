"""A hundred persons of CelebA, 64x64, small enough for tests: 28 to 30 photos each, cut from photos "in the wild".

In the place of `celeba-identities` where the whole of CelebA is not at hand: faces found by MTCNN, aligned to CelebA's mean
face and cut to 148 pixels, stored at 128x128 and halved here, which gives the 64x64 of the MLVGM paper. The archive's
table has the split, stratified by identity.
"""

import csv
import io
from pathlib import Path

import torch

from gencls.zoo.data.image_data import ImageSource
from gencls.zoo.data.known_files import KnownFile, needed_root, read_known, unpacked
from gencls.zoo.data.pictures import read_pictures, whole

CELEBA_100_IDENTITIES_SPLITS = ("train", "test")

CELEBA_100_IDENTITIES_FILE = KnownFile(
    "CelebA/celeba-identities-128.tar.xz", 13_849_068, "bc2890a103aac847b345204331135bda95736404becc1a7e717c640980e7166c"
)

_NAME = "celeba-100-identities"
_FOLDER = "celeba-identities-128"
_SIDE = 64


def open_celeba_100_identities(split: str, root: Path | None) -> ImageSource:
    """Read one split from the archive in the folder CelebA under the data root.

    Classes are named by CelebA's numbers of the identities. `indices` are the rows of the archive's table.

    Raises:
        GenclsError: The archive is missing or not the original.
    """
    members = unpacked(read_known(_NAME, needed_root(_NAME, root), CELEBA_100_IDENTITIES_FILE))
    rows = list(csv.DictReader(io.StringIO(members[f"{_FOLDER}/labels.csv"].decode())))
    kept = [position for position, row in enumerate(rows) if row["split"] == split]
    files = [members[f"{_FOLDER}/{rows[position]['file']}"] for position in kept]
    names = {int(row["label"]): row["celeba_identity"] for row in rows}
    return ImageSource(
        labels=torch.tensor([int(rows[position]["label"]) for position in kept], dtype=torch.int64),
        class_names=tuple(names[label] for label in sorted(names)),
        read=lambda positions, size: read_pictures(
            _NAME, [files[p] for p in positions.tolist()], whole(_SIDE), _SIDE, size=size
        ),
        indices=torch.tensor(kept, dtype=torch.int64),
    )
