"""A data set that is a row of the registry: arrays in .npz files under the data root."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.zoo import load_data
from gencls.zoo.data import count_images, loader
from gencls.zoo.data.image_data import DataSet
from gencls.zoo.data.npz import open_npz

PIXELS = np.random.RandomState(0).randint(0, 256, (5, 8, 9), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0])
SHAPES = ("circle", "square", "triangle")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(loader, "DATA_SETS", {"shapes": DataSet(open=partial(open_npz, "shapes", SHAPES))})
    (tmp_path / "shapes").mkdir()
    return tmp_path


def expect(root: Path, split: str, count: int) -> None:
    data = load_data("shapes", split, root=root)
    assert (data.name, data.split, data.class_names) == ("shapes", split, SHAPES)
    assert torch.equal(data.images, torch.from_numpy(PIXELS[:count, None]) / 255)
    assert data.labels.tolist() == LABELS[:count].tolist()
    assert data.indices.tolist() == list(range(count))
    assert count_images("shapes", split, root=root) == count


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "Y"), ("data", "targets"), ("arr_0", "arr_1")])
def test_one_file_per_split(names: tuple[str, str], root: Path) -> None:
    for split, count in (("train", 5), ("test", 3)):  # no triangle among the first two: the row says the classes
        np.savez(root / "shapes" / f"{split}.npz", **{names[0]: PIXELS[:count], names[1]: LABELS[:count, None]})
    expect(root, "train", 5)
    expect(root, "test", 3)


@pytest.mark.parametrize("names", ["images_{} labels_{}", "x_{} y_{}", "{}_images {}_labels"])
def test_one_file_of_all_splits(names: str, root: Path) -> None:
    arrays = {}
    for split, count in (("train", 5), ("test", 3)):
        images, labels = names.format(split, split).split()
        arrays |= {images: PIXELS[:count], labels: LABELS[:count]}
    np.savez(root / "shapes.npz", **arrays)
    expect(root, "train", 5)
    expect(root, "test", 3)


def test_axes_and_numbers(root: Path) -> None:
    colour = np.stack([PIXELS] * 3, -1)
    np.savez(root / "shapes" / "train.npz", images=colour, labels=LABELS.astype(float))
    np.savez(root / "shapes" / "test.npz", images=(colour.transpose(0, 3, 1, 2) / 255).astype(np.float32), labels=LABELS)
    train, test = (load_data("shapes", split, root=root) for split in ("train", "test"))
    assert train.images.shape == (5, 3, 8, 9)
    assert torch.equal(train.images, test.images)
    assert load_data("shapes", root=root, size=4, limit=2).images.shape == (2, 3, 4, 4)


REFUSED = {
    "no such file": ({}, r"shapes: expected shapes/test.npz or shapes.npz under the data root .*; got no such file"),
    "other names": (
        {"pixels": PIXELS, "classes": LABELS},
        "expected arrays named images and labels or x and y or .*; got pixels, classes",
    ),
    "a name of another split": ({"x_train": PIXELS, "y_train": LABELS}, "expected arrays named images and labels"),
    "a class too many": ({"images": PIXELS, "labels": LABELS + 1}, "expected values in 0..2 for 3 classes, got values in 1..3"),
    "an image without label": ({"images": PIXELS, "labels": LABELS[:4]}, "expected 5 labels, one per image, got 4"),
    "double precision": ({"images": PIXELS / 255, "labels": LABELS}, "expected uint8 or float32, .* got float64"),
    "out of range": ({"images": PIXELS.astype(np.float32), "labels": LABELS}, r"expected values in \[0, 1\], got values in"),
    "two pairs": (
        {"x": PIXELS, "y": LABELS, "images": PIXELS, "labels": LABELS},
        "expected one pair of images and labels, got 2: x and y; images and labels",
    ),
    "objects": ({"images": PIXELS, "labels": LABELS.astype(object)}, "expected an .npz of arrays without objects"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused(case: str, root: Path) -> None:
    arrays, message = REFUSED[case]
    path = root / "shapes" / "test.npz"
    if arrays:
        np.savez(path, **arrays)
    with pytest.raises(GenclsError, match=message) as caught:
        load_data("shapes", root=root)
    assert not arrays or str(caught.value).startswith(f"{path}: ")


def test_a_file_of_all_splits_needs_the_one_that_is_asked_for(root: Path) -> None:
    np.savez(root / "shapes.npz", x_train=PIXELS, y_train=LABELS)
    with pytest.raises(
        GenclsError, match="expected arrays named images_test and labels_test or x_test and y_test or .*x_train"
    ):
        load_data("shapes", "test", root=root)


def test_a_data_root_is_needed(root: Path) -> None:
    with pytest.raises(GenclsError, match="shapes is read from a data root: pass root="):
        load_data("shapes")
