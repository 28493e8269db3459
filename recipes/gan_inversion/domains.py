"""Frechet distances in and out of domain (eq. 3.8 to 3.10), from inversions that are already made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gencls.core import key_of, seeded
from gencls.defenses import AnalysisBySynthesis
from gencls.eval.measures.fid import frechet_distance, kernel_distance
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.harness.folders import Kept
from recipes.harness.jobs import Measurement

__all__ = ["domain_distances", "domain_jobs", "domain_sets", "measured"]

_MOST_GROUPS = 3
"""Groups of reconstructions out of domain, per class, each as large as the group in domain."""

_SUBSETS = 20
"""Sets of real images that a kernel distance averages over."""

_AS_THEY_ARE = nn.Flatten().eval()
"""In place of a network: the features are computed once, before."""

_SECONDS = 15.0
"""The rough time of one measurement: a Frechet distance of 576 features takes half a second, and there are about 40."""


def domain_distances(run: Run, inversion: Inversion) -> Kept:
    """Frechet and kernel distances of an inversion, see :func:`measured`; it must be finished."""
    path = run.out / "domains" / f"{inversion.slug}.json"

    def key() -> str:
        found = run.finished(inversion)
        about = run.network(run.profile.judge), found.codes(), found.labels, run.generator, run.budget.real, run.seed
        return key_of((*about, measured), "domains").whole

    def measure() -> Mapping[str, float]:
        found, classifier = run.finished(inversion), run.classifier(inversion)
        return measured(run.real_features, run.real.labels, found.labels, partial(_made_features, run, classifier, found))

    return Kept(path, key, measure)


def domain_jobs(run: Run, inversions: Sequence[Inversion]) -> Iterator[Measurement]:
    """Yield one measurement for each inversion."""
    for inversion in inversions:
        kept = domain_distances(run, inversion)
        yield Measurement.of(inversion.slug, kept, lambda: _SECONDS, lambda found: f"{found['in']:.1f}, {found['out']:.1f}")


def domain_sets(labels: Tensor, k: int) -> tuple[Tensor, list[Tensor]]:
    """Positions of the images of a class, and groups of equally many images of other classes.

    Args:
        labels: true classes, (N,).
        k: the class.

    Returns:
        The positions of the images of class k; at most three groups of as many others, in their order.
    """
    own, others = (labels == k).nonzero().flatten(), (labels != k).nonzero().flatten()
    groups = [group for group in others.split(max(1, len(own))) if len(group) == len(own)]
    return own, groups[:_MOST_GROUPS]


def measured(
    real: Tensor, real_labels: Tensor, labels: Tensor, features_of: Callable[[int, Tensor], Tensor]
) -> Mapping[str, float]:
    """Mean distances over the classes that have at least two images.

    A Frechet distance of few images is too large, and the more so the fewer they are. There are K - 1 times more images out of
    domain, so they are taken in groups as large as the set in domain, and the mean over the groups counts. Kernel distances
    have no such bias.

    Args:
        real: features of real images, (M, d).
        real_labels: their classes, (M,).
        labels: true classes of the inverted images, (N,).
        features_of: a function (class k, positions (n,)) -> features (n, d) of what class k makes of these images.

    Returns:
        ``in`` and ``out``, the Frechet distances of eq. 3.9 and 3.10; ``kernel_in`` and ``kernel_out``, the kernel distances of
        the same sets; ``images``, the mean size of a set; ``features``, d; ``real``, M.
    """
    found: dict[str, list[float]] = {"in": [], "out": [], "kernel_in": [], "kernel_out": [], "images": []}
    for k in range(int(real_labels.max()) + 1):
        own, groups = domain_sets(labels, k)
        target = real[real_labels == k]
        if len(own) < 2 or not groups or len(target) < 2:
            continue
        sets = {"in": [features_of(k, own)], "out": [features_of(k, rows) for rows in groups]}
        for name, parts in sets.items():
            found[name].append(_mean([frechet_distance(_AS_THEY_ARE, target, part) for part in parts]))
            found[f"kernel_{name}"].append(_mean([_kernel(target, part) for part in parts]))
        found["images"].append(float(len(own)))
    return {**{name: _mean(values) for name, values in found.items()}, "features": real.shape[1], "real": len(real)}


def _made_features(run: Run, classifier: AnalysisBySynthesis, found: Found, k: int, rows: Tensor) -> Tensor:
    codes = tuple(level[:, k].to(run.device) for level in found.codes(rows.tolist()))
    with torch.no_grad():
        made = classifier.generator(codes, torch.full((len(rows),), k, device=run.device))
    return run.judge.of(made, run.device)


def _kernel(real: Tensor, made: Tensor) -> float:
    """The kernel distance of all that was made and random sets of as many real ones; the same ones at each call."""
    with seeded(0):
        return kernel_distance(_AS_THEY_ARE, real, made, subsets=_SUBSETS, subset_size=min(len(real), len(made)))[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
