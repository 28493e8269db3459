"""A folder of images by class, as torchvision's ImageFolder takes it: FOLDER/CLASS/.../image.png.

Classes are the folders, sorted by name. Images are the files below them with a usual suffix, in ImageFolder's order. Names that
begin with a dot, ``__MACOSX``, and files that are no pictures are passed over. An error tells of anything else that would be
lost.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import ImageSource, resize_and_crop
from gencls.zoo.data.known_files import needed_root

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of images, in any case: torchvision's."""

_OTHER_PICTURES = (".avif", ".dcm", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".npy", ".npz", ".svg")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY = ("1", "L", "LA")
_COLOUR = ("CMYK", "P", "PA", "RGB", "RGBA", "YCbCr")
_SPLITS = ("eval", "test", "train", "training", "val", "valid", "validation")


def open_folder(path: Path, split: str | None) -> ImageSource:
    """Find the images of each class and look at the header of each; pixels are decoded when asked for.

    Images are grey if all of them are, else colour: grey ones among coloured ones become RGB. They are taken as stored, as
    ImageFolder does: a note in EXIF that a photo is to be turned is ignored, and CMYK becomes RGB without a profile.

    Args:
        path: the folder.
        split: name of the folder in it that holds the class folders; None: they lie in `path` itself.

    Raises:
        GenclsError: There are no classes, a class without images, images beside the class folders, a picture of another format,
            one that cannot be read, of 16 bits a channel, of several frames, or too large for Pillow.
    """
    place = _place(path, split)
    classes = _classes(place)
    if split is None and classes and all(name.lower() in _SPLITS for name in classes):
        raise GenclsError(
            f"{place}: expected one folder per class, got the splits {', '.join(classes)}; name one as the split, such as "
            f"{classes[0]}"
        )
    files = {name: _images_below(place / name) for name in classes}
    if empty := [name for name, found in files.items() if not found]:
        raise GenclsError(f"{place}: expected images in each class folder, got none in {_some(empty)}; expected {_suffixes()}")
    if not files:
        raise GenclsError(f"{place}: expected one folder per class, got no folder")
    every = [file for found in files.values() for file in found]
    headers = [_header(file) for file in every]
    sizes: dict[tuple[int, int], Path] = {}
    for file, (_, size) in zip(every, headers, strict=True):
        sizes.setdefault(size, file)
    mode = "L" if all(mode in _GREY for mode, _ in headers) else "RGB"
    return ImageSource(
        labels=torch.tensor([label for label, found in enumerate(files.values()) for _ in found]),
        class_names=tuple(classes),
        read=lambda positions, size: _read(place, [every[position] for position in positions.tolist()], mode, sizes, size),
        indices=torch.arange(len(every)),
    )


def open_class_folders(name: str, split: str, root: Path | None) -> ImageSource:
    """Read one split of a data set that is nothing but pictures in folders, ROOT/NAME/SPLIT/CLASS/.../image.png.

    A row of the registry is ``"leaves": DataSet(open=partial(open_class_folders, "leaves"))``.

    Raises:
        GenclsError: There is no data root or no such folder, or as `open_folder`.
    """
    folder = needed_root(name, root) / name
    if not folder.is_dir():
        raise GenclsError(f"{name}: expected the folder {name} under the data root {root}; got no such folder")
    return open_folder(folder, split)


def _place(path: Path, split: str | None) -> Path:
    if split is None:
        return path
    there = sorted(entry.name for entry in _entries(path) if entry.is_dir())
    if split not in there:
        raise GenclsError(f"{path}: expected the split as the name of a folder in it, {_some(there)}; got {split!r}")
    return path / split


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if _is_visible(entry.name)]
    except OSError as error:
        _unreadable(error)


def _classes(folder: Path) -> list[str]:
    """Names of the folders in it, sorted."""
    entries = _entries(folder)
    if loose := sorted(entry.name for entry in entries if entry.name.lower().endswith(IMAGES) and not entry.is_dir()):
        raise GenclsError(f"{folder}: expected images in one folder per class, got {len(loose)} beside them: {_some(loose)}")
    return sorted(entry.name for entry in entries if entry.is_dir())


def _images_below(folder: Path) -> list[Path]:
    visited: list[tuple[str, list[str]]] = []
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        above = os.path.realpath(root)
        if loops := [name for name in folders if Path(above).is_relative_to(os.path.realpath(Path(root, name)))]:
            raise GenclsError(f"{Path(root, loops[0])}: expected a folder below its own, got a link to one above it")
        folders[:] = filter(_is_visible, folders)
        visited.append((root, sorted(filter(_is_visible, names))))
    found: list[Path] = []
    for root, names in sorted(visited):
        for name in names:
            if name.lower().endswith(_OTHER_PICTURES):
                raise GenclsError(f"{Path(root, name)}: expected images as {_suffixes()}; convert it, or take it out")
            if name.lower().endswith(IMAGES):
                found.append(Path(root, name))
    return found


def _header(file: Path) -> tuple[str, tuple[int, int]]:
    """Mode, height and width of an image."""
    with _opened(file) as picture:
        mode, (width, height) = picture.mode, picture.size
        deep = mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
        if deep:
            raise GenclsError(
                f"{file}: expected 8 bits a channel, got more ({mode}); convert it, or give its pixels as an .npz"
            )
        if mode not in (*_GREY, *_COLOUR):
            raise GenclsError(f"{file}: expected a grey or coloured image, got Pillow's mode {mode}; convert it")
        if picture.format != "MPO" and (frames := getattr(picture, "n_frames", 1)) > 1:
            raise GenclsError(f"{file}: expected one image, got {frames} frames or pages; take one out")
    return mode, (height, width)


def _read(folder: Path, files: list[Path], mode: str, sizes: dict[tuple[int, int], Path], size: int | None) -> Tensor:
    """Decode images into one tensor, (n, C, H, W) uint8."""
    if size is None and len(sizes) > 1:
        shown = " and ".join(f"{height}x{width} ({file.name})" for (height, width), file in list(sizes.items())[:2])
        raise GenclsError(
            f"{folder}: expected images of one size; got {len(sizes)} sizes, such as {shown}, height x width. Pass "
            "size= (--size) to scale the shorter side to it and cut out the centre square"
        )
    side = next(iter(sizes)) if size is None else (size, size)
    images = torch.empty((len(files), 1 if mode == "L" else 3, *side), dtype=torch.uint8)
    for image, file in zip(images, files, strict=True):
        image.copy_(resize_and_crop(_pixels(file, mode), size))
    return images


def _pixels(file: Path, mode: str) -> Tensor:
    with _opened(file) as picture:
        if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            if picture.getchannel("A").getextrema() != (255, 255):
                raise GenclsError(f"{file}: expected an opaque image, got transparent pixels; put it on a background")
        pixels = np.array(picture.convert(mode))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


@contextmanager
def _opened(file: Path) -> "Iterator[Image]":
    from PIL import Image

    Image.init()  # else not all formats are known
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not S_ISREG(file.stat().st_mode):  # a pipe would be waited for
                raise GenclsError(f"{file}: expected an image that can be read; got no regular file")
            with Image.open(file, formats=_FORMATS) as picture:
                yield picture
    except GenclsError:
        raise
    except Exception as error:  # Pillow's readers share no error class
        raise GenclsError(f"{file}: expected an image that can be read; got: {error}") from error


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _unreadable(error: OSError) -> NoReturn:
    raise GenclsError(f"{error.filename}: expected a folder that can be read; got: {error.strerror}") from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _suffixes() -> str:
    return f"{', '.join(IMAGES[:-1])} or {IMAGES[-1]}"
