"""Data sets that torchvision reads: tiny copies in their official layout, and damaged ones."""

import pickle
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from gencls.core import GenclsError
from gencls.zoo import load_data
from tests.zoo.data.test_data import _only_what_the_test_gives

__all__ = ["_only_what_the_test_gives"]  # an autouse fixture


@pytest.mark.parametrize(
    ("name", "split", "missing"),
    [
        ("cifar10", "test", "cifar-10-batches-py/test_batch"),
        ("svhn", "extra", "extra_32x32.mat"),
        ("gtsrb", "train", "gtsrb/GTSRB/Training"),
        ("gtsrb", "test", "gtsrb/GT-final_test.csv"),
        ("celeba", "valid", "celeba/list_attr_celeba.txt"),
        ("stanford-cars", "train", "stanford_cars/devkit/cars_train_annos.mat"),
        ("stanford-cars", "test", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("imagenette", "val", "imagenette2/val"),
    ],
)
def test_missing_files_are_named_with_the_way_to_get_them(name: str, split: str, missing: str, tmp_path: Path) -> None:
    with pytest.raises(GenclsError) as caught:
        load_data(name, split, root=tmp_path)

    message = str(caught.value)
    assert message.startswith(f"{name}: expected ")
    assert missing in message
    assert str(tmp_path) in message
    assert ("by hand" if name == "stanford-cars" else "download=True") in message


def test_stanford_cars_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match="stanford-cars could not be downloaded into .*: The original URL is broken"):
        load_data("stanford-cars", "test", root=tmp_path, download=True)


def picture(path: Path, height: int = 20, width: int = 30, colour: tuple[int, int, int] = (255, 0, 51)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path, format="PNG")


def checksum(path: Path) -> str:
    return md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def tiny_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    pixels = np.arange(6 * 3072, dtype=np.uint32).astype(np.uint8).reshape(6, 3072)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1, 4, 1, 5, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", checksum(folder / "test_batch")]])
    meta = {**datasets.CIFAR10.meta, "md5": checksum(folder / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path


def test_cifar10_pixels_and_labels(tiny_cifar10: Path) -> None:
    data = load_data("cifar10", "test", root=tiny_cifar10)

    assert data.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert data.class_names == tuple("abcdefghij")
    expected = np.arange(6 * 3072, dtype=np.uint32).astype(np.uint8).reshape(6, 3, 32, 32)
    np.testing.assert_array_equal((data.images * 255).round().byte().numpy(), expected)


def test_a_damaged_cifar10_file_is_reported_with_both_checksums(tiny_cifar10: Path) -> None:
    path = tiny_cifar10 / datasets.CIFAR10.base_folder / "test_batch"
    original, size = checksum(path), path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(GenclsError, match=rf"original file, MD5 {original}; got MD5 {checksum(path)} \({size - 100} bytes"):
        load_data("cifar10", "test", root=tiny_cifar10)


def test_svhn_pixels_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[1], [10], [9], [1]], dtype=np.uint8)})
    entry = ["", "test_32x32.mat", checksum(tmp_path / "test_32x32.mat")]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"test": entry})

    data = load_data("svhn", "test", root=tmp_path)

    assert data.labels.tolist() == [1, 0, 9, 1]
    np.testing.assert_array_equal((data.images * 255).round().byte().numpy(), pixels.transpose(3, 2, 0, 1))


def test_gtsrb_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    folder = tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    picture(folder / "a.ppm", 20, 30)
    picture(folder / "b.ppm", 25, 25)
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\na.ppm;42\nb.ppm;0\n")

    with pytest.raises(GenclsError, match=r"expected images of one size; got 20x30 and 25x25 .* Pass size="):
        load_data("gtsrb", "test", root=tmp_path)
    data = load_data("gtsrb", "test", root=tmp_path, size=16)

    assert data.images.shape == (2, 3, 16, 16)
    assert data.labels.tolist() == [42, 0]
    assert data.num_classes == 43
    torch.testing.assert_close(data.images[0, :, 8, 8], torch.tensor([1.0, 0.0, 0.2]))


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "imagenette2" / "train" / "n01440764" / "a.JPEG"
    picture(path)
    path.write_bytes(path.read_bytes()[:60])

    with pytest.raises(GenclsError, match="imagenette: image 0 of split train cannot be read: "):
        load_data("imagenette", "train", root=tmp_path, size=8)


def test_celeba_labels_are_the_attribute_male(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "celeba"
    names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    for name in names:
        picture(folder / "img_align_celeba" / name, 218, 178)
    tables = {
        "list_attr_celeba.txt": "4\nYoung Male\n1.jpg  1 -1\n2.jpg -1  1\n3.jpg  1  1\n4.jpg  1 -1\n",
        "identity_CelebA.txt": "".join(f"{name} 5\n" for name in names),
        "list_bbox_celeba.txt": "4\nx y\n" + "".join(f"{name} 1 2\n" for name in names),
        "list_landmarks_align_celeba.txt": "4\nx y\n" + "".join(f"{name} 1 2\n" for name in names),
        "list_eval_partition.txt": "1.jpg 1\n2.jpg 2\n3.jpg 2\n4.jpg 1\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    files = [("", checksum(folder / name), name) for name in tables]
    monkeypatch.setattr(datasets.CelebA, "file_list", [("", "", "img_align_celeba.zip"), *files])

    valid, test = (load_data("celeba", split, root=tmp_path) for split in ("valid", "test"))

    assert (valid.labels.tolist(), test.labels.tolist()) == ([0, 0], [1, 1])
    assert test.class_names == ("female", "male")
    assert test.images.shape == (2, 3, 218, 178)


def test_stanford_cars_and_a_damaged_annotation_file(tmp_path: Path) -> None:
    folder = tmp_path / "stanford_cars"
    for name in ("1.jpg", "2.jpg"):
        picture(folder / "cars_test" / name)
    rows = np.array([("1.jpg", 2), ("2.jpg", 1)], dtype=[("fname", object), ("class", np.uint8)])
    annotations = folder / "cars_test_annos_withlabels.mat"
    savemat(annotations, {"annotations": rows})
    (folder / "devkit").mkdir()
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["coupe", "van"], dtype=object)})

    data = load_data("stanford-cars", "test", root=tmp_path, size=12)

    assert data.labels.tolist() == [1, 0]
    assert data.class_names == ("coupe", "van")
    annotations.write_bytes(annotations.read_bytes()[:150])
    with pytest.raises(GenclsError, match="stanford-cars: the files under the data root .* cannot be read"):
        load_data("stanford-cars", "test", root=tmp_path, size=12)


def test_imagenette_takes_only_the_images_it_needs(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n02102040"):
        for index in range(3):
            picture(tmp_path / "imagenette2" / "val" / wnid / f"{index}.JPEG", 20 + index, 30)

    data = load_data("imagenette", "val", root=tmp_path, limit=4, size=10)

    assert data.images.shape == (4, 3, 10, 10)
    assert data.class_names == ("tench", "English springer")
    assert data.labels.bincount().tolist() == [2, 2]
