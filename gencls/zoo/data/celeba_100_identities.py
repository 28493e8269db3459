"""A hundred persons of CelebA, 64x64, small enough for tests: 28 to 30 photos each, cut from photos "in the wild".

It takes the place of `celeba-identities` if the whole of CelebA is not at hand. MTCNN found the faces. They are aligned to
CelebA's mean face, cut to 148 pixels, stored at 128x128 and halved here, which gives the 64x64 of the MLVGM paper. The
archive's table has the split, stratified by identity.
"""

from pathlib import Path

from gencls.zoo.data.image_data import DataSet, ImageSource
from gencls.zoo.data.known_files import KnownFile, read_archive, table_rows
from gencls.zoo.data.pictures import picture_source, whole

CELEBA_100_IDENTITIES_FILE = KnownFile(
    "CelebA/celeba-identities-128.tar.xz", 13_849_068, "bc2890a103aac847b345204331135bda95736404becc1a7e717c640980e7166c"
)

_NAME = "celeba-100-identities"
_FOLDER = "celeba-identities-128"
_SIDE = 64


def open_celeba_100_identities(split: str, root: Path | None) -> ImageSource:
    """Read one split from the archive in the folder CelebA under the data root.

    Classes are named by CelebA's numbers of the identities. `indices` are the rows of the archive's table.
    """
    members = read_archive(_NAME, root, CELEBA_100_IDENTITIES_FILE)
    rows = table_rows(members[f"{_FOLDER}/labels.csv"])
    kept = [position for position, row in enumerate(rows) if row["split"] == split]
    files = [members[f"{_FOLDER}/{rows[position]['file']}"] for position in kept]
    names = {int(row["label"]): row["celeba_identity"] for row in rows}
    return picture_source(
        _NAME,
        files,
        whole(_SIDE),
        _SIDE,
        labels=[int(rows[position]["label"]) for position in kept],
        class_names=tuple(names[label] for label in sorted(names)),
        indices=kept,
    )


DATA_SET = DataSet(open=open_celeba_100_identities, research_only=True)
