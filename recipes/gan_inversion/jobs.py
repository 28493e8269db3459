"""The job of an inversion: batch by batch, each kept as soon as it is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gencls.defenses import AnalysisBySynthesis
from gencls.eval.study.cost import duration
from gencls.zoo import ImageData
from recipes.gan_inversion import inversions
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.runs import Run
from recipes.harness.jobs import Job

__all__ = ["InversionJob"]


@dataclass(frozen=True)
class InversionJob(Job):
    """An inversion of the first images.

    Attributes:
        run: the run.
        inversion: what is done.
        count: number of images.
        parent: parent of the inversion's folder, in the folder of the run.
        images: images to invert; None for those of the tables.
    """

    run: Run
    inversion: Inversion
    count: int
    parent: str = "inversions"
    images: ImageData | None = None
    unit = "part"
    foretold = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inversion's folder."""
        return self.inversion.slug

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.run.out / self.parent / self.inversion.slug

    def left(self) -> Mapping[str, float]:
        """The batches that are not inverted, or not whole, or were made of other images, by other weights or other code."""
        each = self.run.seconds(self.inversion) * self.inversion.steps if self._missing else 0.0
        return {str(first): len(rows) * each for first, rows in self._missing.items()}

    def compute(self, left: Mapping[str, float]) -> None:
        """Invert the missing batches."""
        data, remaining = self._data, sum(left.values())
        for first, rows in self._missing.items():
            images, labels = data.images[rows.start : rows.stop], data.labels[rows.start : rows.stop]
            device = self.run.device
            percept = self.run.percept(self.inversion.distance)
            found, seconds = inversions.invert(self._classifier, percept, images.to(device), labels.to(device))
            key, networks = inversions.key_of_part(self._key, images, labels), self.run.networks_of(self.inversion)
            inversions.write(self.folder, first, key, networks, found, seconds)
            remaining -= left.get(str(first), 0.0)
            done, right = min(rows.stop, self.count), int((found["losses"].argmin(1).cpu() == labels).sum())
            print(
                f"  {self.name}: {done} of {self.count}, {right} of {len(labels)} right, {duration(remaining)} left", flush=True
            )
        self.__dict__.pop("_classifier", None)  # with its bank of starts: those of all jobs at once would fill the memory

    @property
    def _data(self) -> ImageData:
        return self.run.data if self.images is None else self.images

    @cached_property
    def _classifier(self) -> AnalysisBySynthesis:
        return self.run.classifier(self.inversion)

    @cached_property
    def _key(self) -> str:
        return inversions.key_of_settings(self._classifier, self.run.percept(self.inversion.distance), self.inversion)

    @cached_property
    def _missing(self) -> Mapping[int, range]:
        data, size = self._data, self.run.budget.together
        found = {}
        for first in range(0, self.count, size):
            rows = range(first, min(first + size, self.count))
            part = data.images[rows.start : rows.stop], data.labels[rows.start : rows.stop]
            if not inversions.is_made(self.folder, first, lambda part=part: inversions.key_of_part(self._key, *part)):  # type: ignore[misc]
                found[first] = rows
        return found
