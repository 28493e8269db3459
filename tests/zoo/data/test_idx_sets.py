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
    monkeypatch.setitem(idx.IDX_SETS, "kmnist", ROW)
    known = {**loader.DATA_SETS, "kmnist": DataSet(open=partial(idx.open_idx, "kmnist"))}
    monkeypatch.setattr(loader, "DATA_SETS", MappingProxyType(known))
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(content(PIXELS))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content(LABELS)))
    return folder


def test_mnist_is_known_byte_by_byte():
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = idx.IDX_SETS["mnist"].files[split]
        assert (images.size, labels.size) == (16 + count * 784, 8 + count)
        assert images.sha256 is not None
        assert labels.sha256 is not None
        assert [file.name for file in ROW.files[split]] == [images.name, labels.name]
        assert {(file.size, file.sha256) for file in ROW.files[split]} == {(None, None)}


@pytest.mark.parametrize("shape", [(300, 28, 28), (1, 5, 7)])
@pytest.mark.parametrize("packed", [False, True])
def test_the_header_says_how_many_images_there_are_and_how_large(shape, packed, folder):
    pixels = np.random.RandomState(1).randint(0, 256, shape, dtype=np.uint8)
    for path in folder.iterdir():
        path.unlink()
    for kind, values in (("images-idx3", pixels), ("labels-idx1", np.arange(shape[0], dtype=np.uint8) % 10)):
        written = content(values)
        (folder / f"train-{kind}-ubyte").write_bytes(gzip.compress(written) if packed else written)
    data = load_data("kmnist", "train", root=folder.parent.parent)
    assert data.images.shape == (shape[0], 1, *shape[1:])
    np.testing.assert_array_equal((data.images * 255).round().byte().squeeze(1).numpy(), pixels)


@pytest.mark.parametrize("place", ["raw", "", "MNIST/raw"])
def test_files_that_may_be_of_another_set_are_not_taken(place, folder):
    root = folder.parent.parent
    (root / place).mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        path.rename(root / place / path.name)
    with pytest.raises(GenclsError, match="kmnist: expected the file t10k-images-idx3-ubyte") as caught:
        load_data("kmnist", "test", root=root)
    assert f"looked in {root / 'KMNIST' / 'raw'}, {root / 'KMNIST'}. Put" in str(caught.value)
    assert "download" not in str(caught.value)


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
        (
            "t10k-images-idx3-ubyte",
            content(PIXELS)[:-1],
            "is truncated: expected 3152 bytes, because its header says 4 images of 28x28 pixels; got 3151",
        ),
        (
            "t10k-images-idx3-ubyte",
            gzip.compress(content(PIXELS)[:-1]),
            "is truncated: expected 3152 uncompressed bytes, because its header says 4 images of 28x28 pixels; got 3151",
        ),
        ("t10k-images-idx3-ubyte", gzip.compress(content(PIXELS))[:-4], "expected a complete gzip file; its end is missing"),
        (
            "t10k-images-idx3-ubyte",
            content(PIXELS) + b"x",
            "is too long: expected 3152 bytes, because .* 4 images .*; got 3153",
        ),
        (
            "t10k-images-idx3-ubyte",
            bytes(3152),
            r"expected an idx file of images \(N, H, W\), which begins with the bytes 0 0 8 3; got 0 0 0 0",
        ),
        ("t10k-images-idx3-ubyte", content(PIXELS)[:9], "is truncated: expected an idx header of 16 bytes; got 9"),
        ("t10k-images-idx3-ubyte", b"", "is truncated: expected an idx header of 16 bytes; got 0"),
        (
            "t10k-images-idx3-ubyte",
            content(PIXELS[:0]),
            r"expected at least one of its images .*; its header says \(0, 28, 28\)",
        ),
        (
            "t10k-labels-idx1-ubyte",
            content(PIXELS),
            r"expected an idx file of labels \(N,\), which begins with the bytes 0 0 8 1; got 0 0 8 3",
        ),
        ("t10k-labels-idx1-ubyte", content(LABELS)[:-1], "expected 12 bytes, because its header says 4 labels; got 11"),
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


def test_every_image_needs_a_label(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content(LABELS[:3])))
    with pytest.raises(GenclsError, match="expected one label below 10 for each of 4 images; got 3 labels"):
        load_data("kmnist", "test", root=folder.parent.parent)
