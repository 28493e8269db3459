"""Stanford Cars by type: coupe, hatchback, SUV and van, 128x128, the third task of the MLVGM paper.

Serez et al., WACV 2025, section 4: "800 128x128-resolution images per class, keeping 100 of them for validation";
supplement, appendix C: "We use the provided class names to filter those containing the words 'coupe', 'hatchback', 'suv' or
'van' in the original label. Then, we regroup them into 4 classes and manually remove outliers, keeping the same number of
images per class. Lastly, each image is squared, adding black padding at the top and bottom sides, and resized at 128x128".

The rest is settled here. No outlier is removed, because nobody knows which ones the authors took out. "minivan" counts as
"van", as the paper names the class in section 4, but "Vantage" does not. Both parts of Stanford Cars are used, because neither
alone has so many vans. Photos are drawn once for all. A photo that is higher than wide is padded left and right.
"""

import re
from pathlib import Path

import numpy as np

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import DataSet, ImageSource, shuffled_classes
from gencls.zoo.data.known_files import needed_root
from gencls.zoo.data.pictures import picture_source, squared
from gencls.zoo.data.stanford_cars import read_cars

TYPES = ("coupe", "hatchback", "suv", "van")
"""The four classes, in the order of their labels."""

PER_TYPE = 800
TEST_PER_TYPE = 100

_NAME = "stanford-cars-types"
_SEED = 0
_SIDE = 128


def open_stanford_cars_types(split: str, root: Path | None) -> ImageSource:
    """Read one split from the original files of Stanford Cars in ``stanford_cars``, as torchvision lays them out.

    700 photos of each class are for training, 100 for testing. `indices` count in the annotations, "cars_train" first.

    Raises:
        GenclsError: Files are missing or damaged, or a class has fewer than 800 photos.
    """
    parts = [read_cars(needed_root(_NAME, root), part, _NAME) for part in ("train", "test")]
    photos = [path for cars in parts for path in cars.paths]
    types = np.array([car_type(cars.class_names[label]) for cars in parts for label in cars.labels], dtype=np.int64)
    for label, name in enumerate(TYPES):
        if (count := int((types == label).sum())) < PER_TYPE:
            raise GenclsError(f"{_NAME}: expected at least {PER_TYPE} photos of the type {name}; got {count}")
    part = slice(TEST_PER_TYPE) if split == "test" else slice(TEST_PER_TYPE, PER_TYPE)
    members = shuffled_classes(types, _SEED)[-len(TYPES) :]  # photos without a type, if any, stand in front of these
    kept = np.sort(np.concatenate([positions[part] for positions in members]))
    files = [photos[position] for position in kept]
    return picture_source(_NAME, files, squared(_SIDE), _SIDE, labels=types[kept], class_names=TYPES, indices=kept)


def car_type(class_name: str) -> int:
    """Position in `TYPES` of the type that a class of Stanford Cars ("Dodge Caravan Minivan 1997") names, or -1."""
    words = re.findall(r"[a-z]+", class_name.lower().replace("minivan", "van"))
    return next((label for label, name in enumerate(TYPES) if name in words), -1)


DATA_SET = DataSet(open=open_stanford_cars_types, research_only=True)
