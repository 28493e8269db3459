"""CelebA-HQ by gender: 23,999 and 6,001 faces of 256x256, the first task of the MLVGM paper.

Serez, Cristani, Del Bue, Murino, Morerio, "Pre-trained Multiple Latent Variable Generative Models are good defenders
against Adversarial Attacks", WACV 2025, section 4 and supplement, appendix C: "24k training and 6k validation images, at
a resolution of 256x256", of github.com/ndb796/CelebA-HQ-Face-Identity-and-Attributes-Recognition-PyTorch. That repository
sorts the 30,000 photos of CelebA-HQ by the attribute "Male" and takes four fifths of each class for training, in the order
in which a file system happened to list them: its archive is the only record of the split.
"""

from pathlib import Path

from gencls.core.errors import GenclsError
from gencls.zoo.data.image_data import DataSet, ImageSource
from gencls.zoo.data.known_files import needed_root
from gencls.zoo.data.pictures import picture_source, whole

COUNTS = {"train": {"female": 15_154, "male": 8_845}, "test": {"female": 3_789, "male": 2_212}}
"""Photos of each split and class."""

_NAME = "celeba-hq-gender"
_FOLDER = "CelebA_HQ_face_gender_dataset"
_SIDE = 256


def open_celeba_hq_gender(split: str, root: Path | None) -> ImageSource:
    """Read one split from the unpacked archive, ``CelebA_HQ_face_gender_dataset/{train,test}/{female,male}/*.jpg``.

    Photos are in the order of their names, female ones first; larger ones than 256x256 are scaled down (bilinear,
    antialiased).

    Raises:
        GenclsError: A folder is missing or has another number of photos; later, a photo is damaged or not square.
    """
    root = needed_root(_NAME, root)
    files: list[Path] = []
    labels: list[int] = []
    for label, (class_name, count) in enumerate(COUNTS[split].items()):
        folder = root / _FOLDER / split / class_name
        found = sorted(folder.glob("*.jpg"))
        if len(found) != count:
            raise GenclsError(
                f"{_NAME}: expected {count} pictures *.jpg in {folder}; got "
                f"{len(found) if folder.is_dir() else 'no such folder'}. Get CelebA_HQ_face_gender_dataset.zip from "
                "https://github.com/ndb796/CelebA-HQ-Face-Identity-and-Attributes-Recognition-PyTorch and unpack it into a "
                f"folder {_FOLDER} under the data root"
            )
        files += found
        labels += [label] * count
    return picture_source(_NAME, files, whole(_SIDE), _SIDE, labels=labels, class_names=tuple(COUNTS[split]))


DATA_SET = DataSet(open=open_celeba_hq_gender, research_only=True)
