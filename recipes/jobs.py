"""The studies of a recipe: built when their turn comes, predicted, computed, resumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gencls.eval import Study, StudyCell, predict_cost
from gencls.eval.cost import duration

__all__ = ["Job", "compute", "predict"]


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
        print(f"  {job.folder:24} {len(cells):4} cells {duration(sum(costs[job.folder].values())):>8}", flush=True)
    total = sum(sum(cells.values()) for cells in costs.values())
    print(f"predicted: {duration(total)} at most for {sum(map(len, costs.values()))} cells", flush=True)
    return costs


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
