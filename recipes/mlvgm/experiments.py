"""Section 4 and the supplement as stages, each of which may need those before it; nothing is computed twice."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gencls.core import GenclsError
from gencls.eval import Study, closest_distances, diagnose, success_rate_curve
from recipes.harness import diagnoses
from recipes.harness.folders import read_measured
from recipes.harness.jobs import Job, compute, predict
from recipes.harness.records import records_of, slug, unfinished
from recipes.mlvgm import analyses
from recipes.mlvgm.runs import ALPHAS, PREPROCESSING, STANDALONE, Run

__all__ = ["PARTS", "best", "chosen", "compared", "configurations", "jobs_of", "preprocessed", "records", "run_parts"]

PARTS = ("learn", "random", "alphas", "preprocessing", "comparison", "smoothed", "clean", "doctor")
"""In their order; "alphas" needs learned ones, "preprocessing" the best; those from "smoothed" on take all that is known."""


def folder_of(name: str, *, smoothed: bool = False) -> str:
    """The study of a defense, within the folder of the run: under the paper's attacks, or along smoothed gradients."""
    return f"{'smoothed' if smoothed else 'attacks'}/{slug(name)}"


def records(run: Run, name: str, *, smoothed: bool = False) -> pd.DataFrame:
    """What is recorded of a defense under the paper's attacks, or along smoothed gradients; empty while nothing is."""
    return records_of(run.out, folder_of(name, smoothed=smoothed))


def configurations(run: Run, alphas: str) -> tuple[str, ...]:
    """Alphas with each preprocessing."""
    return tuple(f"{alphas}{after}" for after in PREPROCESSING.values())


def best(run: Run, names: Sequence[str]) -> str | None:
    """The configuration with the lowest success rate, averaged over sizes from 0 to the largest, all attacks together.

    It must keep the profile's least clean accuracy, if any of them does. None while one of them is not finished. The paper does
    not say how it chooses; we do so on the attacked images.
    """
    scores = {}
    for name in names:
        rows = records(run, name)
        if not len(rows) or unfinished(run.out, folder_of(name)):
            return None
        curve = success_rate_curve(closest_distances(rows), np.linspace(0, run.profile.sizes[-1], 101).tolist(), resamples=1)
        scores[name] = float(curve.rate.mean())
    kept = [name for name in names if _keeps(run, name)]
    return min(kept or scores, key=scores.__getitem__)


def _keeps(run: Run, name: str) -> bool:
    least = run.profile.least_clean
    return not least or analyses.clean_accuracy(run, name).mean >= least


def preprocessed(run: Run) -> tuple[str, ...]:
    """The names of figures 11 to 13, as far as they are known: the best alphas with each preprocessing, and that alone."""
    alphas = best(run, ALPHAS)
    return (*configurations(run, alphas), *STANDALONE) if alphas else ()


def chosen(run: Run) -> str | None:
    """The best alphas with their best preprocessing; None while something is not finished."""
    alphas = best(run, ALPHAS)
    return best(run, configurations(run, alphas)) if alphas else None


def compared(run: Run) -> tuple[str, ...]:
    """The names of figures 6 to 8: the baselines and, once it is known, our best configuration."""
    ours = chosen(run)
    return (*run.baselines, *([ours] if ours else ()))


def every(run: Run) -> tuple[str, ...]:
    """All defenses that are known by now."""
    return tuple(dict.fromkeys((*ALPHAS, *preprocessed(run), *compared(run))))


def run_parts(run: Run, parts: Sequence[str]) -> None:
    """Compute what is missing of some parts, in their order.

    Raises:
        GenclsError: for a part that needs what is not computed yet.
    """
    for part in (part for part in PARTS if part in parts):
        print(f"{part}:", flush=True)
        if part == "learn" and run.published_alphas:
            print("  nothing: these are the published alphas", flush=True)
        elif part == "learn":
            analyses.learn(run)
        elif part == "random":
            analyses.measure_random_alphas(run)
        elif part == "clean":
            for name in every(run):
                print(f"  {name}: {100 * analyses.clean_accuracy(run, name).mean:.1f} %", flush=True)
        elif part == "doctor":
            for name in every(run) if run.budget.doctor else ():
                print(f"  {name}: {examine(run, name)['verdict']}", flush=True)
        else:
            known = {"alphas": ALPHAS, "preprocessing": preprocessed(run), "comparison": run.baselines}
            names = known[part] if part in known else every(run)
            if not names:
                raise GenclsError(
                    f"{run.out}: expected finished attacks on all alphas before {part}; run the part 'alphas' first"
                )
            jobs = list(jobs_of(run, names, smoothed=part == "smoothed"))
            compute(jobs, predict(jobs))


def jobs_of(run: Run, names: Sequence[str], *, smoothed: bool) -> Iterator[Job]:
    """The studies of some defenses: under the paper's attacks, or along smoothed gradients."""

    def study(folder: str, *, name: str) -> Study:
        return run.study(folder, name, smoothed=smoothed)

    for name in names:
        yield Job(folder_of(name, smoothed=smoothed), partial(study, name=name))


def examine(run: Run, name: str) -> dict[str, Any]:
    """What the doctor says of a defense: ``verdict`` and ``checks``; once, as the file's name knows weights and settings."""
    count = max(run.budget.count, 20)
    return diagnoses.examine(
        _doctor_path(run, name),
        name,
        run.defense(name),
        run.data.images[:count].to(run.device),
        run.data.labels[:count].to(run.device),
        epsilon=run.profile.sizes[len(run.profile.sizes) // 2],
        norm="l2",
        transfer_from=None if name == "no defense" else run.classifier,
        eot_samples=run.budget.eot,
        seed=run.seed,
        budget=run.budget.doctor,
    )


def examined(run: Run, name: str) -> dict[str, Any] | None:
    """The same, or None while the doctor has not been asked."""
    path = _doctor_path(run, name)
    return read_measured(path) if path.is_file() else None


def _doctor_path(run: Run, name: str) -> Path:
    return run.out / "doctor" / f"{slug(name)}-{run.key(name, diagnose)}.json"
