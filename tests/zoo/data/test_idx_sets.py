"""A new set in MNIST's format is a row: here Kuzushiji-MNIST, whose makers publish no checksum of unpacked files."""

import gzip
import struct
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

from gencls.core import GenclsError
from gencls.zoo import load_data
from gencls.zoo.data import count_images, idx, loader
from gencls.zoo.data.idx_files import IdxFile
from gencls.zoo.data.image_data import DataSet

LABELS = np.array([3, 9, 0, 1], np.uint8)
PIXELS = np.random.RandomState(0).randint(0, 256, (4, 28, 28), dtype=np.uint8)
ROW = idx.IdxSet("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"))


def content(values):
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """KMNIST with a test split of four images, and a known name."""
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    files = IdxFile("t10k-images-idx3-ubyte", 16 + 4 * 784), IdxFile("t10k-labels-idx1-ubyte", 8 + 4)
    monkeypatch.setitem(idx.IDX_SETS, "kmnist", idx.IdxSet(ROW.folder, ROW.class_names, {"test": files}))
    known = {**loader.DATA_SETS, "kmnist": DataSet(open=partial(idx.open_idx, "kmnist"))}
    monkeypatch.setattr(loader, "DATA_SETS", MappingProxyType(known))
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(content(PIXELS))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content(LABELS)))
    return folder


def test_a_row_without_checksums_reads_mnists_four_files():
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = ROW.files[split]
        assert (images.shape, labels.shape) == ((count, 28, 28), (count,))
        assert images.header == bytes((0, 0, 8, 3)) + count.to_bytes(4, "big") + bytes((0, 0, 0, 28)) * 2
        assert labels.header == bytes((0, 0, 8, 1)) + count.to_bytes(4, "big")
        assert images.sha256 is None
        assert [file.size for file in idx.IDX_SETS["mnist"].files[split]] == [images.size, labels.size]


def test_pixels_and_labels_are_those_of_the_files(folder):
    data = load_data("kmnist", "test", root=folder.parent.parent)
    np.testing.assert_array_equal((data.images * 255).round().byte().squeeze(1).numpy(), PIXELS)
    assert data.labels.tolist() == LABELS.tolist()
    assert (data.num_classes, data.class_names[9]) == (10, "wo")
    assert count_images("kmnist", "test", root=folder.parent.parent) == 4


def test_the_reader_of_torchvision_agrees(folder):
    from torchvision.datasets.mnist import read_image_file

    images = read_image_file(str(folder / "t10k-images-idx3-ubyte"))
    data = load_data("kmnist", "test", root=folder.parent.parent)
    np.testing.assert_array_equal((data.images * 255).round().byte().squeeze(1).numpy(), images.numpy())


@pytest.mark.parametrize(
    ("file", "damaged", "message"),
    [
        ("t10k-images-idx3-ubyte", content(PIXELS)[:-1], "is truncated: expected 3152 bytes; got 3151"),
        ("t10k-images-idx3-ubyte", content(PIXELS) + b"x", "is too long: expected 3152 bytes; got 3153"),
        ("t10k-images-idx3-ubyte", bytes(3152), r"expected an idx file of \(4, 28, 28\) bytes; got a file with another header"),
        ("t10k-images-idx3-ubyte", content(PIXELS.reshape(4, 14, 56)), "got a file with another header"),
        ("t10k-labels-idx1-ubyte", bytes(12), r"expected an idx file of \(4,\) bytes; got a file with another header"),
        (
            "t10k-labels-idx1-ubyte",
            content(LABELS + 1),
            "kmnist: expected one label below 10 for each of 4 images; got .* up to 10",
        ),
    ],
)
def test_damaged_files_are_refused(file, damaged, message, folder):
    for path in folder.glob(f"{file}*"):
        path.unlink()
    (folder / file).write_bytes(damaged)
    with pytest.raises(GenclsError, match=message):
        load_data("kmnist", "test", root=folder.parent.parent)


def test_every_image_needs_a_label(folder, monkeypatch):
    files = idx.IDX_SETS["kmnist"].files["test"][0], IdxFile("t10k-labels-idx1-ubyte", 8 + 3)
    monkeypatch.setitem(idx.IDX_SETS, "kmnist", idx.IdxSet(ROW.folder, ROW.class_names, {"test": files}))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content(LABELS[:3])))
    with pytest.raises(GenclsError, match="expected one label below 10 for each of 4 images; got 3 labels"):
        load_data("kmnist", "test", root=folder.parent.parent)
