"""A folder of photos by class."""

import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from gencls.core import GenclsError
from gencls.zoo import load_data
from gencls.zoo.data import count_images

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 8, 10, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
CLASSES = [0, 2, 1, 0, 2, 2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCLS_DATA", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def save(path, pixels, mode=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **settings)
    return path


@pytest.fixture
def photos(here):
    """Six photos of three classes, the classes named in three scripts, one photo in a folder of its own."""
    names = ["cat/a.png", "рыба/ö.PNG", "犬/1.bmp", "cat/more/b.png", "рыба/a b.png", "рыба/c.tif"]
    for name, pixels in zip(names, PIXELS, strict=True):
        save(here / "photos" / name, pixels)
    return here / "photos"


def test_a_folder_is_read_as_torchvision_reads_it(photos):
    data, theirs = load_data("photos"), ImageFolder(photos)
    assert (data.name, data.split, data.class_names) == ("photos", "all", tuple(theirs.classes))
    assert data.labels.tolist() == theirs.targets
    assert data.indices.tolist() == list(range(6))
    assert torch.equal(data.images, torch.stack([pil_to_tensor(image) for image, _ in theirs]).float() / 255)
    assert count_images(photos) == 6


def test_a_limit_takes_a_balanced_nested_part_of_a_folder(photos):
    whole, part, other = load_data(photos), load_data(photos, limit=3, seed=1), load_data(photos, limit=5, seed=1)
    assert sorted(part.labels.tolist()) == [0, 1, 2]
    assert torch.equal(other.images[:3], part.images)
    assert torch.equal(whole.images[part.indices], part.images)
    with pytest.raises(GenclsError, match="limit must be between 1 and 6"):
        load_data(photos, limit=7)


def test_a_split_of_a_folder_is_a_folder_in_it(photos, here):
    (here / "set").mkdir()
    photos.rename(here / "set" / "test")
    save(here / "set" / "train" / "cat" / "a.png", PIXELS[0])
    assert len(load_data("set", "test")) == 6
    assert load_data("set", "train").class_names == ("cat",)
    with pytest.raises(GenclsError, match="expected one folder per class, got the splits test, train; name one as the split"):
        load_data("set")
    for split in ("val", "..", "test/cat", ""):
        with pytest.raises(GenclsError, match="expected the split as the name of a folder in it, test, train; got "):
            load_data("set", split)


def test_grey_images_stay_grey_and_become_colour_among_coloured_ones(photos, here):
    for name in ("a/1.png", "b/2.png"):
        save(here / "grey" / name, PIXELS[0], "L")
    save(here / "grey" / "b" / "bits.png", PIXELS[0], "1")
    assert load_data("grey").images.shape == (3, 1, 8, 10)
    save(photos / "cat" / "grey.png", PIXELS[0], "L")
    found = load_data("photos").images[1]
    assert found.shape == (3, 8, 10)
    assert torch.equal(found[0], found[2])


def test_images_of_several_sizes_need_a_size(photos):
    save(photos / "cat" / "small.png", PIXELS[0, :6, :6])
    with pytest.raises(
        GenclsError, match=r"photos: expected images of one size; got 2 sizes, such as 8x10 .* and 6x6 .*\(--size\)"
    ):
        load_data("photos", limit=2)
    assert load_data("photos", size=5).images.shape == (7, 3, 5, 5)


TURNED = Image.Exif()
TURNED[0x0112] = 6


def modes(mode, suffix="png"):
    """How a photo of another mode looks, as torchvision sees it."""
    return lambda folder: save(folder / f"one.{suffix}", PIXELS[0], mode)


KEPT = {
    "palette": modes("P"),
    "opaque": modes("RGBA"),
    "CMYK": modes("CMYK", "jpg"),
    "turned by EXIF": lambda folder: save(folder / "one.jpg", PIXELS[0], exif=TURNED),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_photo_is_seen_as_torchvision_sees_it(name, here):
    KEPT[name](here / "set" / "cat")
    image, _ = ImageFolder(here / "set")[0]
    assert torch.equal(load_data("set").images[0], pil_to_tensor(image).float() / 255)


def test_what_is_no_picture_is_passed_over_and_links_are_followed(photos, here):
    for name in ("notes.txt", "cat/labels.csv", "cat/.a.png", ".git/HEAD", "__MACOSX/cat/a.png", "cat/Thumbs.db"):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no picture")
    (photos / "zebra").symlink_to(photos / "cat")
    data = load_data("photos")
    assert data.class_names == ("cat", "zebra", "рыба", "犬")
    assert data.labels.bincount().tolist() == [2, 2, 3, 1]


def animated(folder):
    frames = [Image.fromarray(pixels) for pixels in PIXELS[:2]]
    frames[0].save(folder / "two.webp", save_all=True, append_images=frames[1:])


def with_header(path, at, content):
    """A PNG that says something else of itself."""
    png = bytearray(save(path, PIXELS[0]).read_bytes())
    png[at : at + len(content)] = content
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    path.write_bytes(png)


def huge(folder):
    with_header(folder / "huge.png", 16, struct.pack(">II", 15_000, 13_000))


def deep(folder):
    with_header(folder / "deep.png", 24, b"\x10")


def transparent(folder):
    save(folder / "glass.png", np.dstack([PIXELS[0], PIXELS[0, :, :, 0]]))


def colour_key(folder):
    Image.fromarray(PIXELS[0]).save(folder / "key.png", transparency=tuple(PIXELS[0, 0, 0].tolist()))


def text(name, content="<html>not found</html>"):
    return lambda folder: (folder / name).write_text(content)


UNFIT = {
    "no image": (text("page.jpg"), "page.jpg: expected an image that can be read; got: cannot identify image file"),
    "empty": (text("void.png", ""), "void.png: expected an image that can be read"),
    "cut off": (
        lambda folder: (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:150]),
        "cut.png: expected an image that can be read; got",
    ),
    "broken link": (
        lambda folder: (folder / "gone.png").symlink_to(folder / "nowhere.png"),
        "gone.png: expected an image that can be read; got: ",
    ),
    "loop": (
        lambda folder: (folder / "up").symlink_to(folder.parent),
        "up: expected a folder below its own, got a link to one above it",
    ),
    "another format": (text("moving.gif"), "moving.gif: expected images as .jpg, .jpeg, .png"),
    "a gif by another name": (
        lambda folder: save(folder / "moving.png", PIXELS[0], format="gif"),
        "moving.png: expected an image that can be read",
    ),
    "frames": (animated, "two.webp: expected one image, got 2 frames or pages"),
    "16 bits": (
        lambda folder: save(folder / "deep.png", PIXELS[0, :, :, 0].astype(np.uint16) * 257),
        "deep.png: expected 8 bits a channel, got more (I;16)",
    ),
    "16 bits in colour": (deep, "deep.png: expected 8 bits a channel, got more (RGB)"),
    "floats": (
        lambda folder: save(folder / "real.tif", PIXELS[0, :, :, 0].astype(np.float32)),
        "real.tif: expected 8 bits a channel, got more (F)",
    ),
    "transparent": (transparent, "glass.png: expected an opaque image, got transparent pixels"),
    "a transparent colour": (colour_key, "key.png: expected an opaque image, got transparent pixels"),
    "huge": (huge, "huge.png: expected an image that can be read; got: Image size (195000000 pixels)"),
    "an empty class": (
        lambda folder: (folder.parent / "dog").mkdir(),
        "expected images in each class folder, got none in dog; expected .jpg",
    ),
    "images beside the classes": (
        lambda folder: save(folder.parent / "loose.png", PIXELS[0]),
        "expected images in one folder per class, got 1 beside them: loose.png",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_into_a_folder_is_named(name, photos):
    spoil, message = UNFIT[name]
    spoil(photos / "cat")
    with pytest.raises(GenclsError) as caught:
        load_data("photos")
    assert message in str(caught.value)


def test_folders_without_classes(here):
    (here / "empty").mkdir()
    with pytest.raises(GenclsError, match="empty: expected one folder per class, got no folder"):
        load_data("empty")
    with pytest.raises(GenclsError, match="expected one folder per class, got no folder"):
        load_data(here / "empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_is_refused_and_not_waited_for(here):
    for label in "ab":
        (here / "photos" / label).mkdir(parents=True)
        Image.fromarray(PIXELS[0]).save(here / "photos" / label / "0.png")
    os.mkfifo(here / "photos" / "b" / "1.png")
    with pytest.raises(GenclsError, match=r"1\.png: expected an image that can be read; got no regular file"):
        load_data("photos")
