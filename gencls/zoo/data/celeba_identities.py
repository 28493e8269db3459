"""CelebA by person: 100 identities, 64x64, the second task of the MLVGM paper.

Serez et al., WACV 2025, supplement, appendix C: "First, we center crop and resize each image to achieve the correct
resolution of 64x64. Then, we select a random subset of 100 identities, between these that have at least 15 samples per
class." The paper leaves the rest open, and it is settled here. The crop is the usual one of 148 pixels. The identities and the
test photos are drawn once for all. 3/16 of the photos of each identity are for testing (paper: 600 of 3,200).
"""

from hashlib import md5
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import DataSet, ImageSource, part_of_each_class, permutation
from gencls.zoo.data.known_files import needed_root
from gencls.zoo.data.pictures import picture_source, scaled

TABLE_MD5 = "32bd1bd63d3c78cd57e08160ec5ed1e2"
"""MD5 of the original identity_CelebA.txt."""

_NAME = "celeba-identities"
_TABLE = "celeba/identity_CelebA.txt"
_IMAGES = "celeba/img_align_celeba"
_ORIGIN = (
    "Get the originals from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba.zip, unpacked, and "
    "identity_CelebA.txt"
)
_IDENTITIES = 100
_LEAST = 15
_TEST_SHARE = 3 / 16
_SEED = 0
_SIDE = 64
_ALIGNED = (178, 218)
_CROP = (15, 35, 163, 183)


def open_celeba_identities(split: str, root: Path | None) -> ImageSource:
    """Read one split from the original files of CelebA in the folder ``celeba``, as torchvision lays them out.

    Labels follow the numbers of the identities; `indices` count in the rows of identity_CelebA.txt.

    Raises:
        GenclsError: A file is missing, the table is not the original, or a photo is damaged or not of 178x218 pixels.
    """
    root = needed_root(_NAME, root)
    names, identities = _table(root)
    chosen = chosen_identities(identities)
    rows = np.flatnonzero(np.isin(identities, chosen))
    labels = np.searchsorted(chosen, identities[rows])
    tested = part_of_each_class(labels, _TEST_SHARE, _SEED)
    kept = np.flatnonzero(tested if split == "test" else ~tested)
    files = [root / _IMAGES / names[row] for row in rows[kept]]
    for file in files:
        if not file.is_file():
            raise GenclsError(f"{_NAME}: expected the picture {file}; got no such file. {_ORIGIN}")
    prepare = scaled(_CROP, _SIDE, of=_ALIGNED)
    names_of_classes = tuple(map(str, chosen))
    return picture_source(_NAME, files, prepare, _SIDE, labels=labels[kept], class_names=names_of_classes, indices=rows[kept])


def chosen_identities(identities: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of 100 random identities among those with at least 15 of the photos (N,), ascending; fewer are an error."""
    numbers, counts = np.unique(identities, return_counts=True)
    frequent = numbers[counts >= _LEAST]
    if len(frequent) < _IDENTITIES:
        raise GenclsError(
            f"{_NAME}: expected at least {_IDENTITIES} identities with {_LEAST} photos or more; got {len(frequent)}"
        )
    return sorted(frequent[permutation(len(frequent), _SEED)[:_IDENTITIES]].tolist())


def _table(root: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Names of all photos and their identities, (N,)."""
    path = root / _TABLE
    if not path.is_file():
        raise GenclsError(f"{_NAME}: expected {_TABLE} under the data root {root}; got no such file. {_ORIGIN}")
    content = path.read_bytes()
    digest = md5(content, usedforsecurity=False).hexdigest()
    if digest != TABLE_MD5:
        raise GenclsError(f"{path}: expected the original file, MD5 {TABLE_MD5}; got MD5 {digest} ({len(content)} bytes)")
    rows = [line.split() for line in content.decode().splitlines()]
    return [name for name, _ in rows], np.array([int(identity) for _, identity in rows], dtype=np.int64)


DATA_SET = DataSet(open=open_celeba_identities, research_only=True)
