"""What the parts of the recipe would cost, before any of them is run."""

import time
from collections.abc import Sequence

import torch

from gencls.core import forward_draws
from gencls.core.files import write_sealed
from gencls.eval.study.cost import duration
from recipes.harness.jobs import predict
from recipes.mlvgm import analyses, experiments
from recipes.mlvgm.runs import ALPHAS, STANDALONE, Run

__all__ = ["predict_parts"]

_IMAGES = 4


def predict_parts(run: Run, parts: Sequence[str]) -> None:
    """Print what is left of some parts and how long it takes at most.

    What a part needs of an earlier one that has not been run is stood in for by other alphas: all cost the same.

    Args:
        run: whose folder may be written to, see :func:`gencls.eval.study.cost.shadow`.
        parts: of :data:`recipes.mlvgm.experiments.PARTS`.
    """
    unknown = run.learned is None
    if unknown:
        write_sealed(run.out / "learned.json", {"alphas": [0.5] * run.generator.num_levels, "key": "stand-in"})
    ours = experiments.chosen(run) or "linear"
    preprocessed = experiments.preprocessed(run) or (*experiments.configurations(run, "linear"), *STANDALONE)
    every = tuple(dict.fromkeys((*ALPHAS, *preprocessed, *run.baselines, ours)))
    total = 0.0
    for part in (part for part in experiments.PARTS if part in parts):
        print(f"{part}:", flush=True)
        if part in ("alphas", "preprocessing", "comparison", "smoothed"):
            names = {"alphas": ALPHAS, "preprocessing": preprocessed, "comparison": run.baselines}.get(part, every)
            costs = predict(list(experiments.jobs_of(run, names, smoothed=part == "smoothed")))
            total += sum(seconds for cells in costs.values() for seconds in cells.values())
            continue
        seconds = _seconds(run, part, every, searched=not unknown)
        print(f"  predicted: {duration(seconds)} at most", flush=True)
        total += seconds
    print(f"predicted: {duration(total)} at most for all parts", flush=True)


def _seconds(run: Run, part: str, every: Sequence[str], *, searched: bool) -> float:
    budget = run.budget
    if part == "learn":
        return 0.0 if searched else budget.search * budget.learned_on * budget.samples * _pass(run, "linear")
    if part == "random":
        found = analyses.random_alphas(run)
        left = budget.random - (0 if found is None else len(found))
        return left * budget.random_images * budget.random_samples * _pass(run, "linear")
    if part == "clean":
        missing = [name for name in every if analyses.known_clean_accuracy(run, name) is None]
        draws = {name: budget.eot if run.defense(name).stochastic else 1 for name in missing}
        return sum(budget.clean * number * _pass(run, name) for name, number in draws.items())
    return budget.doctor * sum(experiments.examined(run, name) is None for name in every)


@torch.no_grad()
def _pass(run: Run, name: str) -> float:
    """Seconds of a forward pass of one image."""
    defense, images = run.defense(name), run.data.images[:_IMAGES].to(run.device)
    forward_draws(defense, images, 1)  # warm-up
    began = time.perf_counter()
    forward_draws(defense, images, 1)
    return (time.perf_counter() - began) / len(images)
