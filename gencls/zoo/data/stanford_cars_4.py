"""Four types of car, 128x128, small enough for tests: the training part of Stanford Cars, cut to the annotated boxes.

It takes the place of `stanford-cars-types` if Stanford Cars is not at hand (Krause, Stark, Deng, Fei-Fei, "3D Object
Representations for Fine-Grained Categorization", 3dRR 2013). It has only photos of the training part, at most 600 a type, cut
to the car before black bars make them square. An eighth of each type is for testing, as in the MLVGM paper.
"""

from pathlib import Path

import numpy as np

from gencls.zoo.data.image_data import DataSet, ImageSource, part_of_each_class
from gencls.zoo.data.known_files import KnownFile, read_archive, table_rows
from gencls.zoo.data.pictures import picture_source, whole
from gencls.zoo.data.stanford_cars_types import TYPES

STANFORD_CARS_4_FILE = KnownFile(
    "StanfordCars/stanford-cars-types-128.tar.xz", 9_169_104, "4899a54b7adaf87f7058f2a075c22d30631c44d3f7b8d26758adb9a15a3623de"
)

_NAME = "stanford-cars-4"
_FOLDER = "stanford-cars-types-128"
_SEED = 0
_TEST_SHARE = 1 / 8
_SIDE = 128


def open_stanford_cars_4(split: str, root: Path | None) -> ImageSource:
    """Read one split from the archive in the folder StanfordCars under the data root.

    `indices` are the rows of the archive's table.
    """
    members = read_archive(_NAME, root, STANFORD_CARS_4_FILE)
    rows = table_rows(members[f"{_FOLDER}/labels.csv"])
    labels = np.array([TYPES.index(row["type"]) for row in rows], dtype=np.int64)
    tested = part_of_each_class(labels, _TEST_SHARE, _SEED)
    kept = np.flatnonzero(tested if split == "test" else ~tested)
    files = [members[f"{_FOLDER}/{rows[position]['file']}"] for position in kept]
    return picture_source(_NAME, files, whole(_SIDE), _SIDE, labels=labels[kept], class_names=TYPES, indices=kept)


DATA_SET = DataSet(open=open_stanford_cars_4, research_only=True)
