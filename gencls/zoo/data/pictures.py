"""Photos from files, prepared one by one and put into one tensor; tiles of sprite sheets."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import ImageSource, resize_and_crop

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Callable[["Image"], "Image"]
"""Turns an RGB photo into one of the set's size; raises OSError for a photo that it does not take."""


def read_pictures(name: str, files: Sequence[Path | bytes], prepare: Prepare, side: int, *, size: int | None = None) -> Tensor:
    """Decode photos, paths or contents of files, and prepare each: (n, 3, side, side) uint8, or scaled to `size` afterwards.

    Raises:
        GenclsError: A photo is missing, damaged or not of the kind that `prepare` takes.
    """
    from PIL import Image

    pixels = np.empty((len(files), side, side, 3), dtype=np.uint8)
    for target, file in zip(pixels, files, strict=True):
        try:
            with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as picture:
                target[:] = np.asarray(prepare(picture.convert("RGB")))
        except OSError as error:
            place = "in the archive" if isinstance(file, bytes) else file
            raise GenclsError(f"{name}: the picture {place} cannot be read: {error}") from error
    return resize_and_crop(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), size)


def picture_source(
    name: str,
    files: Sequence[Path | bytes],
    prepare: Prepare,
    side: int,
    *,
    labels: npt.NDArray[np.int64] | Sequence[int],
    class_names: tuple[str, ...],
    indices: npt.NDArray[np.int64] | Sequence[int] | None = None,
) -> ImageSource:
    """Photos that :func:`read_pictures` decodes when asked for; `indices` are the positions in `files` unless given."""
    return ImageSource(
        labels=torch.as_tensor(labels, dtype=torch.int64),
        class_names=class_names,
        read=lambda positions, size: read_pictures(name, [files[p] for p in positions.tolist()], prepare, side, size=size),
        indices=torch.arange(len(files)) if indices is None else torch.as_tensor(indices, dtype=torch.int64),
    )


def sheet_tiles(sheet: bytes, count: int, side: int, *, columns: int = 100) -> npt.NDArray[np.uint8]:
    """The first `count` tiles of a sprite sheet, row by row: content of a picture file to (count, 3, side, side)."""
    from PIL import Image

    with Image.open(BytesIO(sheet)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    grid = pixels.reshape(-1, side, columns, side, 3)
    return np.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)[:count])


def scaled(box: tuple[int, int, int, int], side: int, *, of: tuple[int, int]) -> Prepare:
    """Cut out a box (left, upper, right, lower) of photos of width and height `of`, and scale it to side x side pixels.

    Pillow's bilinear filter widens with the reduction, so that nothing is aliased. We crop, because with Pillow's own argument
    box the filter would see beyond the edges.
    """

    def prepare(picture: "Image") -> "Image":
        from PIL.Image import Resampling

        if picture.size != of:
            raise OSError(f"expected {of[0]}x{of[1]} pixels (width x height), got {picture.size[0]}x{picture.size[1]}")
        return picture.crop(box).resize((side, side), Resampling.BILINEAR)

    return prepare


def squared(side: int) -> Prepare:
    """Add black bars at top and bottom (of a photo that is higher than wide: left and right), and scale to side x side."""

    def prepare(picture: "Image") -> "Image":
        from PIL import Image

        width, height = picture.size
        longest = max(width, height)
        square = Image.new("RGB", (longest, longest))
        square.paste(picture, ((longest - width) // 2, (longest - height) // 2))
        return square.resize((side, side), Image.Resampling.BILINEAR)

    return prepare


def whole(side: int) -> Prepare:
    """Scale square photos to side x side pixels."""

    def prepare(picture: "Image") -> "Image":
        from PIL.Image import Resampling

        width, height = picture.size
        if width != height:
            raise OSError(f"expected a square picture, got {width}x{height} pixels (width x height)")
        return picture.resize((side, side), Resampling.BILINEAR)

    return prepare
