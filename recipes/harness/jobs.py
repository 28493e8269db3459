"""The studies of a recipe: built when their turn comes, predicted, computed, resumed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from gencls.core import Defense
from gencls.eval import Attack, Protocol, Study, StudyCell, predict_cost
from gencls.eval.study.cost import counted, duration
from gencls.zoo.data import ImageData

__all__ = ["Job", "compute", "predict", "seconds_of"]


@dataclass(frozen=True)
class Job:
    """One study of an experiment, built when its turn comes: the banks of starts of all defenses at once would fill the memory.

    Attributes:
        folder: within that of the run; the first part names the experiment.
        build: the study in this folder.
        then: what follows once all of it is computed.
    """

    folder: str
    build: Callable[[str], Study]
    then: Callable[[Study], None] | None = None


def predict(jobs: Sequence[Job]) -> dict[str, dict[str, float]]:
    """Print what is left to compute and what it will cost at most; folder -> cell -> seconds."""
    costs = {}
    for job in jobs:
        study = job.build(job.folder)
        cells = study.missing()
        costs[job.folder] = dict(zip((cell.key for cell in cells), predict_cost(study, cells), strict=True))
        print(f"  {job.folder:24} {counted(len(cells), 'cell'):>10} {duration(sum(costs[job.folder].values())):>8}", flush=True)
    total = sum(sum(cells.values()) for cells in costs.values())
    print(f"predicted: {duration(total)} at most for {counted(sum(map(len, costs.values())), 'cell')}", flush=True)
    return costs


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


def compute(jobs: Sequence[Job], costs: Mapping[str, Mapping[str, float]]) -> None:
    """Compute what is missing of every study."""
    for job in jobs:
        if not costs[job.folder] and not job.then:
            continue
        study = job.build(job.folder)
        study.run(progress=_told(job.folder, costs[job.folder]))
        if job.then and not study.missing():
            job.then(study)


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
