"""The best setting: chosen on images that no table shows, and then judged on the images of the tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from gencls import zoo
from gencls.core import GenclsError
from gencls.eval.report.formats import MISSING
from gencls.eval.report.paper.page import PaperTable, Row
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.jobs import InversionJob
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES
from recipes.gan_inversion.words import accuracy, cells
from recipes.harness.jobs import Job

__all__ = [
    "FOLDER",
    "attacked",
    "best",
    "candidates",
    "described",
    "finalists",
    "right_of",
    "selection_jobs",
    "selection_table",
    "validation",
]

FOLDER = "selection"
"""The folder of the inversions that choose."""


def candidates(run: Run) -> list[Inversion]:
    """The settings to choose from: all combinations of the budget's, those under the robust distance first.

    They do not depend on the methods and distances that the user chose: calls that share a folder choose the same setting.
    """
    budget = run.budget
    return [
        Inversion(method=method, weight=weight, distance=distance, steps=steps)
        for distance in reversed(run.profile.main)
        for method in budget.tried_methods
        for weight in budget.tried_weights
        for steps in budget.tried_steps
    ]


def validation(run: Run) -> zoo.ImageData:
    """The images that choose: the last of the split, of which the tables have the first.

    Raises:
        GenclsError: if the split has too few images for both.
    """
    profile, count = run.profile, run.budget.selected
    total = zoo.data.count_images(profile.data, profile.split, root=run.root)
    if len(run.data) + count > total:
        raise GenclsError(
            f"{profile.data}, {profile.split}: expected at least {len(run.data) + count:,} images, {len(run.data):,} for the "
            f"tables and {count:,} others to choose the best setting on, got {total:,}; take fewer with --n, or choose --parts"
        )
    return _last(profile.data, profile.split, count, total, run.root, run.seed, profile.size)


@lru_cache(maxsize=1)
def _last(name: str, split: str, count: int, total: int, root: Path | None, seed: int, size: int | None) -> zoo.ImageData:
    every = zoo.load_data(name, split, root=root, limit=total, seed=seed, size=size)
    rows = slice(total - count, total)
    return replace(every, images=every.images[rows].clone(), labels=every.labels[rows], indices=every.indices[rows])


def selection_jobs(run: Run) -> Iterator[Job]:
    """Yield the inversions of all candidates, of few steps first, then those of the finalists on the images of the tables."""
    data = validation(run)
    for candidate in sorted(candidates(run), key=lambda candidate: candidate.steps):
        yield InversionJob(run, candidate, len(data), FOLDER, data)
    yield from (_Final(run, name, choose) for name, choose in _FINALS.items())


@dataclass(frozen=True)
class _Final(Job):
    """The inversion of a chosen setting on the images of the tables; known once all candidates are.

    Attributes:
        run: the run.
        name: what was chosen.
        choose: chooses the setting.
    """

    run: Run
    name: str
    choose: Callable[[Run], Inversion]
    unit = "part"
    foretold = False

    def left(self) -> Mapping[str, float]:
        return self._job().left()

    def compute(self, left: Mapping[str, float]) -> None:
        job = self._job()
        job.compute(job.left())

    def _job(self) -> InversionJob:
        return InversionJob(self.run, self.choose(self.run), len(self.run.rows))


def best(run: Run, distance: str = "", most_steps: int | None = None) -> Inversion:
    """The candidate with the most right validation images; of equal ones that with the fewest steps, then the first.

    Args:
        run: the run.
        distance: the candidates' distance; "" for any.
        most_steps: the most steps that the setting may take; None: any number.

    Returns:
        The setting. In a dry run before all candidates are finished, the one with the most steps: it costs most.

    Raises:
        GenclsError: while a candidate is not finished.
    """
    most = most_steps or max(run.budget.tried_steps)
    chosen = [one for one in candidates(run) if distance in ("", one.distance) and one.steps <= most]
    found = {candidate: _found(run, candidate) for candidate in chosen}
    right = {candidate: int(one.right.sum()) for candidate, one in found.items() if one is not None}
    if len(right) < len(chosen):
        if run.foreseen:
            return max(chosen, key=lambda candidate: candidate.steps)
        raise GenclsError(
            f"{run.out}: expected finished inversions of all {len(chosen)} candidates for the best setting, got {len(right)}; "
            "run the part 'selection' first"
        )
    return min(chosen, key=lambda candidate: (-right[candidate], candidate.steps))


def attacked(run: Run) -> Inversion:
    """The best setting among those of few steps: each look of an attack is an inversion.

    Raises:
        GenclsError: while a candidate of so few steps is not finished.
    """
    return best(run, most_steps=run.budget.attacked_steps)


_FINALS: Mapping[str, Callable[[Run], Inversion]] = {
    "best": best,
    "best under the robust distance": lambda run: best(run, run.profile.main[-1]),
    "attacked": attacked,
}


def finalists(run: Run) -> list[Inversion]:
    """The best setting, the best one under the robust distance, and the one that is attacked; some may be the same.

    Raises:
        GenclsError: while a candidate is not finished.
    """
    return list(dict.fromkeys(choose(run) for choose in _FINALS.values()))


def described(inversion: Inversion) -> str:
    """Say a setting in full."""
    return f"{inversion.head}, {inversion.steps} steps, {DISTANCES[inversion.distance]}"


def selection_table(run: Run) -> PaperTable | None:
    """Make the table of the choice: all candidates on the validation images, the finalists on those of the tables too."""
    found = {candidate: one for candidate in candidates(run) if (one := _found(run, candidate)) is not None}
    if not found:
        return None
    try:
        final = finalists(run)
    except GenclsError:  # not finished
        final = []
    tested = {candidate: run.found(candidate) for candidate in final}

    def row(candidate: Inversion, one: Found) -> Row:
        test = tested.get(candidate)
        shown = MISSING if test is None else accuracy(test)
        return Row(described(candidate), cells(accuracy(one), shown))

    notes = [
        f"Accuracy in % with 95 % Wilson intervals. Validation: the last {run.budget.selected} images of {run.data.name} "
        f"({run.data.split}), none of which is in another table. Only the chosen settings meet the images of the tables, the "
        f"first {len(run.rows)} of the split, so their accuracy there is not that of a winner among many.",
        *(_outcome(run, found, final) if final else (f"Not finished: {len(candidates(run)) - len(found)} candidates.",)),
    ]
    columns = ("", "validation", "images of the tables")
    return PaperTable(
        "selection", "Choice of the best setting", columns, tuple(row(*each) for each in found.items()), tuple(notes)
    )


def _outcome(run: Run, found: Mapping[Inversion, Found], final: list[Inversion]) -> Iterator[str]:
    """Say what was chosen and which candidates were equally good."""
    distance = run.profile.main[-1]
    robust, few = best(run, distance), attacked(run)
    yield (
        f"Chosen, with the most right validation images: {described(final[0])}. Best under {DISTANCES[distance]}: "
        f"{described(robust)}. Best of at most {run.budget.attacked_steps} steps, which is attacked: {described(few)}."
    )
    most = int(found[final[0]].right.sum())
    tied = [described(other) for other, one in found.items() if other != final[0] and int(one.right.sum()) == most]
    if tied:
        yield f"As many right: {'; '.join(tied)}. Of equal ones the fewest steps count, then the order of the table."


def right_of(run: Run, candidate: Inversion) -> int:
    """The number of validation images that a finished candidate has right.

    Raises:
        GenclsError: while it is not finished.
    """
    found = _found(run, candidate)
    if found is None:
        raise GenclsError(f"{described(candidate)}: expected a finished candidate, got none; run the part 'selection' first")
    return int(found.right.sum())


def _found(run: Run, candidate: Inversion) -> Found | None:
    return run.found(candidate, FOLDER, run.budget.selected)
