"""The first 10,000 faces of CelebA by gender, 64x64, small enough for tests: an archive of the aligned photos at half size.

Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, arXiv:1411.7766. All these faces lie in CelebA's
own training part. Therefore the split is ours, by person: a fifth of the identities is for testing.
"""

from pathlib import Path

import numpy as np

from gencls.zoo.data.image_data import DataSet, ImageSource, permutation
from gencls.zoo.data.known_files import KnownFile, read_archive
from gencls.zoo.data.pictures import picture_source, scaled

CELEBA_10K_GENDER_FILE = KnownFile(
    "CelebA/celeba-10k-half-resolution.tar.xz", 21_741_000, "0beffccf8755e5376fb6bf39eb08b4c744a86ab13c4a0acbd17126dd69cd2d1a"
)

_NAME = "celeba-10k-gender"
_SEED = 0
_TEST_SHARE = 0.2
_SIDE = 64
_HALVED = (89, 109)
_CROP = (7, 17, 81, 91)  # 148 pixels of the aligned photo, as in celeba-identities


def open_celeba_10k_gender(split: str, root: Path | None) -> ImageSource:
    """Read one split from the archive in the folder CelebA under the data root.

    Labels are the attribute "Male". `indices` are the rows of the attributes' table.
    """
    members = read_archive(_NAME, root, CELEBA_10K_GENDER_FILE)
    _, header, *lines = members["celeba/list_attr_celeba.txt"].decode().splitlines()
    male = 1 + header.split().index("Male")
    rows = [line.split() for line in lines]
    labels = np.array([row[male] == "1" for row in rows], dtype=np.int64)
    persons = dict(line.split() for line in members["celeba/identity_CelebA.txt"].decode().splitlines())
    identities = np.array([int(persons[row[0]]) for row in rows], dtype=np.int64)
    known = np.unique(identities)
    tested = known[permutation(len(known), _SEED)[: round(_TEST_SHARE * len(known))]]
    kept = np.flatnonzero(np.isin(identities, tested, invert=split == "train"))
    files = [members[f"celeba/img_align_celeba/{rows[row][0]}"] for row in kept]
    prepare = scaled(_CROP, _SIDE, of=_HALVED)
    return picture_source(_NAME, files, prepare, _SIDE, labels=labels[kept], class_names=("female", "male"), indices=kept)


DATA_SET = DataSet(open=open_celeba_10k_gender, research_only=True)
