"""The files of Stanford Cars, as torchvision lays them out and as the mirrors have them; its own address is gone.

Krause, Stark, Deng, Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 3dRR 2013. Mirrors put photos into a
folder of the same name (cars_train/cars_train), the devkit into car_devkit, or all tables beside the photos. The older release
has all photos in car_ims and one table, cars_annos.mat, whose file names are not those of cars_train and cars_test.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencls.core.errors import GenclsError

FOLDERS = ("stanford_cars", "StanfordCars", "stanford-cars", "stanford-cars-dataset", "cars")
"""Names of the set's folder under the data root."""

_TABLES = {"train": ("cars_train_annos.mat",), "test": ("cars_test_annos_withlabels.mat", "cars_test_annos_withlabels (1).mat")}
_PLACES = ("devkit", "", "car_devkit/devkit", "car_devkit")


@dataclass(frozen=True)
class CarPhotos:
    """One split: paths of the photos, their labels, and the names of the classes."""

    paths: list[Path]
    labels: list[int]
    class_names: tuple[str, ...]

    def __getitem__(self, position: int) -> tuple[Any, int]:
        """The photo, of PIL, and its label."""
        from PIL import Image

        return Image.open(self.paths[position]), self.labels[position]


def read_cars(root: Path, split: str, told_as: str) -> CarPhotos:
    """Find one split, "train" or "test", under the data root and read its labels; errors name the data set `told_as`."""
    folders = [folder for name in FOLDERS if (folder := root / name).is_dir()]
    for folder in folders:
        photos = _first([folder / f"cars_{split}" / f"cars_{split}", folder / f"cars_{split}"])
        table = _first(folder / place / name for place in _PLACES for name in _TABLES[split])
        names = _first(folder / place / "cars_meta.mat" for place in _PLACES)
        older = _first([folder / "cars_annos.mat"]), _first([folder / "car_ims", folder / "car_ims" / "car_ims"])
        try:
            if photos and table and names:
                rows = _rows(table, "annotations")
                labels = [int(row["class"]) - 1 for row in rows]
                return _checked([photos / str(row["fname"]) for row in rows], labels, _rows(names, "class_names"), table)
            if older[0] and older[1]:
                rows = [row for row in _rows(older[0], "annotations") if bool(row["test"]) == (split == "test")]
                paths = [older[1] / Path(str(row["relative_im_path"])).name for row in rows]
                return _checked(paths, [int(row["class"]) - 1 for row in rows], _rows(older[0], "class_names"), older[0])
        except Exception as error:  # scipy's reader has no error class of its own
            raise GenclsError(f"{told_as}: the files under the data root {root} cannot be read: {error}") from error
    expected = f"cars_{split}", f"{'devkit/' * (split == 'train')}{_TABLES[split][0]}", "devkit/cars_meta.mat"
    got = "; ".join(f"{folder.name} with {_content(folder)}" for folder in folders) or "no such file or folder"
    raise GenclsError(
        f"{told_as}: expected {', '.join(f'stanford_cars/{path}' for path in expected)} under the data root {root}, or car_ims "
        f"with cars_annos.mat; got {got}. The set's origin is gone: put a copy of it there by hand, see "
        "https://github.com/pytorch/vision/issues/7545. Photos in class folders are read as data of your own, by their path"
    )


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _rows(path: Path, name: str) -> list[Any]:
    from scipy.io import loadmat

    return list(loadmat(path, squeeze_me=True)[name])


def _checked(paths: list[Path], labels: list[int], class_names: list[Any], table: Path) -> CarPhotos:
    if odd := [label + 1 for label in labels if not 0 <= label < len(class_names)]:
        raise GenclsError(f"{table}: expected classes 1 to {len(class_names)}, got {odd[0]}")
    return CarPhotos(paths, labels, tuple(map(str, class_names)))


def _content(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return f"{', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"
