"""What a recipe computes: studies and measurements, built when their turn comes, predicted, computed, resumed."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Self

from gencls.core import Defense
from gencls.eval import Attack, Protocol, Study, StudyCell, predict_cost
from gencls.eval.study.cost import counted, duration
from gencls.zoo.data import ImageData
from recipes.harness.folders import Kept

__all__ = ["Job", "Measurement", "StudyJob", "compute", "predict", "seconds_of"]


class Job(ABC):
    """A piece of work that knows what of it is done.

    Attributes:
        name: in what is printed.
        unit: what it consists of.
    """

    name: str
    unit: str

    @abstractmethod
    def left(self) -> Mapping[str, float]:
        """What is left of it -> seconds at most."""

    @abstractmethod
    def compute(self, left: Mapping[str, float]) -> None:
        """Compute what is missing.

        Args:
            left: what :meth:`left` has said.
        """


@dataclass(frozen=True)
class StudyJob(Job):
    """One study, built when its turn comes: the banks of starts of all defenses at once would fill the memory.

    Attributes:
        name: of its folder, within that of the run; the first part names the experiment.
        build: the study.
        then: what follows once all of it is computed.
    """

    name: str
    build: Callable[[], Study]
    then: Callable[[Study], None] | None = None
    unit = "cell"

    def left(self) -> Mapping[str, float]:
        """Its missing cells."""
        study = self.build()
        cells = study.missing()
        return dict(zip((cell.key for cell in cells), predict_cost(study, cells), strict=True))

    def compute(self, left: Mapping[str, float]) -> None:
        """Run what is missing of the study."""
        if not left and not self.then:
            return
        study = self.build()
        study.run(progress=_told(self.name, left))
        if self.then and not study.missing():
            self.then(study)


@dataclass(frozen=True)
class Measurement(Job):
    """Something that is measured once, or read from its file.

    Attributes:
        name: of what is measured.
        seconds: that are left at most.
        measure: does so; what it returns is printed if it is text.
    """

    name: str
    seconds: Callable[[], float]
    measure: Callable[[], object]
    unit = "measurement"

    @classmethod
    def of(cls, name: str, kept: Kept, seconds: Callable[[], float], say: Callable[[Mapping[str, Any]], object]) -> Self:
        """Of what a file keeps: nothing is left once it is there."""
        return cls(name, lambda: 0.0 if kept.known else seconds(), lambda: say(kept.get()))

    def left(self) -> Mapping[str, float]:
        """Itself, or nothing."""
        seconds = self.seconds()
        return {self.name: seconds} if seconds else {}

    def compute(self, left: Mapping[str, float]) -> None:
        """Measure it, or read it, and print what came out."""
        if isinstance(said := self.measure(), str):
            print(f"  {self.name}: {said}", flush=True)


def predict(jobs: Sequence[Job]) -> list[Mapping[str, float]]:
    """Print what is left to compute and what it will cost at most; for each job what is left -> seconds."""
    costs = []
    for job in jobs:
        left = job.left()
        costs.append(left)
        print(f"  {job.name:24} {counted(len(left), job.unit):>14} {duration(sum(left.values())):>8}", flush=True)
    units = {job.unit: 0 for job in jobs} or {"cell": 0}
    for job, left in zip(jobs, costs, strict=True):
        units[job.unit] += len(left)
    what = " and ".join(counted(number, unit) for unit, number in units.items())
    print(f"predicted: {duration(sum(sum(left.values()) for left in costs))} at most for {what}", flush=True)
    return costs


def compute(jobs: Sequence[Job]) -> None:
    """Compute what is missing, after a prediction of the studies; measurements are made without."""
    studies = [job for job in jobs if isinstance(job, StudyJob)]
    costs = dict(zip(map(id, studies), predict(studies), strict=True)) if studies else {}
    for job in jobs:
        job.compute(costs.get(id(job), {}))


def seconds_of(defense: Defense, attacks: Mapping[str, Attack], data: ImageData, **settings: Any) -> float:
    """What evaluating a defense would cost at most, with what is found out about it before.

    Args:
        defense: in eval mode.
        attacks: by name.
        data: what is attacked.
        settings: ``modes`` of :class:`~gencls.eval.Study`; the others are those of its protocol.
    """
    modes, began = settings.pop("modes", None), time.perf_counter()
    with TemporaryDirectory() as folder:
        study = Study(
            folder,
            defenses={"defense": defense},
            attacks=attacks,
            images=data.images,
            labels=data.labels,
            protocol=Protocol(**settings),
            modes=modes,
        )
        return time.perf_counter() - began + sum(predict_cost(study, study.cells()))


def _told(folder: str, costs: Mapping[str, float]) -> Callable[[Sequence[StudyCell]], Any]:
    """A line for each finished cell."""

    @contextmanager
    def told(cells: Sequence[StudyCell]) -> Iterator[Callable[[StudyCell], None]]:
        left = sum(costs.get(cell.key, 0.0) for cell in cells)

        def finished(cell: StudyCell) -> None:
            nonlocal left
            left -= costs.get(cell.key, 0.0)
            print(f"  {folder}: finished {cell.attack} ({cell.mode}), {duration(left)} left by prediction", flush=True)

        yield finished

    return told
