"""GTSRB-10: the ten largest classes of German traffic signs, 32x32 RGB, from two sprite sheets with their label tables.

Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer: benchmarking machine learning algorithms for traffic sign
recognition", Neural Networks 32, 2012. The selection is the German part of SuperTraffic-10 (Ju, "Generative Models as a
Robust Alternative for Image Classification", 2021, section 2.3): photos at least 32 pixels wide and high, and the ten
classes with most of them.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gencls.zoo.data.image_data import DataSet, ImageSource, in_memory, permutation
from gencls.zoo.data.known_files import KnownFile, read_known
from gencls.zoo.data.pictures import sheet_tiles

GTSRB_CLASSES = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing over 3.5 t",
    "priority at next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no vehicles over 3.5 t",
    "no entry",
    "danger",
    "curve left",
    "curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight or right",
    "straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing over 3.5 t",
)
"""The 43 classes of the full GTSRB, in the order of their numbers."""

GTSRB10_NUMBERS = (1, 2, 4, 5, 9, 10, 12, 13, 25, 38)
"""Numbers in the full GTSRB of the ten classes, in the order of their labels 0 to 9."""

_SIDE = 32
_VALIDATION_SEED = 0
_VALIDATION_SHARE = 0.1


GTSRB10_FILES = {
    "train": (
        KnownFile("GTSRB/gtsrb10-32-train.webp", 9_940_068, "649f98d3cb694e54edabc40eaceda43d2cb2153a08d6ce754e50f41474ee42e9"),
        KnownFile(
            "GTSRB/gtsrb10-32-train-labels.npz", 12_462, "1db8151d926c8ec0c6035286c3acfc62c8bd55e064cbaeb47776a296a68d9857"
        ),
    ),
    "test": (
        KnownFile("GTSRB/gtsrb10-32-test.webp", 4_331_772, "3d6dd3b276fa7af36aa5a540717d4d6c5e02e58b47f1855c8f4bc51fcd60dbf5"),
        KnownFile(
            "GTSRB/gtsrb10-32-test-labels.npz", 9_178, "d764698bdc0e98fa13e545678bd792769cbc551c3bda87cd38249812baf3c4b3"
        ),
    ),
}


def open_gtsrb10(split: str, root: Path | None) -> ImageSource:
    """Read one split of GTSRB-10 from the folder GTSRB under the data root.

    "train" and "test" are the two sheets. "validation" has all photos of a tenth of the physical signs of each class of
    "train", and "train-tracks" has the others. Photos of one sign are frames of one video, so a validation part of random
    photos would show signs that were trained on.
    """
    sheet_file, labels_file = GTSRB10_FILES["test" if split == "test" else "train"]
    # Both are known byte by byte, so their content needs no check.
    sheet, table = (read_known("gtsrb10", root, file) for file in (sheet_file, labels_file))
    with np.load(io.BytesIO(table)) as columns:
        labels, tracks = columns["y"].astype(np.int64), columns["track"].astype(np.int64)
    indices = np.arange(len(labels))
    if split in ("train-tracks", "validation"):
        held_out = held_out_tracks(labels, tracks)
        indices = np.flatnonzero(held_out if split == "validation" else ~held_out)
    images = torch.from_numpy(sheet_tiles(sheet, len(labels), _SIDE)[indices])
    names = tuple(GTSRB_CLASSES[number] for number in GTSRB10_NUMBERS)
    return in_memory(images, torch.from_numpy(labels[indices]), names, torch.from_numpy(indices))


def held_out_tracks(labels: npt.NDArray[np.int64], tracks: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Choose the images, (N,) bool, in a random tenth of each class's tracks (at least one), which is kept for validation.

    A track is the number of the physical sign within its class.
    """
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        known = np.unique(tracks[labels == label])
        count = max(1, round(_VALIDATION_SHARE * len(known)))
        chosen = known[permutation(len(known), _VALIDATION_SEED)[:count]]
        held_out |= (labels == label) & np.isin(tracks, chosen)
    return held_out


DATA_SET = DataSet(open=open_gtsrb10, splits=("train", "test", "train-tracks", "validation"))
