"""Section 4 and the supplement as parts. Each part may need the parts before it, and nothing is computed twice."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch

from gencls.core import Defense, GenclsError, forward_draws
from gencls.eval import (
    PGD,
    Attack,
    AutoAttack,
    DeepFool,
    RestartedCarliniWagner,
    ThreatModel,
    closest_distances,
    diagnose,
    success_rate_curve,
)
from recipes.harness.diagnoses import diagnosis, examinations
from recipes.harness.folders import Kept
from recipes.harness.jobs import Job, Measurement
from recipes.harness.records import records_of, slug, unfinished
from recipes.mlvgm import analyses
from recipes.mlvgm.runs import ALPHAS, PREPROCESSING, STANDALONE, Run


def attacks(run: Run, defense: Defense) -> Mapping[str, Attack]:
    """DeepFool, C&W and AutoAttack with the budget's steps (section 4, tables 2 and 3 of the supplement)."""
    profile, budget, minimal = run.profile, run.budget, ThreatModel("l2")
    version: Literal["rand", "standard"] = "rand" if defense.stochastic else "standard"
    return {
        "deepfool": DeepFool(
            minimal,
            steps=budget.deepfool or profile.deepfool,
            overshoot=profile.overshoot,
            candidates=min(profile.candidates, run.data.num_classes),
        ),
        "cw": RestartedCarliniWagner(
            minimal,
            restarts=budget.cw_restarts,
            steps=budget.cw_steps,
            learning_rate=profile.rate * budget.cw_rate,
            confidence=profile.confidence,
            regularisation=profile.constant,
            start_norm=profile.start_norm,
            window=profile.window,
        ),
        **{
            f"autoattack-{size:g}": AutoAttack(
                ThreatModel("l2", size), version, steps=budget.autoattack, queries=budget.queries
            )
            for size in budget.attacked(profile)
        },
    }


def smoothed(run: Run) -> Mapping[str, Attack]:
    """PGD along smoothed gradients at the sizes of AutoAttack; the paper does not have it."""
    budget, sizes = run.budget, run.budget.attacked(run.profile)
    return {
        f"smoothed-{size:g}": PGD(ThreatModel("l2", size), steps=budget.smoothed, smoothing=budget.smoothing) for size in sizes
    }


def folder_of(name: str, *, smoothed: bool = False) -> str:
    """Name the folder of a defense's study within the run: under the paper's attacks, or along smoothed gradients."""
    return f"{'smoothed' if smoothed else 'attacks'}/{slug(name)}"


def records(run: Run, name: str, *, smoothed: bool = False) -> pd.DataFrame:
    """Read the records of a defense under the paper's attacks, or along smoothed gradients; empty without any."""
    return records_of(run.out, folder_of(name, smoothed=smoothed))


def configurations(run: Run, alphas: str) -> tuple[str, ...]:
    """Name these alphas with each preprocessing."""
    return tuple(f"{alphas}{after}" for after in PREPROCESSING.values())


def best(run: Run, names: Sequence[str]) -> str | None:
    """The configuration with the lowest success rate, averaged over sizes from 0 to the largest, all attacks together.

    It must keep the profile's least clean accuracy, if any configuration does. The result is None while one of them is not
    finished. The paper does not say how it chooses; we choose on the attacked images.
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
    return not least or analyses.clean_accuracy(run, name).get()["mean"] >= least


def preprocessed(run: Run) -> tuple[str, ...]:
    """The names in figures 11 to 13, once known: the best alphas with each preprocessing, and each preprocessing alone."""
    alphas = best(run, ALPHAS) or _stand_in(run)
    return (*configurations(run, alphas), *STANDALONE) if alphas else ()


def chosen(run: Run) -> str | None:
    """The best alphas with their best preprocessing; None while something is not finished."""
    alphas = best(run, ALPHAS)
    return (best(run, configurations(run, alphas)) if alphas else None) or _stand_in(run)


def _stand_in(run: Run) -> str | None:
    """Stand in for what an earlier part will find, for a prediction: all alphas cost the same."""
    return "linear" if run.foreseen else None


def compared(run: Run) -> tuple[str, ...]:
    """The names in figures 6 to 8: the baselines and, once it is known, our best configuration."""
    ours = chosen(run)
    return (*run.baselines, *([ours] if ours else ()))


def every(run: Run) -> tuple[str, ...]:
    """All defenses that are known by now."""
    return tuple(dict.fromkeys((*ALPHAS, *preprocessed(run), *compared(run))))


def learn(run: Run) -> Iterator[Job]:
    """Search for alphas."""
    budget = run.budget

    def seconds() -> float:
        known = run.published_alphas or (run.out / "learned.json").is_file()
        return 0.0 if known else budget.search * budget.learned_on * budget.samples * _pass(run, "linear")

    search = (lambda: "published") if run.published_alphas else partial(analyses.learn, run)
    yield Measurement("learned alphas", seconds, search)


def random(run: Run) -> Iterator[Job]:
    """Measure random alphas, for figures 3 to 5 (a)."""
    budget = run.budget

    def seconds() -> float:
        found = analyses.random_alphas(run)
        left = budget.random - (0 if found is None else len(found))
        return left * budget.random_images * budget.random_samples * _pass(run, "linear") if left else 0.0

    yield Measurement("random alphas", seconds, partial(analyses.measure_random_alphas, run))


def clean(run: Run) -> Iterator[Job]:
    """Measure clean accuracies."""

    def seconds(name: str) -> float:
        return run.budget.clean * (run.budget.eot if run.defense(name).stochastic else 1) * _pass(run, name)

    for name in every(run):
        kept = analyses.clean_accuracy(run, name)
        yield Measurement.of(name, kept, partial(seconds, name), lambda found: f"{100 * found['mean']:.1f} %")


@torch.no_grad()
def _pass(run: Run, name: str) -> float:
    """Seconds of a forward pass of one image."""
    defense, images = run.defense(name), run.images(4)
    forward_draws(defense, images, 1)  # warm-up
    began = time.perf_counter()
    forward_draws(defense, images, 1)
    return (time.perf_counter() - began) / len(images)


def attacked(run: Run, names: Sequence[str], *, along: bool = False) -> Iterator[Job]:
    """Yield the studies of some defenses: under the paper's attacks, or along smoothed gradients."""
    for name in names:
        chosen = smoothed(run) if along else partial(attacks, run)
        yield run.job(folder_of(name, smoothed=along), name, partial(run.defense, name), chosen, run.budget.count)


def preprocessing(run: Run) -> Iterator[Job]:
    """Yield the studies of figures 11 to 13.

    Raises:
        GenclsError: while the best alphas are not known.
    """
    names = preprocessed(run)
    if not names:
        raise GenclsError(
            f"{run.out}: expected finished attacks on all alphas before preprocessing; run the part 'alphas' first"
        )
    return attacked(run, names)


def diagnoses(run: Run, names: Iterable[str]) -> dict[str, Kept]:
    """The doctor's findings on some defenses."""
    return {
        name: diagnosis(
            run,
            name,
            run.defense(name),
            run.key(name, diagnose),
            count=max(run.budget.count, 20),
            norm="l2",
            epsilon=run.profile.sizes[len(run.profile.sizes) // 2],
            transfer_from=None if name == "no defense" else run.classifier,
            budget=run.budget.doctor,
        )
        for name in names
    }


PARTS: Mapping[str, Callable[[Run], Iterable[Job]]] = {
    "learn": learn,
    "random": random,
    "alphas": lambda run: attacked(run, ALPHAS),
    "preprocessing": preprocessing,
    "comparison": lambda run: attacked(run, run.baselines),
    "smoothed": lambda run: attacked(run, every(run), along=True),
    "clean": clean,
    "doctor": lambda run: examinations(diagnoses(run, every(run)), run.budget.doctor),
}
"""The parts in their order. "alphas" needs learned ones, "preprocessing" the best; from "smoothed" on, all that is known."""
