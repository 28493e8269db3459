"""Kernel and Frechet distances in and out of domain (eq. 3.8 to 3.10), from inversions that are already made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gencls.core import key_of
from gencls.defenses import AnalysisBySynthesis
from gencls.eval.measures.fid import frechet_distance
from gencls.eval.measures.mmd import mean_similarity, unbiased_mmd
from recipes.gan_inversion.intervals import resamples
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.harness.folders import Kept
from recipes.harness.jobs import Measurement

__all__ = ["domain_distances", "domain_jobs", "domain_sets", "input_distances", "measured", "seconds_of"]

_MOST_GROUPS = 3
"""Groups of reconstructions out of domain, per class, each as large as the group in domain."""

_AS_THEY_ARE = nn.Flatten().eval()
"""In place of a network: the features are computed once, before."""

_FOLDER = "kid"

_CHUNK = 200
"""Images that are decoded at once."""


def domain_distances(run: Run, inversion: Inversion) -> Kept:
    """Kernel and Frechet distances of an inversion, see :func:`measured`; it must be finished."""

    def key() -> str:
        found = run.finished(inversion)
        return key_of((*_about(run), found.codes(), found.labels, run.generator), "domains").whole

    def measure() -> Mapping[str, Any]:
        found, classifier = run.finished(inversion), run.classifier(inversion)
        similarities = input_distances(run).get()["similarities"]
        made = partial(_made_features, run, classifier, found)
        return measured(run.real_features, run.real.labels, found.labels, made, similarities)

    return Kept(run.out / _FOLDER / f"{inversion.slug}.json", key, measure)


def input_distances(run: Run) -> Kept:
    """The same distances of the inverted images themselves, in place of reconstructions.

    In domain they come from the distribution of the real images, but for training and test. The judge was trained on the
    former, so the kernel distance is a floor above 0. Out of domain they are what perfect reconstructions of other classes
    would be.
    """
    images, labels = run.images(len(run.rows)), run.data.labels[: len(run.rows)]

    def measure() -> Mapping[str, Any]:
        features = run.judge.describe(images)
        return measured(run.real_features, run.real.labels, labels, lambda k: features)

    return Kept(run.out / _FOLDER / "inputs.json", lambda: key_of((*_about(run), images, labels), "inputs").whole, measure)


def _about(run: Run) -> tuple[object, ...]:
    return run.network(run.profile.judge), run.budget.real, run.seed, measured


def domain_jobs(run: Run, inversions: Sequence[Inversion]) -> Iterator[Measurement]:
    """Yield one measurement of the images themselves, then one for each inversion."""
    every = {"inputs": input_distances(run), **{one.slug: domain_distances(run, one) for one in inversions}}
    for name, kept in every.items():
        yield Measurement.of(name, kept, lambda: seconds_of(len(run.rows)), _said)


def seconds_of(count: int) -> float:
    """Predict the most seconds that a measurement of N images takes on one core, with ten classes and 60,000 real images.

    Frechet distances of 576 features take half a second, and there are about 40. Decoding and similarities to real images grow
    with N, similarities of reconstructions and their resamples with its square (measured from 200 to 4,000 images).
    """
    return 25.0 + 0.04 * count + 1e-5 * count**2


def _said(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {found[name]:.3g}" for name in ("kernel_in", "kernel_out") if found[name] is not None)


def domain_sets(labels: Tensor, k: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Positions of the images of a class, of all others, and of groups of others.

    Args:
        labels: true classes, (N,).
        k: the class.

    Returns:
        The positions of the n images of class k; of all others; at most three groups of n others each, in their order.
    """
    own, others = (labels == k).nonzero().flatten(), (labels != k).nonzero().flatten()
    groups = [group for group in others.split(max(1, len(own))) if len(group) == len(own)]
    return own, others, groups[:_MOST_GROUPS]


def measured(
    real: Tensor,
    real_labels: Tensor,
    labels: Tensor,
    features_of: Callable[[int], Tensor],
    similarities: Sequence[float | None] = (),
) -> Mapping[str, Any]:
    """Mean distances over the classes that have at least two images and two real ones.

    Kernel distances (unbiased, :func:`~gencls.eval.measures.mmd.unbiased_mmd`) compare all images that a class has made with
    all real ones of that class. A Frechet distance of few images is too large, and the more so the fewer they are. There are
    K - 1 times more images out of domain, so for this distance they are taken in groups as large as the set in domain, and the
    mean over the groups counts.

    Args:
        real: features of real images, (M, d).
        real_labels: their classes, (M,).
        labels: true classes of the inverted images, (N,).
        features_of: a function, class k -> features (N, d) of what class k makes of the images.
        similarities: the same entry of another result with the same real images; without it they are computed.

    Returns:
        ``kernel_in`` and ``kernel_out``, the kernel distances of eq. 3.9 and 3.10; ``resampled_in`` and ``resampled_out``, the
        same in B resamples of the N images (:func:`~recipes.gan_inversion.intervals.resamples`); ``frechet_in`` and
        ``frechet_out``, the Frechet distances; ``images``, ``others`` and ``targets``, the mean sizes of a set in domain, of
        one out of domain and of the real images of a class; ``features``, d; ``similarities``, (K,), the mean similarity of
        the real images of each class. None stands for what is not defined.
    """
    counts = torch.from_numpy(resamples(len(labels)))
    known = list(similarities)
    kinds = ("kernel", "resampled", "frechet")
    found: dict[str, list[Any]] = {f"{kind}_{side}": [] for kind in kinds for side in ("in", "out")}
    sizes: dict[str, list[float]] = {"images": [], "others": [], "targets": []}
    for k in range(int(real_labels.max()) + 1):
        own, others, groups = domain_sets(labels, k)
        target = real[real_labels == k]
        if len(known) == k:
            known.append(mean_similarity(target) if len(target) > 1 else None)
        if min(len(own), len(others), len(target)) < 2:
            continue
        made = features_of(k)
        for side, rows in (("in", own), ("out", others)):
            found[f"kernel_{side}"].append(float(unbiased_mmd(target, made[rows], real_similarity=known[k])))
            resampled = unbiased_mmd(target, made[rows], counts=counts[:, rows], real_similarity=known[k])
            found[f"resampled_{side}"].append(resampled.numpy())
        for side, parts in (("in", [own]), ("out", groups)):
            distances = [frechet_distance(_AS_THEY_ARE, target, made[rows]) for rows in parts]
            found[f"frechet_{side}"] += [float(np.mean(distances))] if groups else []
        for name, rows in (("images", own), ("others", others), ("targets", target)):
            sizes[name].append(float(len(rows)))
    again = {name: _mean_of_known(found.pop(name)) for name in ("resampled_in", "resampled_out")}
    means = {name: float(np.mean(values)) if values else None for name, values in found.items()}
    counted = {name: float(np.mean(values)) if values else 0.0 for name, values in sizes.items()}
    return {**means, **again, **counted, "features": real.shape[1], "real": len(real), "similarities": known}


def _made_features(run: Run, classifier: AnalysisBySynthesis, found: Found, k: int) -> Tensor:
    described, codes = [], found.codes()
    for rows in torch.arange(len(found.labels)).split(_CHUNK):
        chosen = tuple(level[rows, k].to(run.device) for level in codes)
        with torch.no_grad():
            made = classifier.generator(chosen, torch.full((len(rows),), k, device=run.device))
        described.append(run.judge.describe(made))
    return torch.cat(described)


def _mean_of_known(values: Sequence[Any]) -> list[float | None]:
    """Means (B,) over the classes in whose resample at least two different images are."""
    if not values:
        return []
    there = ~np.isnan(values)
    sums = np.where(there, values, 0.0).sum(0)
    return [total / number if number else None for total, number in zip(sums.tolist(), there.sum(0).tolist(), strict=True)]
