"""The parts of the recipe, by the numbers of the thesis's tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from recipes.gan_inversion import experiments, interpolation, robustness, selection, timing
from recipes.gan_inversion.domains import domain_jobs
from recipes.gan_inversion.experiments import inversions_of
from recipes.gan_inversion.runs import Run
from recipes.harness.jobs import Job

__all__ = ["PARTS", "usual"]


def main(run: Run) -> Iterator[Job]:
    """Tables 3.1 and 3.6, Figures 3.5, 3.7 and 3.8; the other parts build on them."""
    for distance in run.main:
        yield from inversions_of(run, experiments.main_settings(run, distance))


def domains(run: Run) -> Iterator[Job]:
    """Table 3.3, from the inversions of Table 3.1."""
    first = run.profile.main[0]  # the table shows no other distance
    return domain_jobs(run, experiments.main_settings(run, first)) if first in run.main else iter(())


def lines(run: Run) -> Iterator[Job]:
    """Table 3.4, Figures 3.9 and 3.10: two runs of Direct, the first of which is in Table 3.1, and the lines between them."""
    for distance in run.main:
        yield from inversions_of(run, [*interpolation.endpoints(run, distance)])
    yield from interpolation.interpolation_jobs(run)


def examples(run: Run) -> Iterator[Job]:
    """Figure 3.6."""
    return inversions_of(run, experiments.shown(run), "examples", run.budget.shown)


PARTS: Mapping[str, Callable[[Run], Iterable[Job]]] = {
    "selection": selection.selection_jobs,
    "3.1": main,
    "3.2": lambda run: inversions_of(run, experiments.steps(run)),
    "3.3": domains,
    "3.4": lines,
    "3.5": lambda run: inversions_of(run, experiments.comparison(run)),
    "3.7": lambda run: inversions_of(run, experiments.imagenette(run)),
    "3.8": lambda run: inversions_of(run, experiments.large_steps(run)),
    "examples": examples,
    "elimination": timing.elimination_jobs,
    "attacks": robustness.attack_jobs,
    "doctor": robustness.doctor_jobs,
}
"""The parts in their order; "3.1" has Table 3.6 too.

"3.3" and "elimination" need "3.1"; "attacks" and "doctor" need "selection", and so do "elimination"'s rows of the best setting.
"""


def usual(run: Run) -> list[str]:
    """The parts that the profile has."""
    return [name for name in PARTS if name in run.profile.tables]
