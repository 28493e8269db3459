"""Files of known data sets under the names, and in the folders, in which people have them."""

import gzip
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from gencls.core import GenclsError
from gencls.zoo import load_data
from gencls.zoo.data import idx
from gencls.zoo.data.idx_files import IdxFile

CONTENTS = {
    "t10k-images-idx3-ubyte": bytes((0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 28, 0, 0, 0, 28)) + bytes(range(4)) * 784,
    "t10k-labels-idx1-ubyte": b"\x00\x00\x08\x01\x00\x00\x00\x04\x07\x02\x01\x00",
}
LABELS = "t10k-labels-idx1-ubyte"
GOOD = CONTENTS[LABELS]


@pytest.fixture(autouse=True)
def small_sets(monkeypatch, tmp_path):
    """MNIST and FashionMNIST of four images each."""
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    files = tuple(IdxFile(name, len(content), sha256(content).hexdigest()) for name, content in CONTENTS.items())
    for name, known in list(idx.IDX_SETS.items()):
        monkeypatch.setitem(idx.IDX_SETS, name, idx.IdxSet(known.folder, known.class_names, {"test": files}, known.folders))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def dotted(name):
    return name.replace("-idx", ".idx")


PLACES = {
    "as torchvision": ("mnist", lambda name: f"MNIST/raw/{name}"),
    "without raw": ("mnist", lambda name: f"MNIST/{name}.gz"),
    "in small letters": ("mnist", lambda name: f"mnist/{name}"),
    "in small letters, raw": ("mnist", lambda name: f"mnist/raw/{name}.gz"),
    "with a dot": ("mnist", lambda name: dotted(name)),
    "with a dot, packed": ("mnist", lambda name: f"raw/{dotted(name)}.gz"),
    "Kaggle": ("mnist", lambda name: f"mnist/{dotted(name)}/{dotted(name)}"),
    "Kaggle, the other folders": ("mnist", lambda name: f"{name}/{name}"),
    "FashionMNIST without raw": ("fashion-mnist", lambda name: f"FashionMNIST/{name}.gz"),
    "FashionMNIST by its name here": ("fashion-mnist", lambda name: f"fashion-mnist/{name}"),
    "FashionMNIST with an underscore": ("fashion-mnist", lambda name: f"fashion_mnist/raw/{dotted(name)}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_idx_files_are_found_under_their_usual_names(place, tmp_path):
    data_set, path = PLACES[place]
    for name, content in CONTENTS.items():
        put(tmp_path / path(name), gzip.compress(content) if path(name).endswith(".gz") else content)
    assert load_data(data_set, "test", root=tmp_path).labels.tolist() == [7, 2, 1, 0]


TAKEN = {
    "unpacked, but called .gz": {f"{LABELS}.gz": GOOD},
    "packed, but not called .gz": {LABELS: gzip.compress(GOOD)},
    "two members": {f"{LABELS}.gz": gzip.compress(GOOD[:5]) + gzip.compress(GOOD[5:])},
    "an empty member": {f"{LABELS}.gz": gzip.compress(b"") + gzip.compress(GOOD) + gzip.compress(b"")},
    "something after the end": {f"{LABELS}.gz": gzip.compress(GOOD) + b"\0\0garbage"},
    "an empty file beside it": {LABELS: b"", f"{LABELS}.gz": gzip.compress(GOOD)},
    "an empty packed file beside it": {LABELS: GOOD, f"{LABELS}.gz": b""},
    "another file before it": {LABELS: b"<html>", dotted(LABELS): GOOD},
    "a folder of its name beside it": {f"{LABELS}/notes.txt": b"", dotted(LABELS): GOOD},
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_with_the_right_content_counts(name, tmp_path):
    put(tmp_path / "t10k-images-idx3-ubyte", CONTENTS["t10k-images-idx3-ubyte"])
    for path, content in TAKEN[name].items():
        put(tmp_path / path, content)
    assert load_data("mnist", "test", root=tmp_path).labels.tolist() == [7, 2, 1, 0]


REFUSED = {
    "empty files only": ({LABELS: b"", f"{LABELS}.gz": b""}, [f"{LABELS} is truncated: expected 12", f"{LABELS}.gz: "]),
    "an empty one beside a bad one": ({LABELS: b"", dotted(LABELS): b"12345"}, [f"{dotted(LABELS)} is truncated: expected 12"]),
    "garbage after the end": ({LABELS: GOOD + b"\0"}, ["is too long: expected 12 bytes; got 13"]),
    "a bomb": ({f"{LABELS}.gz": gzip.compress(bytes(10**7))}, ["is too long: expected 12 uncompressed bytes; got 13 or more"]),
    "half a second member": ({f"{LABELS}.gz": gzip.compress(GOOD[:5]) + gzip.compress(GOOD[5:])[:-4]}, ["its end is missing"]),
    "other content": ({LABELS: bytes(12)}, ["expected the original t10k-labels-idx1-ubyte, SHA-256"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_other_content_is_named(name, tmp_path):
    files, messages = REFUSED[name]
    put(tmp_path / "t10k-images-idx3-ubyte", CONTENTS["t10k-images-idx3-ubyte"])
    for path, content in files.items():
        put(tmp_path / path, content)
    with pytest.raises(GenclsError) as caught:
        load_data("mnist", "test", root=tmp_path)
    for message in messages:
        assert message in str(caught.value)
    if name == "an empty one beside a bad one":
        assert "got 0" not in str(caught.value)


# --- Stanford Cars ---------------------------------------------------------------------------------------------------

NAMES = ["AM General Hummer SUV 2000", "Audi TTS Coupe 2012"]


def write_cars(folder, photos, table, meta):
    """Two photos of the test part, of classes 2 and 1."""
    rows = np.array([("00001.jpg", 2), ("00002.jpg", 1)], dtype=[("fname", object), ("class", np.uint8)])
    for name, colour in (("00001.jpg", 200), ("00002.jpg", 100)):
        (folder / photos).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (colour, colour, colour)).save(folder / photos / name, format="PNG")
    for path, content in ((table, {"annotations": rows}), (meta, {"class_names": np.array(NAMES, dtype=object)})):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        savemat(folder / path, content)


WITH_LABELS = "cars_test_annos_withlabels.mat"
LAYOUTS = {
    "torchvision": ("stanford_cars", "cars_test", WITH_LABELS, "devkit/cars_meta.mat"),
    "Kaggle": ("stanford_cars", "cars_test/cars_test", f"{WITH_LABELS[:-4]} (1).mat", "car_devkit/devkit/cars_meta.mat"),
    "flat tables": ("stanford-cars-dataset", "cars_test", WITH_LABELS, "cars_meta.mat"),
    "all in the devkit": ("StanfordCars", "cars_test", f"devkit/{WITH_LABELS}", "devkit/cars_meta.mat"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_stanford_cars_are_read_as_the_mirrors_have_them(name, tmp_path):
    folder, *parts = LAYOUTS[name]
    write_cars(tmp_path / folder, *parts)
    data = load_data("stanford-cars", "test", root=tmp_path)
    assert data.labels.tolist() == [1, 0]
    assert data.class_names == tuple(NAMES)
    assert (data.images[:, 0, 0, 0] * 255).round().tolist() == [200, 100]


def write_older(folder, test=(0, 1, 1)):
    columns = [("relative_im_path", object), ("class", np.uint8), ("test", np.uint8)]
    rows = [(f"car_ims/{number:06d}.jpg", 1 + number % 2, test[number]) for number in range(3)]
    (folder / "car_ims").mkdir(parents=True)
    for name, *_ in rows:
        Image.new("RGB", (30, 20)).save(folder / name, format="PNG")
    savemat(
        folder / "cars_annos.mat", {"annotations": np.array(rows, dtype=columns), "class_names": np.array(NAMES, dtype=object)}
    )


def test_the_older_release_of_stanford_cars_is_read(tmp_path):
    write_older(tmp_path / "stanford_cars")
    train, test = (load_data("stanford-cars", split, root=tmp_path) for split in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0], [1, 0])


def test_other_layouts_of_stanford_cars_are_answered_with_the_expected_one(tmp_path):
    (tmp_path / "stanford_cars" / "cars_train" / "Audi TTS Coupe 2012").mkdir(parents=True)
    (tmp_path / "stanford_cars" / "cars_annos.mat").write_bytes(b"")
    with pytest.raises(GenclsError) as caught:
        load_data("stanford-cars", "train", root=tmp_path)
    for part in (
        "stanford-cars: expected stanford_cars/cars_train, stanford_cars/devkit/cars_train_annos.mat, stanford_cars/dev",
        "or car_ims with cars_annos.mat; got stanford_cars with cars_annos.mat, cars_train.",
        "Photos in class folders are read as data of your own, by their path",
    ):
        assert part in str(caught.value)


def test_a_photo_of_stanford_cars_that_is_missing_is_named(tmp_path):
    folder, *parts = LAYOUTS["torchvision"]
    write_cars(tmp_path / folder, *parts)
    (tmp_path / folder / "cars_test" / "00002.jpg").unlink()
    with pytest.raises(GenclsError, match=r"stanford-cars: image 1 of split test cannot be read: .*00002\.jpg"):
        load_data("stanford-cars", "test", root=tmp_path)
