"""A data set that is a row of the registry: pictures in folders under the data root."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from gencls.core import GenclsError
from gencls.zoo import load_data
from gencls.zoo.data import loader
from gencls.zoo.data.folder import open_class_folders
from gencls.zoo.data.image_data import DataSet


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    row = {"leaves": DataSet(open=partial(open_class_folders, "leaves"))}
    monkeypatch.setattr(loader, "DATA_SETS", row)
    return tmp_path


def test_pictures_are_read_split_by_split(root: Path) -> None:
    for split, grey in (("train", 51), ("test", 255)):
        for label, plant in enumerate(("elm", "oak")):
            folder = root / "leaves" / split / plant
            folder.mkdir(parents=True)
            Image.new("L", (8, 8), grey * label).save(folder / "1.png")
    train, test = (load_data("leaves", split, root=root) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("elm", "oak")
    assert train.labels.tolist() == [0, 1]
    assert torch.equal(train.images, torch.tensor([0.0, 0.2]).view(2, 1, 1, 1).expand(2, 1, 8, 8))
    assert torch.equal(test.images[1], torch.ones(1, 8, 8))


def test_folders_that_are_not_there(root: Path) -> None:
    with pytest.raises(GenclsError, match="leaves is read from a data root: pass root="):
        load_data("leaves")
    with pytest.raises(GenclsError, match=f"leaves: expected the folder leaves under the data root {root}; got no such folder"):
        load_data("leaves", root=root)
    (root / "leaves").mkdir()
    with pytest.raises(GenclsError, match="leaves: expected the split as the name of a folder in it, none; got 'test'"):
        load_data("leaves", root=root)
