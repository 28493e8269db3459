"""Jobs of a recipe: studies and measurements. Each is built when its turn comes, predicted, computed and resumed."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Self

from gencls.core import Defense
from gencls.core.words import counted
from gencls.eval import Attack, Protocol, Study, StudyCell, predict_cost
from gencls.eval.study.cost import duration
from gencls.zoo.data import ImageData
from recipes.harness.folders import Kept

__all__ = ["Job", "Measurement", "StudyJob", "compute", "predict", "seconds_of"]


class Job(ABC):
    """A piece of work that knows which part of it is done.

    Attributes:
        name: name for the printed lines.
        unit: name of the pieces that the work consists of.
        foretold: whether its cost is predicted, and printed, before it is computed.
    """

    name: str
    unit: str
    foretold: bool

    @abstractmethod
    def left(self) -> Mapping[str, float]:
        """Each missing piece -> the most seconds that it takes."""

    @abstractmethod
    def compute(self, left: Mapping[str, float]) -> None:
        """Compute the missing pieces.

        Args:
            left: the result of :meth:`left`; empty if the job is not foretold.
        """


@dataclass(frozen=True)
class StudyJob(Job):
    """One study. It is built when its turn comes, because the banks of starts of all defenses at once would fill the memory.

    Attributes:
        name: the study's folder within the folder of the run; its first part names the experiment.
        build: makes the study.
        then: runs once the whole study is computed.
    """

    name: str
    build: Callable[[], Study]
    then: Callable[[Study], None] | None = None
    unit = "cell"
    foretold = True

    def left(self) -> Mapping[str, float]:
        """The study's missing cells."""
        study = self.build()
        cells = study.missing()
        return dict(zip((cell.key for cell in cells), predict_cost(study, cells), strict=True))

    def compute(self, left: Mapping[str, float]) -> None:
        """Run the missing cells of the study."""
        if not left and not self.then:
            return
        study = self.build()
        study.run(progress=_told(self.name, left))
        if self.then and not study.missing():
            self.then(study)


@dataclass(frozen=True)
class Measurement(Job):
    """A measurement that is made once, or read from its file.

    Attributes:
        name: name of the measurement.
        seconds: gives the most seconds that are left.
        measure: makes the measurement; a text that it returns is printed.
    """

    name: str
    seconds: Callable[[], float]
    measure: Callable[[], object]
    unit = "measurement"
    foretold = False

    @classmethod
    def of(cls, name: str, kept: Kept, seconds: Callable[[], float], say: Callable[[Mapping[str, Any]], object]) -> Self:
        """Wrap a measurement that a file keeps: nothing is left once the file has it, of the same subject by the same code."""
        return cls(name, lambda: 0.0 if kept.current else seconds(), lambda: say(kept.get()))

    def left(self) -> Mapping[str, float]:
        """The measurement itself, or nothing."""
        seconds = self.seconds()
        return {self.name: seconds} if seconds else {}

    def compute(self, left: Mapping[str, float]) -> None:
        """Make the measurement, or read it, and print the result."""
        if isinstance(said := self.measure(), str):
            print(f"  {self.name}: {said}", flush=True)


def predict(jobs: Sequence[Job]) -> list[Mapping[str, float]]:
    """Print what is left to compute and its highest cost; return missing piece -> seconds for each job."""
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
    """Compute what is missing. The jobs that are foretold are predicted first, all together."""
    foretold = [job for job in jobs if job.foretold]
    costs = iter(predict(foretold) if foretold else ())
    for job in jobs:
        job.compute(next(costs) if job.foretold else {})


def seconds_of(defense: Defense, attacks: Mapping[str, Attack], data: ImageData, **settings: Any) -> float:
    """Predict the highest cost of evaluating a defense, the examination before the attacks included.

    Args:
        defense: the defense, in eval mode.
        attacks: the attacks by name.
        data: the images to attack.
        settings: ``modes`` of :class:`~gencls.eval.Study`, and the arguments of its protocol.
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
    """Print a line for each finished cell."""

    @contextmanager
    def told(cells: Sequence[StudyCell]) -> Iterator[Callable[[StudyCell], None]]:
        left = sum(costs.get(cell.key, 0.0) for cell in cells)

        def finished(cell: StudyCell) -> None:
            nonlocal left
            left -= costs.get(cell.key, 0.0)
            print(f"  {folder}: finished {cell.attack} ({cell.mode}), {duration(left)} left by prediction", flush=True)

        yield finished

    return told
