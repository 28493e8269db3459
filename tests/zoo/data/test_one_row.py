"""The rows that CONTRIBUTING.md shows, pasted as they stand there, make data sets."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencls.zoo import load_data
from gencls.zoo.data import idx, loader, registry

PAGE = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
TEXT = PAGE.partition("## Add a data set")[2].partition("\n## ")[0]
ROWS = re.findall(r'^\|[^|]*\|(?P<imports>[^|]*)\| `(?P<row>"[\w-]+": DataSet\(.*\))` \|$', TEXT, re.MULTILINE)
IDX_ROWS = re.findall(r'`("[\w-]+": IdxSet\(.*?\))`', TEXT, re.DOTALL)


def pasted(row: str, module: object, imports: str = "") -> dict[str, object]:
    """What a row is, among the names of a file and of an import that is added to it."""
    names = dict(vars(module))
    for line in re.findall(r"`(from .* import .*)`", imports):
        exec(line, names)
    return eval(f"{{{row}}}", names)


def write(folder: Path, name: str, classes: tuple[str, ...]) -> None:
    """One image of each class, train and test, in the format of the row."""
    pixels = (np.arange(len(classes) * 64) % 256).astype(np.uint8).reshape(-1, 8, 8)
    labels = np.arange(len(classes), dtype=np.uint8)
    for split, part in (("train", "train"), ("test", "t10k")):
        (folder / name / split).mkdir(parents=True)
        if name == "leaves":
            for image, label in zip(pixels, classes, strict=True):
                (folder / name / split / label).mkdir()
                Image.fromarray(image).save(folder / name / split / label / "1.png")
        elif name == "shapes":
            np.savez(folder / name / f"{split}.npz", images=pixels, labels=labels)
        else:
            raw = folder / "KMNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
                head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
                (raw / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())


def test_the_page_has_a_row_for_each_format() -> None:
    assert [re.findall(r"open_\w+", row) for _, row in ROWS] == [["open_idx"], ["open_class_folders"], ["open_npz"]]
    assert len(IDX_ROWS) == 1


@pytest.mark.parametrize(("imports", "row"), ROWS)
def test_a_pasted_row_reads_its_files(imports: str, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [(name, data_set)] = pasted(row, registry, imports).items()
    monkeypatch.setattr(loader, "DATA_SETS", {name: data_set})
    classes = ("circle", "square")
    if "open_idx" in row:
        [(key, idx_set)] = pasted(IDX_ROWS[0], idx).items()
        monkeypatch.setitem(idx.IDX_SETS, key, idx_set)
        classes = idx_set.class_names
    write(tmp_path, name, classes)
    for split in data_set.splits:
        data = load_data(name, split, root=tmp_path)
        assert data.class_names == classes
        assert data.labels.tolist() == list(range(len(classes)))
        assert (data.images * 255).round().flatten().tolist() == [value % 256 for value in range(len(classes) * 64)]
