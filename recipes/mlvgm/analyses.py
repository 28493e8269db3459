"""The measurements on alphas in section 4 and supplement B: their search, random ones, and which codes carry the class."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gencls.core import Defense, GenclsError, MultiLatentModel, draws, forward_draws, key_of, keyed, stream_seed
from gencls.core.files import write_sealed
from gencls.defenses import AlphaSearch, learn_alphas
from recipes.harness.folders import Kept, read_measured
from recipes.harness.records import slug
from recipes.mlvgm.runs import Run

CLASS_ALPHA = 0.1
"""Alphas below this keep a "class code". Supplement B names those from 0 to 0.068; the next ones lie above 0.2."""

_ROWS = 256


def learn(run: Run, *, report: Callable[[AlphaSearch], object] = print) -> None:
    """Search for alphas (section 3), or go on with a search. The best ones go to ``learned.json``, once.

    The best alphas have the highest mean of the Gaussian process, which does not fall for a lucky measurement.
    """
    accuracy = run.accuracy
    if run.learned is not None and read_measured(run.out / "learned.json")["key"] == accuracy.key():
        return  # on another machine a fit may choose another of several equal alphas: another defense would be attacked
    search = learn_alphas(
        accuracy,
        run.generator.num_levels,
        steps=run.budget.search,
        variance=accuracy.variance,
        seed=run.seed,
        path=run.out / "search.json",
        key=accuracy.key(),
        report=report,
    )
    content = {
        "key": accuracy.key(),
        "alphas": search.best.alphas,
        "value": search.best.value,
        "measurements": len(search.trials),
        "images": len(accuracy.images),
        "optimiser_share": round(search.optimiser_share, 4),
        "seconds": round(sum(trial.objective_seconds + trial.optimiser_seconds for trial in search.trials), 1),
    }
    write_sealed(run.out / "learned.json", content)


def monotonicity(alphas: Sequence[float], *, printed: bool = True) -> float:
    """Spearman's rank correlation of alphas with their levels. It says how far they rise from coarse to fine.

    Eq. 6 as printed is 1 - sum (i - R_i)^2 / (N (N^2 - 1)), R_i the rank of alpha_i from 0. Without equal alphas, Spearman's
    coefficient has 6 times the sum and lies in [-1, 1]; the printed one lies in [2/3, 1]. Each is an increasing linear function
    of the other, so both have the same Pearson coefficient with anything. Equal alphas share the mean of their ranks. Then the
    coefficient is the correlation of the ranks, and the linear relation no longer holds.

    Args:
        alphas: N >= 2 numbers, not all equal, coarse to fine.
        printed: take eq. 6 as printed, without the factor 6.
    """
    from scipy.stats import rankdata

    count, ranks = len(alphas), rankdata(alphas) - 1
    if not printed:
        return float(np.corrcoef(np.arange(count), ranks)[0, 1])
    return 1 - float(np.square(np.arange(count) - ranks).sum()) / (count * (count**2 - 1))


def measure_random_alphas(run: Run) -> None:
    """Measure uniform random alphas on the images of the search (figures 3 to 5 a), or go on with it."""
    accuracy, every = run.random_accuracy, _random(run)
    path = _random_path(run)
    key = key_of((accuracy.key(), every), "random alphas").whole  # the file holds accuracies alone, in the order of the alphas
    known: dict[str, Any] = read_measured(path) if path.is_file() else {"key": key, "accuracies": []}
    if known["key"] != key:
        raise GenclsError(f"{path}: expected accuracies of this generator, classifier and images, got others; delete the file")
    for number in range(len(known["accuracies"]), len(every)):
        known["accuracies"].append(accuracy(every[number]))
        if (number + 1) % 16 == 0 or number + 1 == len(every):
            write_sealed(path, known)
            print(f"  {number + 1} of {len(every)}", flush=True)


def random_alphas(run: Run) -> pd.DataFrame | None:
    """Read the measurements, one row per alphas: ``alphas``, ``accuracy``, ``printed`` (eq. 6), ``spearman``; None if none."""
    if not _random_path(run).is_file():
        return None
    found = read_measured(_random_path(run))["accuracies"]
    rows = _random(run)[: len(found)].tolist()
    return pd.DataFrame(
        {
            "alphas": rows,
            "accuracy": found,
            "printed": [monotonicity(row) for row in rows],
            "spearman": [monotonicity(row, printed=False) for row in rows],
        }
    )


def _random_path(run: Run) -> Path:
    return run.out / "random-alphas.json"


def _random(run: Run) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(run.seed, "random alphas"))
    return torch.rand(run.budget.random, run.generator.num_levels, generator=generator, dtype=torch.float64)


def clean_accuracy(run: Run, name: str) -> Kept:
    """Accuracy of a defense on the run's clean test images.

    ``mean`` is the accuracy of the mean scores of all draws, the paper's ensemble. ``single`` is the accuracy of one draw, as a
    mean over draws. ``count`` is the number of images, ``draws`` the number of draws. The file's name has the key of the
    defense and of the code that measures. The key in the file covers the images and the seed.
    """
    defense, labels = run.defense(name), run.data.labels[: run.budget.clean]
    images, number = run.images(len(labels)), run.budget.eot if defense.stochastic else 1
    return Kept(
        run.out / "clean" / f"{slug(name)}-{run.key(name, _clean)}-{run.budget.clean}-{run.budget.eot}.json",
        lambda: key_of((images, labels, number, run.seed), name).whole,
        lambda: _clean(defense, images, labels, number, run.seed),
    )


def _clean(defense: Defense, images: Tensor, labels: Tensor, number: int, seed: int) -> dict[str, float | int]:
    scores = every_draw(defense, images, number, seed, "clean").cpu()
    mean = float((scores.mean(dim=1).argmax(dim=1) == labels).double().mean())
    single = float((scores.argmax(dim=2) == labels[:, None]).double().mean())
    return {"mean": mean, "single": single, "count": len(labels), "draws": number}


@torch.no_grad()
def every_draw(module: nn.Module, images: Tensor, number: int, seed: int, role: str, *, rows: int = _ROWS) -> Tensor:
    """Ask a defense or a transform about images (N, C, H, W): what every draw gives, (N, S, ...), in passes of so many rows."""
    found, size = [], max(1, rows // number)
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        with keyed([stream_seed(seed, role, first + i) for i in range(len(batch))]), draws(range(number)):
            found.append(forward_draws(module, batch, number).unflatten(0, (len(batch), number)))
    return torch.cat(found)


def class_levels(alphas: Sequence[float]) -> tuple[int, ...]:
    """Choose the levels that keep their codes: alphas below :data:`CLASS_ALPHA`, else the third with the lowest alphas."""
    kept = tuple(i for i, alpha in enumerate(alphas) if alpha < CLASS_ALPHA)
    lowest = sorted(range(len(alphas)), key=lambda i: alphas[i])[: max(1, len(alphas) // 3)]
    return kept if 0 < len(kept) < len(alphas) else tuple(sorted(lowest))


@torch.no_grad()
def mixed_codes(model: MultiLatentModel, first: Tensor, second: Tensor, levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mix class codes of one image with detail codes of another, both ways (figures 9 and 10).

    Args:
        model: the generator.
        first: images A, (N, C, H, W) in [0, 1].
        second: images B, (N, C, H, W) in [0, 1].
        levels: the levels of the class codes.

    Returns:
        Class codes of A with details of B, and class codes of B with details of A, (N, C, H, W) each.
    """

    def mix(level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
        return encoded if level in levels else encoded.roll(len(first), dims=0)

    one, other = model.autoencode(torch.cat([first, second]), mix).split(len(first))
    return one, other


@torch.no_grad()
def whose_class(run: Run, levels: Sequence[int], *, count: int = 200) -> tuple[float, float]:
    """Measure how often the classifier finds the class of the image with the class codes, and that of the other image.

    Args:
        run: the run whose first test images are paired, each with the next image of another class.
        levels: the levels of the class codes.
        count: number of images, at most.
    """
    images, labels = run.images(count), run.data.labels[:count]
    partner = [next(j for j in (*range(i + 1, len(labels)), *range(i)) if labels[j] != labels[i]) for i in range(len(labels))]
    found = [
        run.classifier(mixed_codes(run.generator, images[i : i + _ROWS // 8], images[partner[i : i + _ROWS // 8]], levels)[0])
        for i in range(0, len(labels), _ROWS // 8)
    ]
    said = torch.cat(found).argmax(dim=1).cpu()
    return float((said == labels).double().mean()), float((said == labels[partner]).double().mean())


@torch.no_grad()
def replaced_codes(model: MultiLatentModel, images: Tensor, *, seed: int = 0) -> list[Tensor]:
    """Figure 1 (c): the autoencoded images, then for each level the images with a new sample as that level's code."""

    def replaced(which: int) -> Tensor:
        def mix(level: int, encoded: Tensor, sampled: Tensor) -> Tensor:
            return sampled if level == which else encoded

        with keyed([stream_seed(seed, "replaced", i) for i in range(len(images))]):
            return model.autoencode(images, mix)

    return [replaced(level) for level in range(-1, model.num_levels)]
