"""The data of the MLVGM paper's tasks, from made-up files in the original layouts; the small real sets where they are there."""

import csv
import io
import os
import tarfile
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gencls.core import GenclsError, check_images
from gencls.zoo import load_data
from gencls.zoo.data import (
    celeba_10k_gender,
    celeba_100_identities,
    celeba_hq_gender,
    celeba_identities,
    stanford_cars_4,
    stanford_cars_types,
)
from gencls.zoo.data.known_files import KnownFile
from gencls.zoo.data.stanford_cars_types import TYPES, car_type

ROOTS = (Path(__file__).parents[4] / "shared" / "data", Path(os.environ.get("GENCLS_DATA") or "none"))


@pytest.fixture(autouse=True)
def _only_what_the_test_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENCLS_DATA", raising=False)


def real(file: KnownFile) -> Path:
    for root in ROOTS:
        if (root / file.path).is_file():
            return root
    pytest.skip(f"needs {file.path} under ../shared/data or GENCLS_DATA")


def picture(path: Path, width: int, height: int, colour: Any = (255, 0, 51)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path, quality=95)


def jpeg(size: tuple[int, int], colour: Any) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "JPEG", quality=95)
    return content.getvalue()


def archive(root: Path, file: KnownFile, members: dict[str, bytes]) -> KnownFile:
    """A made-up archive in the place of a known one."""
    (root / file.path).parent.mkdir(parents=True)
    with tarfile.open(root / file.path, "w:xz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    content = (root / file.path).read_bytes()
    return KnownFile(file.path, len(content), sha256(content).hexdigest())


def table(rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


# --- CelebA-HQ by gender ---------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_hq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    counts = {"train": {"female": 3, "male": 2}, "test": {"female": 1, "male": 1}}
    monkeypatch.setattr(celeba_hq_gender, "COUNTS", counts)
    for split, classes in counts.items():
        for name, count in classes.items():
            for index in range(count):
                shade = 200 if name == "male" else 40
                path = tmp_path / "CelebA_HQ_face_gender_dataset" / split / name / f"{7 * index}.jpg"
                picture(path, 1024 if index else 256, 1024 if index else 256, (shade, shade, shade))
    return tmp_path


def test_celeba_hq_is_read_from_the_folders_of_its_archive(tiny_hq: Path) -> None:
    data = load_data("celeba-hq-gender", "train", root=tiny_hq)

    assert data.images.shape == (5, 3, 256, 256)
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.class_names == ("female", "male")
    assert (data.images.mean(dim=(1, 2, 3)) > 0.5).long().tolist() == data.labels.tolist()
    assert load_data("celeba-hq-gender", "test", root=tiny_hq, size=32).images.shape == (2, 3, 32, 32)


def test_another_number_of_faces_is_not_celeba_hq(tiny_hq: Path) -> None:
    folder = tiny_hq / "CelebA_HQ_face_gender_dataset" / "train" / "male"
    picture(folder / "0.jpg", 300, 256)
    with pytest.raises(GenclsError, match=r"celeba-hq-gender: the picture .*0.jpg cannot be read: expected a square .*300x256"):
        load_data("celeba-hq-gender", "train", root=tiny_hq)
    (folder / "0.jpg").unlink()
    with pytest.raises(GenclsError, match=r"celeba-hq-gender: expected 2 pictures \*.jpg in .*male; got 1. Get CelebA_HQ_face"):
        load_data("celeba-hq-gender", "train", root=tiny_hq)
    (tiny_hq / "elsewhere").mkdir()
    with pytest.raises(GenclsError, match=r"female; got no such folder. Get .* from https://github.com/ndb796/"):
        load_data("celeba-hq-gender", "train", root=tiny_hq / "elsewhere")


def test_the_published_counts_are_four_fifths_of_all_faces() -> None:
    train, test = celeba_hq_gender.COUNTS["train"], celeba_hq_gender.COUNTS["test"]
    assert sum(train.values()) == 23_999
    assert sum(test.values()) == 6_001
    assert train == {"female": int(0.8 * 18_943), "male": int(0.8 * 11_057)}


# --- CelebA by person ------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five identities, of which the even ones have too few photos; of the odd ones two are chosen."""
    rows = [(f"{index:06d}.jpg", 1 + index % 5) for index in range(1, 81) if index % 5 % 2 == 0 or index < 41]
    text = "".join(f"{name} {identity}\n" for name, identity in rows)
    for name, identity in rows:
        picture(tmp_path / "celeba" / "img_align_celeba" / name, 178, 218, (50 * identity, 0, 0))
    (tmp_path / "celeba" / "identity_CelebA.txt").write_text(text)
    monkeypatch.setattr(celeba_identities, "TABLE_MD5", md5(text.encode(), usedforsecurity=False).hexdigest())
    monkeypatch.setattr(celeba_identities, "_IDENTITIES", 2)
    return tmp_path


def test_identities_with_enough_photos_are_drawn_and_split(tiny_celeba: Path) -> None:
    train, test = (load_data("celeba-identities", split, root=tiny_celeba) for split in ("train", "test"))

    assert train.images.shape == (26, 3, 64, 64)
    assert set(train.class_names) < {"1", "3", "5"}
    assert train.labels.bincount().tolist() == [13, 13]
    assert test.labels.bincount().tolist() == [3, 3]  # 3/16 of 16
    assert not set(train.indices.tolist()) & set(test.indices.tolist())
    # the colour says who it is
    shades = torch.tensor([int(name) for name in train.class_names])[train.labels] * 50 / 255
    torch.testing.assert_close(train.images[:, 0, 32, 32], shades, atol=2 / 255, rtol=0)
    again = load_data("celeba-identities", "test", root=tiny_celeba)
    assert torch.equal(again.indices, test.indices)


def test_the_crop_is_centred(tiny_celeba: Path) -> None:
    framed = Image.new("RGB", (178, 218), "red")
    framed.paste(Image.new("RGB", (148, 148), "blue"), (15, 35))
    for path in (tiny_celeba / "celeba" / "img_align_celeba").iterdir():
        framed.save(path, quality=95)
    data = load_data("celeba-identities", "train", root=tiny_celeba, limit=2)
    assert data.images[:, 2, 2:-2, 2:-2].min() > 0.9  # JPEG blurs the colours of the edge


def test_what_is_wrong_with_celeba_is_said(tiny_celeba: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(GenclsError, match=r"expected celeba/identity_CelebA.txt under .*; got no such file. Get the originals"):
        load_data("celeba-identities", "train", root=tmp_path / "elsewhere")
    photo = next((tiny_celeba / "celeba" / "img_align_celeba").iterdir())
    for path in (tiny_celeba / "celeba" / "img_align_celeba").iterdir():
        picture(path, 178, 178)
    with pytest.raises(GenclsError, match=r"cannot be read: expected 178x218 pixels \(width x height\), got 178x178"):
        load_data("celeba-identities", "train", root=tiny_celeba)
    for path in photo.parent.iterdir():
        path.unlink()
    with pytest.raises(
        GenclsError, match=r"celeba-identities: expected the picture .*img_align_celeba.*; got no such file. Get"
    ):
        load_data("celeba-identities", "train", root=tiny_celeba)
    (tiny_celeba / "celeba" / "identity_CelebA.txt").write_text("000001.jpg 1\n")
    with pytest.raises(GenclsError, match=r"expected the original file, MD5 .*; got MD5 .* \(13 bytes\)"):
        load_data("celeba-identities", "train", root=tiny_celeba)


def test_too_few_identities() -> None:
    with pytest.raises(GenclsError, match="expected at least 100 identities with 15 photos or more; got 99"):
        celeba_identities.chosen_identities(np.repeat(np.arange(100), [15] * 99 + [14]))


# --- Stanford Cars by type -------------------------------------------------------------------------------------------

CAR_CLASSES = ["Audi TT Hatchback 2011", "Aston Martin V8 Vantage Convertible 2012", "Audi TTS Coupe 2012",
               "Honda Odyssey Minivan 2012", "BMW X6 SUV 2012", "GMC Savana Van 2012"]  # fmt: skip


@pytest.fixture
def tiny_cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stanford_cars_types, "PER_TYPE", 4)
    monkeypatch.setattr(stanford_cars_types, "TEST_PER_TYPE", 1)
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(CAR_CLASSES, dtype=object)})
    for part, file in (("cars_train", "devkit/cars_train_annos.mat"), ("cars_test", "cars_test_annos_withlabels.mat")):
        rows = [(f"{index:05d}.jpg", 1 + index % 6) for index in range(18)]
        for name, number in rows:
            picture(folder / part / name, 120, 60, (40 * number, 40 * number, 40 * number))
        annotations = np.array(rows, dtype=[("fname", object), ("class", np.uint8)])
        savemat(folder / file, {"annotations": annotations})
    return tmp_path


def test_cars_are_regrouped_by_type(tiny_cars: Path) -> None:
    train, test = (load_data("stanford-cars-types", split, root=tiny_cars) for split in ("train", "test"))

    assert train.class_names == ("coupe", "hatchback", "suv", "van")
    assert train.images.shape == (12, 3, 128, 128)
    assert train.labels.bincount().tolist() == [3, 3, 3, 3]
    assert test.labels.bincount().tolist() == [1, 1, 1, 1]
    assert not set(train.indices.tolist()) & set(test.indices.tolist())
    # twice as wide as high: the upper and the lower quarter are black; the shade of the rest says the class
    assert train.images[:, :, :30].max() < 0.05
    assert train.images[:, :, -30:].max() < 0.05
    numbers = (train.images[:, 0, 64, 64] * 255 / 40).round().long() - 1
    assert [car_type(CAR_CLASSES[number]) for number in numbers.tolist()] == train.labels.tolist()


def test_types_are_words_of_the_class_name() -> None:
    assert [car_type(name) for name in CAR_CLASSES] == [1, -1, 0, 3, 2, 3]
    assert car_type("Dodge Caravan Minivan 1997") == TYPES.index("van")
    assert car_type("Aston Martin V8 Vantage Coupe 2012") == TYPES.index("coupe")


def test_what_is_wrong_with_cars_is_said(tiny_cars: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stanford_cars_types, "PER_TYPE", 7)
    with pytest.raises(GenclsError, match="stanford-cars-types: expected at least 7 photos of the type coupe; got 6"):
        load_data("stanford-cars-types", "train", root=tiny_cars)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(GenclsError, match=r"^stanford-cars-types: expected stanford_cars/cars_train, .* by hand, see https"):
        load_data("stanford-cars-types", "train", root=tmp_path / "elsewhere")


# --- the small sets, made up -----------------------------------------------------------------------------------------


def test_small_faces_are_split_by_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index:06d}.jpg" for index in range(1, 31)]
    attributes = "".join(f"{name}  1 {1 if index % 3 else -1}\n" for index, name in enumerate(names))
    members = {
        "celeba/list_attr_celeba.txt": f"30\nYoung Male\n{attributes}".encode(),
        "celeba/identity_CelebA.txt": "".join(f"{name} {index % 10}\n" for index, name in enumerate(names)).encode(),
        **{f"celeba/img_align_celeba/{name}": jpeg((89, 109), (8 * index,) * 3) for index, name in enumerate(names)},
    }
    file = archive(tmp_path, celeba_10k_gender.CELEBA_10K_GENDER_FILE, members)
    monkeypatch.setattr(celeba_10k_gender, "CELEBA_10K_GENDER_FILE", file)

    train, test = (load_data("celeba-10k-gender", split, root=tmp_path) for split in ("train", "test"))

    assert train.images.shape == (24, 3, 64, 64)
    assert test.images.shape == (6, 3, 64, 64)
    persons = [{index % 10 for index in data.indices.tolist()} for data in (train, test)]
    assert [len(some) for some in persons] == [8, 2]
    assert not persons[0] & persons[1]
    assert train.labels.tolist() == [int(index % 3 > 0) for index in train.indices.tolist()]
    torch.testing.assert_close(train.images[:, 0, 0, 0], 8 * train.indices / 255, atol=2 / 255, rtol=0)


def test_small_identities_have_the_split_of_their_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, object]] = [
        {"file": f"00{i % 2}/{i}.jpg", "label": i % 2, "celeba_identity": 700 + i % 2, "split": "test" if i > 5 else "train"}
        for i in range(8)
    ]
    folder = "celeba-identities-128"
    members = {f"{folder}/{row['file']}": jpeg((128, 128), (20 * i,) * 3) for i, row in enumerate(rows)}
    file = archive(tmp_path, celeba_100_identities.CELEBA_100_IDENTITIES_FILE, {**members, f"{folder}/labels.csv": table(rows)})
    monkeypatch.setattr(celeba_100_identities, "CELEBA_100_IDENTITIES_FILE", file)

    data = load_data("celeba-100-identities", "test", root=tmp_path)

    assert data.indices.tolist() == [6, 7]
    assert data.labels.tolist() == [0, 1]
    assert data.class_names == ("700", "701")
    assert data.images.shape == (2, 3, 64, 64)
    torch.testing.assert_close(data.images[:, 0, 9, 9], 20 * data.indices / 255, atol=2 / 255, rtol=0)


def test_small_cars_keep_an_eighth_of_each_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, object]] = [{"file": f"{TYPES[i % 4]}/{i}.jpg", "type": TYPES[i % 4]} for i in range(64)]
    folder = "stanford-cars-types-128"
    members = {f"{folder}/{row['file']}": jpeg((128, 128), (3 * i,) * 3) for i, row in enumerate(rows)}
    file = archive(tmp_path, stanford_cars_4.STANFORD_CARS_4_FILE, {f"{folder}/labels.csv": table(rows), **members})
    monkeypatch.setattr(stanford_cars_4, "STANFORD_CARS_4_FILE", file)

    train, test = (load_data("stanford-cars-4", split, root=tmp_path) for split in ("train", "test"))

    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([14] * 4, [2] * 4)
    assert sorted([*train.indices.tolist(), *test.indices.tolist()]) == list(range(64))
    torch.testing.assert_close(test.images[:, 0, 9, 9], 3 * test.indices / 255, atol=2 / 255, rtol=0)


# --- the small sets, real --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "side", "classes", "count", "first"),
    [
        ("celeba-10k-gender", celeba_10k_gender.CELEBA_10K_GENDER_FILE, 64, [1144, 924], 2068, [1, 2, 5, 8]),
        ("celeba-100-identities", celeba_100_identities.CELEBA_100_IDENTITIES_FILE, 64, None, 559, [1, 8, 12, 13]),
        ("stanford-cars-4", stanford_cars_4.STANFORD_CARS_4_FILE, 128, [75, 69, 75, 42], 261, [6, 9, 17, 18]),
    ],
)
def test_the_real_files(name: str, file: KnownFile, side: int, classes: list[int] | None, count: int, first: list[int]) -> None:
    data = load_data(name, "test", root=real(file))

    assert data.images.shape == (count, 3, side, side)
    check_images(data.images, channels=3)
    assert data.indices[:4].tolist() == first  # the split is fixed
    assert data.labels.unique().tolist() == list(range(data.num_classes))
    assert classes is None or data.labels.bincount().tolist() == classes


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    file = stanford_cars_4.STANFORD_CARS_4_FILE
    with pytest.raises(GenclsError, match=f"^stanford-cars-4: expected {file.path} under the data root .*; got no such file"):
        load_data("stanford-cars-4", "train", root=tmp_path)
    (tmp_path / file.path).parent.mkdir()
    (tmp_path / file.path).write_bytes(b"short")
    with pytest.raises(GenclsError, match=f"{file.path}: expected 9169104 bytes; got 5"):
        load_data("stanford-cars-4", "train", root=tmp_path)
