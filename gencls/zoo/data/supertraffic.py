"""SuperTraffic-10: traffic signs of three countries merged, the ten largest classes, 32x32 RGB.

Ju, "Generative Models as a Robust Alternative for Image Classification", 2021, section 2.3: GTSRB (Germany), DFG (Slovenia)
and BelgiumTS are merged, images smaller than 32x32 dropped, the ten classes with most images kept. The thesis leaves the rest
open, and it is settled here. The tables below say which classes of the three sets are the same. Every set keeps its own split.
Training images decide which ten classes are the largest; ties go to the smaller number. A sign that is cut out of a DFG street
scene keeps the border that the other two sets left around theirs.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gencls.core.errors import GenclsError
from gencls.zoo.data.gtsrb10 import GTSRB_CLASSES
from gencls.zoo.data.image_data import DataSet, ImageSource
from gencls.zoo.data.known_files import needed_root
from gencls.zoo.data.pictures import read_pictures, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

# DFG names its categories by the codes of the Slovenian rules on traffic signs (Uradni list RS 46/2000); their English
# names are from assets/traffic_sign_config.csv of github.com/Katerunner/adas-raspberry-modular. Left out are codes whose
# German counterpart has another pictogram or is split otherwise (double curves, humps, turns). DFG has no 80 and no sign
# that forbids passing to lorries only.
DFG_CLASSES = {
    "I-1": 19,  # bend to the left
    "I-1.1": 20,  # bend to the right
    "I-5.1": 24,  # road narrows on the right side
    "I-11": 23,  # slippery roadway
    "I-15": 28,  # children
    "I-16": 29,  # cyclists
    "I-18": 31,  # wild animals
    "I-19": 25,  # roadworks
    "I-20": 26,  # traffic signals ahead
    "I-25": 18,  # other danger
    "I-27": 11,  # crossing with minor road
    "I-32": 30,  # ice
    "II-1": 13,  # give way to major road
    "II-2": 14,  # stop
    "II-3": 15,  # closed to all traffic in both directions
    "II-4": 17,  # closed in this direction
    "II-7": 16,  # closed to trucks
    "II-28": 9,  # no overtaking
    "II-30-30": 1,  # speed limits
    "II-30-50": 2,
    "II-30-60": 3,
    "II-30-70": 4,
    "II-47": 38,  # keep right
    "II-47.1": 39,  # keep left
    "II-48": 40,  # roundabout mandatory
    "III-3": 12,  # priority road
    "III-16": 41,  # end of overtaking restriction
    "III-21": 32,  # end of all restrictions
}
"""Category names of DFG with the number of the same sign in GTSRB."""

# BelgiumTS numbers its 62 classes and names none. These are the ones on which two published correspondences with GTSRB
# agree: map_btsc_gtsrb in the PRDC 2021 modules of github.com/raulsenaferreira, and src/data/belgium_mapping.py of
# github.com/Charith-Reddy-Pareddy/Robustness-and-Quantized-Inference-for-Autonomous-Traffic-Sign-Analytics, which was
# checked against a GTSRB classifier. Of the signs that are frequent in GTSRB, the speed limits cannot be used (class 32
# holds all numbers), nor keep right (on class 35 sources differ) and no passing (one of them finds none).
BELGIUM_CLASSES = {
    0: 22,  # bumpy road
    7: 28,  # children
    10: 25,  # road work
    11: 26,  # traffic signals
    13: 18,  # danger
    17: 11,  # priority at next intersection
    19: 13,  # yield
    21: 14,  # stop
    22: 17,  # no entry
    28: 15,  # no vehicles
    34: 35,  # ahead only
    36: 36,  # straight or right
    61: 12,  # priority road
}
"""Class numbers of BelgiumTS with the number of the same sign in GTSRB."""

_SIDE = 32
_NUM_CLASSES = 10

_PAGES = {
    "GTSRB": "https://benchmark.ini.rub.de/gtsrb_dataset.html (GTSRB_Final_Training_Images.zip, "
    "GTSRB_Final_Test_Images.zip, GTSRB_Final_Test_GT.zip)",
    "DFG": "https://www.vicos.si/resources/dfg (JPEGImages.tar.bz2, DFG-tsd-annot-json.zip)",
    "BelgiumTS": "https://btsd.ethz.ch/shareddata (BelgiumTSC_Training.zip, BelgiumTSC_Testing.zip)",
}
# Under the data root; the second and third places of GTSRB are torchvision's.
_GTSRB_IMAGES = {
    "train": ("GTSRB/Final_Training/Images", "gtsrb/GTSRB/Final_Training/Images", "gtsrb/GTSRB/Training"),
    "test": ("GTSRB/Final_Test/Images", "gtsrb/GTSRB/Final_Test/Images"),
}
_GTSRB_TEST_TABLES = ("GTSRB/GT-final_test.csv", "GT-final_test.csv", "gtsrb/GT-final_test.csv")
_DFG_TABLES = ("DFG/{split}.json", "DFG/DFG-tsd-annot-json/{split}.json")
_DFG_IMAGES = ("DFG/JPEGImages",)
_BELGIUM_IMAGES = {
    "train": ("BelgiumTSC/Training", "BelgiumTSC_Training/Training"),
    "test": ("BelgiumTSC/Testing", "BelgiumTSC_Testing/Testing"),
}


@dataclass(frozen=True)
class Sign:
    """One annotated sign.

    Attributes:
        path: The picture that it is in.
        picture: Width and height of that picture in pixels, as annotated.
        box: Left, upper, right and lower edge of the sign with its border in that picture, in pixels.
        number: Number of its class in GTSRB.
    """

    path: Path
    picture: tuple[int, int]
    box: tuple[int, int, int, int]
    number: int

    @property
    def large_enough(self) -> bool:
        """Whether it is at least 32 pixels wide and high."""
        left, upper, right, lower = self.box
        return min(right - left, lower - upper) >= _SIDE

    def cut_out(self, picture: "Image") -> "Image":
        """Scale it to 32 x 32 pixels."""
        if picture.size != self.picture:
            raise OSError(f"annotated as {self.picture} pixels, it has {picture.size}")
        return scaled(self.box, _SIDE, of=self.picture)(picture)


def open_supertraffic10(split: str, root: Path | None) -> ImageSource:
    """Read one split of SuperTraffic-10 from the unpacked downloads of the three sets under the data root.

    The order is fixed: GTSRB, DFG, BelgiumTS, each in the order of its annotations; `indices` count in it. The images
    are decoded when asked for.

    Raises:
        GenclsError: A file is missing, an annotation or a picture is damaged, or fewer than ten classes have images.
    """
    root = needed_root("supertraffic10", root)
    train = _signs("train", root)
    numbers = largest_classes(train)
    kept = [sign for sign in (train if split == "train" else _signs(split, root)) if sign.number in numbers]
    for sign in kept:
        if not sign.path.is_file():
            raise GenclsError(f"supertraffic10: expected the picture {sign.path}, which is annotated; got no such file")
    return ImageSource(
        labels=torch.tensor([numbers.index(sign.number) for sign in kept], dtype=torch.int64),
        class_names=tuple(GTSRB_CLASSES[number] for number in numbers),
        read=lambda positions, size: torch.cat(
            [read_pictures("supertraffic10", [kept[p].path], kept[p].cut_out, _SIDE, size=size) for p in positions.tolist()]
        ),
        indices=torch.arange(len(kept)),
    )


def largest_classes(signs: list[Sign]) -> tuple[int, ...]:
    """Numbers of the ten classes with most signs, ascending; fewer than ten are an error."""
    counts = Counter(sign.number for sign in signs)
    if len(counts) < _NUM_CLASSES:
        raise GenclsError(
            f"supertraffic10: expected training images of at least {_NUM_CLASSES} classes; got {len(counts)} classes"
        )
    return tuple(sorted(sorted(counts, key=lambda number: (-counts[number], number))[:_NUM_CLASSES]))


def _signs(split: str, root: Path) -> list[Sign]:
    """All signs of a split that are large enough and have a class."""
    found = [*_gtsrb(split, root), *_dfg(split, root), *_belgium(split, root)]
    return [sign for sign in found if sign.large_enough]


def _gtsrb(split: str, root: Path) -> Iterator[Sign]:
    folder = _find("GTSRB", root, _GTSRB_IMAGES[split])
    if split == "test":
        yield from _rows(_find("GTSRB", root, _GTSRB_TEST_TABLES), folder, {n: n for n in range(len(GTSRB_CLASSES))})
        return
    for number in range(len(GTSRB_CLASSES)):
        name = f"{number:05d}"
        yield from _rows(_find("GTSRB", folder, (f"{name}/GT-{name}.csv",)), folder / name, {number: number})


def _belgium(split: str, root: Path) -> Iterator[Sign]:
    folder = _find("BelgiumTS", root, _BELGIUM_IMAGES[split])
    for number, same in BELGIUM_CLASSES.items():
        name = f"{number:05d}"
        # A class without test images may have no folder there; every class has training images.
        if split == "train" or (folder / name).is_dir():
            yield from _rows(_find("BelgiumTS", folder, (f"{name}/GT-{name}.csv",)), folder / name, {number: same})


def _rows(table: Path, folder: Path, classes: Mapping[int, int]) -> Iterator[Sign]:
    """Signs of a table in the format of GTSRB, one row a picture; `classes` maps the numbers that it may hold."""
    # A byte that is no text becomes a character that no number or file name has, and the line is named below.
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        for line, row in enumerate(csv.DictReader(file, delimiter=";"), start=2):
            try:
                width, height, number = int(row["Width"]), int(row["Height"]), classes[int(row["ClassId"])]
                yield Sign(folder / row["Filename"], (width, height), (0, 0, width, height), number)
            except (KeyError, TypeError, ValueError):
                raise GenclsError(
                    f"{table}, line {line}: expected Filename;Width;Height;...;ClassId with a ClassId among "
                    f"{', '.join(map(str, classes))}; got {row}"
                ) from None


def _dfg(split: str, root: Path) -> Iterator[Sign]:
    table = _find("DFG", root, tuple(place.format(split=split) for place in _DFG_TABLES))
    folder = _find("DFG", root, _DFG_IMAGES)
    try:
        content = json.loads(table.read_bytes())
        numbers = {category["id"]: DFG_CLASSES.get(category["name"]) for category in content["categories"]}
        pictures = {picture["id"]: picture for picture in content["images"]}
        annotations = list(content["annotations"])
    except (KeyError, TypeError, ValueError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise GenclsError(f"{table}: expected COCO annotations with categories, images and annotations; {error!r}") from None
    if unknown := DFG_CLASSES.keys() - {category["name"] for category in content["categories"]}:
        raise GenclsError(f"{table}: expected the categories of DFG; got none named {', '.join(sorted(unknown))}")
    for annotation in annotations:
        try:
            number = numbers[annotation["category_id"]]
            # The makers mark signs under 30 pixels so, whose boxes are loose.
            if number is not None and not annotation.get("ignore", False):
                yield _cut_out(pictures[annotation["image_id"]], annotation["bbox"], folder, number)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GenclsError(
                f"{table}: expected annotations with category_id, image_id and bbox inside the picture; {error!r} in "
                f"{str(annotation)[:200]}"
            ) from None


def _cut_out(picture: Mapping[str, Any], bbox: list[float], folder: Path, number: int) -> Sign:
    """A sign of a street scene with a border of 10 % of its size, at least 5 pixels, as GTSRB and BelgiumTS have it."""
    left, upper, width, height = bbox
    inside = left < picture["width"] and upper < picture["height"] and left + width > 0 and upper + height > 0
    if not (width > 0 and height > 0 and inside):
        raise ValueError(f"bbox {bbox} in a picture of {picture['width']}x{picture['height']} pixels")
    across, down = max(5.0, width / 10), max(5.0, height / 10)
    box = (
        max(0, round(left - across)),
        max(0, round(upper - down)),
        min(picture["width"], round(left + width + across)),
        min(picture["height"], round(upper + height + down)),
    )
    return Sign(folder / picture["file_name"], (picture["width"], picture["height"]), box, number)


def _find(name: str, root: Path, places: tuple[str, ...]) -> Path:
    """The first of some places under a folder that exists."""
    for place in places:
        if (root / place).exists():
            return root / place
    raise GenclsError(
        f"supertraffic10: expected {' or '.join(places)} of {name} under {root}; got no such file or folder. "
        f"Get the originals from {_PAGES[name]} and unpack them under the data root"
    )


DATA_SET = DataSet(open=open_supertraffic10)
