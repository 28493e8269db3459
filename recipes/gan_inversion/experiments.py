"""Chapter 3's experiments: which images are inverted how, for every table and figure."""

from collections.abc import Iterator

from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.jobs import InversionJob
from recipes.gan_inversion.runs import Run
from recipes.harness.jobs import Job

__all__ = [
    "comparison",
    "imagenette",
    "inversions_of",
    "large_steps",
    "main_settings",
    "shown",
    "steps",
]


def main_settings(run: Run, distance: str) -> list[Inversion]:
    """The settings of Table 3.1 (the standard distance), or of Table 3.6 (the robust one): all methods and lambdas."""
    return [
        Inversion(method=method, weight=weight, distance=distance, steps=run.budget.steps)
        for method in run.inverted
        for weight in run.budget.weights
    ]


def steps(run: Run) -> list[Inversion]:
    """Table 3.2: Enc-D with lambda 0.1 under the robust distance, with more and more steps."""
    weight, distance = min(run.budget.weights), run.profile.main[-1]
    return [Inversion(method="enc-d", weight=weight, distance=distance, steps=count) for count in run.budget.sweep]


def comparison(run: Run) -> list[Inversion]:
    """Table 3.5: Enc-D under every distance, with lambda and lambda_percept 10."""
    count = run.budget.compared
    return [
        Inversion(method="enc-d", weight=10.0, distance=distance, steps=count, percept_weight=10.0) for distance in run.compared
    ]


def imagenette(run: Run) -> list[Inversion]:
    """Table 3.7: its four rows. The thesis does not say lambda; we take 1."""
    rows = (("direct", "lpips"), ("enc", "lpips"), ("enc", "plain"), ("enc-d", "lpips"))
    return [
        Inversion(method=method, weight=1.0, distance=distance, steps=run.budget.steps)
        for method, distance in rows
        if method in run.inverted and distance in run.compared
    ]


def large_steps(run: Run) -> list[Inversion]:
    """Table 3.8: Enc under LPIPS with more and more steps; lambda as in Table 3.7."""
    return [Inversion(method="enc", weight=1.0, distance=run.profile.main[0], steps=count) for count in run.budget.large_sweep]


def shown(run: Run) -> list[Inversion]:
    """Figure 3.6: Enc-D+ with lambda 0.1 and few or many steps, of a few images; on Imagenette Enc-D, of Figure 3.11."""
    if not run.profile.own_examples:
        return []
    weight, distance = min(run.budget.weights), run.profile.main[0]
    return [Inversion(method="enc-d+", weight=weight, distance=distance, steps=count) for count in run.budget.shown_steps]


def inversions_of(run: Run, chosen: list[Inversion], parent: str = "inversions", count: int = 0) -> Iterator[Job]:
    """Yield one job per inversion, of the first ``count`` images; 0 takes N."""
    for inversion in chosen:
        yield InversionJob(run, inversion, min(count or len(run.rows), len(run.data)), parent)
