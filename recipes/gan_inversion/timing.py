"""What it saves that hopeless classes leave early, and what it costs in accuracy."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from gencls.core import GenclsError, key_of
from gencls.defenses import AnalysisBySynthesis
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.jobs import InversionJob
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.selection import attacked
from recipes.gan_inversion.settings import REGULAR
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job, Measurement

__all__ = ["eliminated", "elimination_jobs", "timed", "timing"]

_ROUNDS = 3


def eliminated(run: Run) -> list[Inversion]:
    """The settings on which early elimination is tried.

    They are the regular methods with the largest lambda and the last of the chosen main distances, if one was chosen, and the
    attacked setting once it is known.
    """
    weight = max(run.budget.weights)
    found = [
        Inversion(method=method, weight=weight, distance=distance, steps=run.budget.steps, fast=True)
        for distance in run.main[-1:]
        for method in run.inverted
        if method in REGULAR
    ]
    with suppress(GenclsError):  # it is not chosen yet
        found.append(replace(attacked(run), fast=True))
    return list(dict.fromkeys(found))


def elimination_jobs(run: Run) -> Iterator[Job]:
    """Yield the inversions with early elimination, each followed by its timing."""
    for inversion in eliminated(run):
        yield InversionJob(run, inversion, len(run.rows))
        seconds = 2 * _ROUNDS * run.budget.timed * run.seconds(inversion) * inversion.steps
        yield Measurement.of(
            f"seconds {inversion.slug}",
            timing(run, inversion),
            lambda seconds=seconds: seconds,  # type: ignore[misc]
            lambda found: f"{found['whole'] / found['fast']:.1f} times as fast",
        )


def timing(run: Run, inversion: Inversion) -> Kept:
    """Time a setting with early elimination and without it, see :func:`timed`."""

    def classifiers() -> tuple[AnalysisBySynthesis, AnalysisBySynthesis]:
        return run.classifier(replace(inversion, fast=False)), run.classifier(inversion)

    def key() -> str:
        return key_of((*classifiers(), images, together, timed), "timing").whole

    images, together = run.images(run.budget.timed), run.budget.together
    return Kept(run.out / "timing" / f"{inversion.slug}.json", key, lambda: timed(*classifiers(), images, together))


def timed(whole: AnalysisBySynthesis, fast: AnalysisBySynthesis, images: Tensor, together: int) -> Mapping[str, float]:
    """Time two classifiers on the same images (N, C, H, W) in turn, ``together`` in one batch.

    Returns:
        ``whole`` and ``fast``, seconds per image: the least of three timings of each.
    """
    seconds: dict[str, list[float]] = {"whole": [], "fast": []}
    for _ in range(_ROUNDS):
        for name, classifier in (("whole", whole), ("fast", fast)):
            began = time.perf_counter()
            with torch.no_grad():
                for batch in images.split(together):
                    classifier(batch).cpu()
            seconds[name].append((time.perf_counter() - began) / len(images))
    return {name: min(values) for name, values in seconds.items()}
