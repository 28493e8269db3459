"""SuperTraffic-10 from tiny stand-ins that lie exactly as the three downloads unpack."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gencls.core import GenclsError
from gencls.zoo import ImageData, load_data
from gencls.zoo.data import gtsrb10, supertraffic

Colour = tuple[int, int, int]

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
GERMAN, SLOVENIAN, BELGIAN = (200, 0, 0), (0, 200, 0), (0, 0, 200)
# GTSRB classes with their numbers of training pictures that are large enough: eleven, of which class 0 is the smallest.
COUNTS = {0: 1, 1: 3, 2: 3, 4: 3, 5: 3, 9: 3, 10: 3, 12: 2, 13: 2, 25: 3, 38: 3}
TEN = sorted(COUNTS)[1:]


def picture(path: Path, colour: Colour, width: int = 40, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def table(folder: Path, file: Path, rows: list[tuple[str, int, int, int]], colour: Colour) -> None:
    """Pictures (name, width, height, class) of one colour and their annotations in the format of GTSRB."""
    for name, width, height, _ in rows:
        picture(folder / name, colour, width, height)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name};{width};{height};5;5;{width - 5};{height - 5};{number}" for name, width, height, number in rows]
    file.write_text("\n".join([HEADER, *lines, ""]))


def german(root: Path) -> None:
    images = root / "GTSRB" / "Final_Training" / "Images"
    for number in range(43):
        rows = [(f"00000_{index:05d}.ppm", 40, 44, number) for index in range(COUNTS.get(number, 0))]
        # Narrow and low pictures of class 0, which would be the largest class if they counted.
        rows += [(f"00001_{index:05d}.ppm", *((31, 60) if index % 2 else (60, 31)), 0) for index in range(8 * (number == 0))]
        table(images / f"{number:05d}", images / f"{number:05d}" / f"GT-{number:05d}.csv", rows, GERMAN)
    test = [("00000.ppm", 32, 32, 13), ("00001.ppm", 40, 40, 7), ("00002.ppm", 31, 40, 13), ("00003.ppm", 40, 40, 38)]
    table(root / "GTSRB" / "Final_Test" / "Images", root / "GT-final_test.csv", test, GERMAN)


def annotations(signs: list[tuple[str, list[float], bool]], file_name: str) -> dict[str, Any]:
    """COCO annotations of signs (category, box, ignore) in one street scene of 300x200 pixels."""
    names = [*supertraffic.DFG_CLASSES, "III-35", "II-30-40"]
    return {
        "info": {},
        "images": [{"id": 7, "width": 300, "height": 200, "file_name": file_name}],
        "categories": [{"id": number, "name": name, "supercategory": "traffic-sign"} for number, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": names.index(name), "bbox": box, "ignore": ignore, "iscrowd": 0}
            for n, (name, box, ignore) in enumerate(signs)
        ],
    }


def slovenian(root: Path) -> None:
    # A green square with a border of 5 white pixels, which belongs to the cut-out sign, one in the corner, and black.
    scene = Image.new("RGB", (300, 200))
    scene.paste((255, 255, 255), (45, 45, 95, 95))
    scene.paste(SLOVENIAN, (50, 50, 90, 90))
    scene.paste(SLOVENIAN, (0, 0, 40, 36))
    (root / "DFG" / "JPEGImages").mkdir(parents=True)
    scene.save(root / "DFG" / "JPEGImages" / "0000001.jpg", quality=100, subsampling=0)
    train: list[tuple[str, list[float], bool]] = [
        ("II-1", [50, 50, 40, 40], False),
        ("II-1", [50, 50, 40, 40], True),  # marked as not to be used
        ("II-1", [50, 50, 40, 21], False),  # 31 pixels high with its border
        ("III-35", [50, 50, 40, 40], False),  # a class that GTSRB lacks
        ("III-3", [-4, -2, 44, 38], False),  # reaches out of the picture
    ]
    for split, signs in (("train", train), ("test", [("II-47", [50, 50, 40, 40], False)])):
        (root / "DFG" / f"{split}.json").write_text(json.dumps(annotations(signs, "0000001.jpg")))


def belgian(root: Path) -> None:
    for split, per_class in (("Training", 1), ("Testing", 2)):
        for number in range(62):
            folder = root / "BelgiumTSC" / split / f"{number:05d}"
            if split == "Testing" and number not in (19, 31):
                continue
            rows = [(f"0{number:04d}_{index:05d}.ppm", 50, 34, number) for index in range(per_class)]
            table(folder, folder / f"GT-{number:05d}.csv", rows, BELGIAN)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    for unpack in (german, slovenian, belgian):
        unpack(tmp_path)
    return tmp_path


def origins(data: ImageData) -> list[str]:
    """Country of each image by the colour of its middle."""
    return [("german", "slovenian", "belgian")[int(image[:, 16, 16].argmax())] for image in data.images]


def names(data: ImageData) -> list[str]:
    return [data.class_names[label] for label in data.labels.tolist()]


# --- merge -----------------------------------------------------------------------------------------------------------


def test_three_sets_are_merged_in_order(downloads: Path) -> None:
    train, test = (load_data("supertraffic10", split, root=downloads) for split in ("train", "test"))

    assert train.images.shape == (28 + 2 + 3, 3, 32, 32)
    assert origins(train) == ["german"] * 28 + ["slovenian"] * 2 + ["belgian"] * 3
    assert names(train)[28:] == ["yield", "priority road", "road work", "yield", "priority road"]
    assert train.indices.tolist() == list(range(33))
    assert (origins(test), names(test)) == (
        ["german", "german", "slovenian", "belgian", "belgian"],
        ["yield", "keep right", "keep right", "yield", "yield"],
    )


def test_the_ten_largest_classes_by_number(downloads: Path) -> None:
    data = load_data("supertraffic10", "test", root=downloads)

    # Class 0 has nine pictures, eight of which are too small; the test part does not count (its class 7 is not in).
    assert data.class_names == tuple(gtsrb10.GTSRB_CLASSES[number] for number in TEN)
    assert data.num_classes == 10


def test_ties_go_to_the_smaller_number() -> None:
    signs = [supertraffic.Sign(Path("x"), (40, 40), (0, 0, 40, 40), number) for number in [*range(12), 11, 11, 5]]

    assert supertraffic.largest_classes(signs) == (0, 1, 2, 3, 4, 5, 6, 7, 8, 11)


@pytest.mark.parametrize(("size", "kept"), [((32, 32), True), ((31, 80), False), ((80, 31), False), ((33, 32), True)])
def test_a_side_under_32_pixels_is_too_small(size: tuple[int, int], kept: bool) -> None:
    assert supertraffic.Sign(Path("x"), size, (0, 0, *size), 1).large_enough == kept


def test_a_sign_is_cut_out_of_its_scene_with_a_border(downloads: Path) -> None:
    image = load_data("supertraffic10", "train", root=downloads).images[28]

    # 5 of 50 pixels on each side are border, which is white, and no black pixel of the scene is inside.
    assert image[:, :2].min() > 0.9
    assert image[:, :, -2:].min() > 0.9
    torch.testing.assert_close(image[:, 16, 16], torch.tensor([0, 200, 0]) / 255, atol=0.02, rtol=0)  # JPEG


def test_a_box_that_reaches_out_of_the_scene_ends_at_its_edge(downloads: Path) -> None:
    scene = {"width": 300, "height": 200, "file_name": "a.jpg"}

    assert supertraffic._cut_out(scene, [-4, -2, 60, 50], downloads, 12).box == (0, 0, 62, 53)
    assert supertraffic._cut_out(scene, [250, 150.4, 100, 30], downloads, 12).box == (240, 145, 300, 185)


def test_pictures_are_scaled_to_32_pixels_without_cutting(downloads: Path) -> None:
    path = downloads / "GTSRB" / "Final_Training" / "Images" / "00001" / "00000_00000.ppm"
    halves = Image.new("RGB", (40, 44), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 22, 40, 44))
    halves.save(path)

    data = load_data("supertraffic10", "train", root=downloads)

    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    assert torch.equal(data.images[0, :, :15], red[:, None, None].expand(3, 15, 32))
    assert torch.equal(data.images[0, :, 17:], blue[:, None, None].expand(3, 15, 32))
    assert load_data("supertraffic10", "train", root=downloads, limit=7, size=28).images.shape == (7, 3, 28, 28)


# --- correspondence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [supertraffic.DFG_CLASSES, supertraffic.BELGIUM_CLASSES], ids=["DFG", "BelgiumTS"])
def test_no_two_classes_of_a_set_are_the_same_german_class(classes: dict[object, int]) -> None:
    assert len(set(classes.values())) == len(classes)
    assert set(classes.values()) <= set(range(43))


def test_every_class_of_every_set_arrives_at_its_german_number(downloads: Path) -> None:
    slovenian_signs = [(name, [50.0, 50.0, 40.0, 40.0], False) for name in supertraffic.DFG_CLASSES]
    (downloads / "DFG" / "train.json").write_text(json.dumps(annotations(slovenian_signs, "0000001.jpg")))

    found = supertraffic._signs("train", downloads)

    origin = {part: [sign.number for sign in found if part in sign.path.parts] for part in ("DFG", "BelgiumTSC", "GTSRB")}
    assert origin["DFG"] == list(supertraffic.DFG_CLASSES.values())
    assert origin["BelgiumTSC"] == list(supertraffic.BELGIUM_CLASSES.values())
    assert {number: origin["GTSRB"].count(number) for number in origin["GTSRB"]} == COUNTS


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_the_layout_of_torchvision_and_the_other_unpacked_folders_are_found(downloads: Path) -> None:
    expected = load_data("supertraffic10", "train", root=downloads)
    (downloads / "gtsrb" / "GTSRB").mkdir(parents=True)
    moves = {
        "GTSRB/Final_Training/Images": "gtsrb/GTSRB/Training",
        "GTSRB/Final_Test": "gtsrb/GTSRB/Final_Test",
        "GT-final_test.csv": "gtsrb/GT-final_test.csv",
        "DFG/train.json": "DFG/DFG-tsd-annot-json/train.json",
        "BelgiumTSC/Training": "BelgiumTSC_Training/Training",
        "BelgiumTSC/Testing": "BelgiumTSC_Testing/Testing",
    }
    for old, new in moves.items():
        (downloads / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(downloads / old, downloads / new)

    assert torch.equal(load_data("supertraffic10", "train", root=downloads).images, expected.images)
    assert len(load_data("supertraffic10", "test", root=downloads)) == 5


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("GTSRB/Final_Training/Images", "benchmark.ini.rub.de"),
        ("GTSRB/Final_Training/Images/00042/GT-00042.csv", "benchmark.ini.rub.de"),
        ("GTSRB/Final_Test/Images", "benchmark.ini.rub.de"),
        ("GT-final_test.csv", "benchmark.ini.rub.de"),
        ("DFG/train.json", "www.vicos.si"),
        ("DFG/test.json", "www.vicos.si"),
        ("DFG/JPEGImages", "www.vicos.si"),
        ("BelgiumTSC/Training", "btsd.ethz.ch"),
        ("BelgiumTSC/Testing", "btsd.ethz.ch"),
        ("BelgiumTSC/Training/00061/GT-00061.csv", "btsd.ethz.ch"),
    ],
)
def test_missing_files_are_named_with_the_places_and_the_makers(path: str, page: str, downloads: Path) -> None:
    gone = downloads / path
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()

    with pytest.raises(GenclsError) as caught:
        load_data("supertraffic10", "test", root=downloads)

    message = str(caught.value)
    place, _, rest = message.removeprefix("supertraffic10: expected ").partition(" of ")
    assert any(path.endswith(way) for way in place.split(" or "))
    assert f"under {downloads}" in rest
    assert f"Get the originals from https://{page}" in message


def test_a_missing_picture_is_named(downloads: Path) -> None:
    path = downloads / "BelgiumTSC" / "Training" / "00019" / "00019_00000.ppm"
    path.unlink()

    with pytest.raises(GenclsError, match=f"expected the picture {path}, which is annotated; got no such file"):
        load_data("supertraffic10", "train", root=downloads)
    assert len(load_data("supertraffic10", "test", root=downloads)) == 5


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("00000_00000.ppm;40;forty;5;5;35;35;1", "forty"),
        ("00000_00000.ppm;40;40;5;5;35;35;2", "'ClassId': '2'"),
        ("00000_00000.ppm;40", "'Height': None"),
        ("00000_00000.ppm;\udcff\udcfe;40;5;5;35;35;1", "\ufffd"),
    ],
    ids=["number", "class", "short", "bytes"],
)
def test_a_damaged_table_is_named_with_the_line(row: str, shown: str, downloads: Path) -> None:
    path = downloads / "GTSRB" / "Final_Training" / "Images" / "00001" / "GT-00001.csv"
    path.write_text(f"{HEADER}\n00000_00001.ppm;40;44;5;5;35;35;1\n{row}\n", errors="surrogateescape")

    with pytest.raises(GenclsError, match=rf"GT-00001.csv, line 3: expected .* ClassId among 1; got .*{shown}"):
        load_data("supertraffic10", "train", root=downloads)


def rename(content: dict[str, Any]) -> None:
    content["categories"][0]["name"] = "other"


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no images": (lambda content: content.pop("images"), "expected COCO annotations with categories, images and annotations"),
    "other categories": (rename, "expected the categories of DFG; got none named I-1$"),
    "unknown picture": (
        lambda content: content["annotations"][0].update(image_id=8),
        r"bbox inside the picture; KeyError\(8\)",
    ),
    "unknown category": (lambda content: content["annotations"][0].update(category_id=999), r"KeyError\(999\)"),
    "no box": (lambda content: content["annotations"][0].pop("bbox"), r"KeyError\('bbox'\)"),
    "three numbers": (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "not enough values"),
    "words": (lambda content: content["annotations"][0].update(bbox=["a", "b", "c", "d"]), "TypeError"),
    "flat box": (
        lambda content: content["annotations"][0].update(bbox=[9, 9, 40, 0]),
        r"bbox \[9, 9, 40, 0\] in a picture of 300x200",
    ),
    "box outside": (lambda content: content["annotations"][0].update(bbox=[301, 9, 40, 40]), r"bbox \[301, 9, 40, 40\]"),
    "NaN": (lambda content: content["annotations"][0].update(bbox=[float("nan"), 9, 40, 40]), r"bbox \[nan, 9, 40, 40\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_annotations_of_scenes_are_refused(damage: str, downloads: Path) -> None:
    change, message = DAMAGES[damage]
    path = downloads / "DFG" / "train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

    with pytest.raises(GenclsError, match=message) as caught:
        load_data("supertraffic10", "train", root=downloads)
    assert str(path) in str(caught.value)


def test_truncated_annotations_of_scenes_are_refused(downloads: Path) -> None:
    path = downloads / "DFG" / "train.json"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(GenclsError, match="train.json: expected COCO annotations .* JSONDecodeError"):
        load_data("supertraffic10", "train", root=downloads)


def test_a_truncated_picture_and_one_of_another_size_are_named(downloads: Path) -> None:
    path = downloads / "BelgiumTSC" / "Training" / "00019" / "00019_00000.ppm"
    content = path.read_bytes()

    path.write_bytes(content[:200])
    with pytest.raises(GenclsError, match=f"the picture {path} cannot be read: .*truncated"):
        load_data("supertraffic10", "train", root=downloads)
    picture(path, BELGIAN, 34, 50)
    with pytest.raises(GenclsError, match=r"annotated as \(50, 34\) pixels, it has \(34, 50\)"):
        load_data("supertraffic10", "train", root=downloads)


def test_fewer_than_ten_classes_are_refused(downloads: Path) -> None:
    for number in TEN[:3]:
        path = downloads / "GTSRB" / "Final_Training" / "Images" / f"{number:05d}" / f"GT-{number:05d}.csv"
        path.write_text(HEADER)
    for name in ("Training", "Testing"):
        for path in (downloads / "BelgiumTSC" / name).rglob("*.csv"):
            path.write_text(HEADER)

    with pytest.raises(GenclsError, match="expected training images of at least 10 classes; got 8 classes"):
        load_data("supertraffic10", "test", root=downloads)
