"""Inversions of images, each made once: losses, distances and codes of every class, from which all tables are made.

The folder of an inversion holds one part per batch of images: a safetensors file with the results, and a mark in JSON with the
key of all that they depend on, written last. A killed run leaves parts without a mark, and the same command makes them again.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gencls.core import GenclsError, ImageDistance, Latents, key_of
from gencls.core.files import atomically, write_sealed
from gencls.core.images import sample_hashes
from gencls.defenses import AnalysisBySynthesis
from gencls.perceptual import SquaredL2
from recipes.gan_inversion.settings import METHODS
from recipes.harness.folders import read_measured

__all__ = [
    "Found",
    "Inversion",
    "decode",
    "invert",
    "is_made",
    "key_of_part",
    "key_of_settings",
    "read",
    "seconds_of_step",
    "write",
]

_SHOWN = 8
"""Images, each with all classes, in one pass of the measurements."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """The settings of one inversion.

    Attributes:
        method: key of :data:`~recipes.gan_inversion.settings.METHODS`.
        weight: lambda, the factor of the regulariser.
        distance: key of :data:`~recipes.gan_inversion.settings.DISTANCES`.
        steps: optimisation steps.
        percept_weight: lambda_percept.
        again: number of the run: each draws other random starts.
        fast: whether hopeless classes leave early.
    """

    method: str
    weight: float
    distance: str
    steps: int
    percept_weight: float = 1.0
    again: int = 0
    fast: bool = False

    @property
    def slug(self) -> str:
        """Name of the inversion's folder."""
        parts = [self.method.replace("+", "-plus"), self.distance, f"{self.weight:g}", str(self.steps)]
        parts += [f"percept-{self.percept_weight:g}"] * (self.percept_weight != 1) + [f"again-{self.again}"] * bool(self.again)
        parts += ["fast"] * self.fast
        return "_".join(parts)

    @property
    def head(self) -> str:
        """Method and lambda, as tables name a row."""
        return f"{METHODS[self.method]}, λ = {self.weight:g}"


@dataclass(frozen=True)
class Found:
    """The results of an inversion of N images for K classes, in the order of the images.

    Attributes:
        folder: folder of the inversion.
        parts: first images of the parts.
        seconds: seconds that the inversion of all of them took.
    """

    folder: Path
    parts: tuple[int, ...]
    seconds: float

    @cached_property
    def labels(self) -> Tensor:
        """True classes, (N,)."""
        return self._read("labels")

    @cached_property
    def losses(self) -> Tensor:
        """l_k(x) of Algorithm 2, (N, K)."""
        return self._read("losses")

    @cached_property
    def pixel(self) -> Tensor:
        """Squared L2 distances of image and reconstruction in [0, 1] units, (N, K)."""
        return self._read("pixel")

    @cached_property
    def percept(self) -> Tensor:
        """Perceptual distances of image and reconstruction, without lambda_percept, (N, K)."""
        return self._read("percept")

    def codes(self, rows: Sequence[int] | slice = slice(None)) -> Latents:
        """Optimal latents of some images, (n, K, d) per level."""
        with safe_open(self._path(0), "pt") as file:
            levels = sum(name.startswith("code") for name in file.keys())  # noqa: SIM118 - not a mapping
        return tuple(self._read(f"code{level}")[rows] for level in range(levels))

    @property
    def right(self) -> Tensor:
        """Whether the class of least loss is the true one, bool (N,)."""
        return self.losses.argmin(dim=1) == self.labels

    def in_domain(self, values: Tensor) -> Tensor:
        """Values (N, K, ...) of the true class, (N, ...)."""
        return values[torch.arange(len(values)), self.labels]

    def out_of_domain(self, values: Tensor) -> Tensor:
        """Mean of values (N, K) over the other classes, (N,)."""
        return (values.sum(1) - self.in_domain(values)) / (values.shape[1] - 1)

    def _path(self, part: int) -> Path:
        return _path(self.folder, self.parts[part])

    def _read(self, name: str) -> Tensor:
        found = []
        for number in range(len(self.parts)):
            with safe_open(self._path(number), "pt") as file:
                found.append(file.get_tensor(name))
        return torch.cat(found)


def read(folder: Path, count: int, networks: str) -> Found | None:
    """Read an inversion of the first images; None until these networks have inverted all of them.

    Args:
        folder: folder of the inversion.
        count: number of images that it should have.
        networks: the key of generator, encoder and distance; parts of other networks do not count.

    Raises:
        GenclsError: if a mark or a part has changed since it was written.
    """
    parts, known, seconds = list[int](), 0, 0.0
    while known < count and (mark := _mark(folder, known)).is_file():
        said, path = read_measured(mark), _path(folder, known)
        if said["count"] > count - known or said.get("networks") != networks or not path.is_file():
            break
        if said["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise GenclsError(f"{path}: expected the inversion as it was written, got other bytes; run its part again")
        parts.append(known)
        known, seconds = known + said["count"], seconds + said["seconds"]
    return Found(folder, tuple(parts), seconds) if known == count else None


def key_of_settings(defense: AnalysisBySynthesis, percept: ImageDistance | None, inversion: Inversion) -> str:
    """The key of an inversion without its images: of the defense, its weights and settings, and the code that inverts."""
    return key_of((defense, percept, sorted(asdict(inversion).items()), invert), inversion.slug).whole


def key_of_part(settings: str, images: Tensor, labels: Tensor) -> str:
    """The key of a part: of the settings, by their key, and the images."""
    return hashlib.sha256("".join([settings, *sample_hashes(images.cpu(), labels)]).encode()).hexdigest()


def is_made(folder: Path, first: int, key: Callable[[], str]) -> bool:
    """Whether a part is there, whole, and has this key."""
    mark, path = _mark(folder, first), _path(folder, first)
    if not mark.is_file() or not path.is_file():
        return False
    said = read_measured(mark)
    return bool(said["key"] == key() and said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest())


def write(folder: Path, first: int, key: str, networks: str, found: Mapping[str, Tensor], seconds: float) -> None:
    """Write a part, then its mark; ``networks`` is the key of generator, encoder and distance."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.contiguous().cpu() for name, tensor in found.items()})
    atomically(_path(folder, first), content)
    said = {"key": key, "networks": networks, "count": len(found["labels"]), "seconds": seconds}
    said["sha256"] = hashlib.sha256(content).hexdigest()
    write_sealed(_mark(folder, first), said)


def invert(
    defense: AnalysisBySynthesis, percept: ImageDistance | None, images: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], float]:
    """Invert images for all classes.

    Args:
        defense: the classifier by inversion.
        percept: the perceptual distance that is measured; None measures none, all distances are 0.
        images: (N, C, H, W) in [0, 1].
        labels: true classes, (N,).

    Returns:
        By name ``labels`` (N,), ``losses``, ``pixel`` and ``percept`` (N, K), ``code0``, ``code1``, ... (N, K, d) per level;
        and the seconds that the inversion took, without the measurements.

    Raises:
        GenclsError: if a loss is not finite.
    """
    began = time.perf_counter()
    with torch.enable_grad():
        q = defense.infer(images.detach().clone())
    with torch.no_grad():
        losses = -defense.log_joint(images, q)
    if not bool(losses.isfinite().all()):
        raise GenclsError(f"inversion: expected finite losses, got {int((~losses.isfinite()).sum())} others")
    seconds = time.perf_counter() - began
    codes = tuple(level.mean for level in q)
    pixel, perceived = [], []
    for first in range(0, len(images), _SHOWN):
        rows = slice(first, first + _SHOWN)
        made = decode(defense, tuple(level[rows] for level in codes))
        with torch.no_grad():
            pixel.append(SquaredL2().to_each(images[rows], made))
            perceived.append(torch.zeros_like(pixel[-1]) if percept is None else percept.to_each(images[rows], made))
    found = {"labels": labels, "losses": losses, "pixel": torch.cat(pixel), "percept": torch.cat(perceived)}
    return {**found, **{f"code{level}": code for level, code in enumerate(codes)}}, seconds


def seconds_of_step(classifier: AnalysisBySynthesis, images: Tensor) -> float:
    """Measure the seconds that one step takes for one image, after a warm-up."""

    def once() -> float:
        began = time.perf_counter()
        classifier(images).cpu()  # waits for a GPU
        return time.perf_counter() - began

    once()
    with torch.no_grad():
        return once() / (len(images) * classifier.steps)


@torch.no_grad()
def decode(defense: AnalysisBySynthesis, codes: Latents) -> Tensor:
    """Reconstructions (N, K, C, H, W) in [0, 1] of latents (N, K, d) per level."""
    return defense.generator.decode_all(codes)


def _path(folder: Path, first: int) -> Path:
    return folder / f"{first:06}.safetensors"


def _mark(folder: Path, first: int) -> Path:
    return folder / f"{first:06}.json"
