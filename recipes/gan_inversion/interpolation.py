"""Table 3.4 and Figure 3.10: the perceptual distance along the line between two optimal codes of one image."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencls.core import ImageDistance, Latents, key_of
from gencls.defenses import AnalysisBySynthesis, Posterior
from gencls.defenses import interpolated as between
from gencls.defenses.synthesis.posterior import means
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.harness.folders import Kept
from recipes.harness.jobs import Measurement

__all__ = ["ORDERS", "along", "endpoints", "interpolated", "interpolation", "interpolation_jobs", "interpolations", "line"]

ORDERS = 11
"""Codes on the line, a = 0, 0.1, ..., 1."""

_ROWS = 20
"""Images whose line is decoded at once."""


def endpoints(run: Run, distance: str) -> tuple[Inversion, Inversion]:
    """Two runs of Direct with lambda 1, which differ in their random starts alone."""
    first, second = (
        Inversion(method="direct", weight=1.0, distance=distance, steps=run.budget.steps, again=again) for again in (0, 1)
    )
    return first, second


def line(first: Latents, second: Latents) -> Latents:
    """Codes a z_1 + (1 - a) z_2 for a = 0, 0.1, ..., 1, as section 3.4 defines them.

    Its text says that order 0 gives z_1. By its formula order 0 gives z_2, and so it is here.

    Args:
        first: z_1, (N, d) per level.
        second: z_2, likewise.

    Returns:
        (N, 11, d) per level.
    """
    one, two = (tuple(Posterior(level.unsqueeze(1)) for level in codes) for codes in (first, second))
    points = [means(between(one, two, order / (ORDERS - 1))) for order in range(ORDERS)]
    return tuple(torch.cat(levels, dim=1) for levels in zip(*points, strict=True))


@torch.no_grad()
def interpolated(classifier: AnalysisBySynthesis, first: Found, second: Found, rows: slice) -> Tensor:
    """Images of the lines between the true class's codes of some images, (n, 11, C, H, W)."""
    ends = [tuple(found.in_domain(level)[rows] for level in found.codes()) for found in (first, second)]
    codes, labels = line(*ends), first.labels[rows].repeat_interleave(ORDERS)
    device = next(classifier.generator.parameters()).device
    made: Tensor = classifier.generator(tuple(level.flatten(0, 1).to(device) for level in codes), labels.to(device))
    return made.view(-1, ORDERS, *made.shape[1:])


def along(classifier: AnalysisBySynthesis, percept: ImageDistance, images: Tensor, first: Found, second: Found) -> Tensor:
    """Perceptual distances (N, 11) of each image to the images of its line."""
    found = []
    for begin in range(0, len(images), _ROWS):
        rows = slice(begin, begin + _ROWS)
        with torch.no_grad():
            found.append(percept.to_each(images[rows], interpolated(classifier, first, second, rows)).cpu())
    return torch.cat(found)


def interpolation(run: Run, distance: str) -> Kept:
    """Measure a distance along the lines between two runs of Direct, which must be finished.

    ``lines``, the distance of each image by order, and ``outside``, its mean distance to the reconstructions out of domain at
    both ends; ``mean``, ``half`` (half the length of its 95 % interval) and ``std`` by order; ``reference``, the mean of
    ``outside``; ``above``, the share of images whose largest distance on the line exceeds their own ``outside``.
    """
    pair = endpoints(run, distance)

    def key() -> str:
        found = [run.finished(inversion) for inversion in pair]
        codes = [(one.codes(), one.percept) for one in found]
        return key_of((run.generator, run.perceptual(distance), codes, _measured), "interpolation").whole

    def measure() -> Mapping[str, Any]:
        first, second = (run.finished(inversion) for inversion in pair)
        images = run.images(len(first.labels))
        return _measured(along(run.classifier(pair[0]), run.perceptual(distance), images, first, second), first, second)

    return Kept(run.out / "lines" / f"{distance}.json", key, measure)


def interpolations(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """What is measured along the lines, by distance, if the ends are finished and were measured as they are now."""
    there = [name for name in run.profile.main if interpolation(run, name).path.is_file()]
    finished = [name for name in there if all(run.found(one) for one in endpoints(run, name))]
    return {name: current for name in finished if (current := interpolation(run, name).current)}


def interpolation_jobs(run: Run) -> Iterator[Measurement]:
    """Yield one measurement for each distance of the main tables."""
    for distance in run.main:
        kept = interpolation(run, distance)
        yield Measurement.of(
            f"interpolation {distance}", kept, lambda: 10.0, lambda found: f"{found['mean'][0]:.1f} to {max(found['mean']):.1f}"
        )


def _measured(values: Tensor, first: Found, second: Found) -> Mapping[str, Any]:
    found = values.double().numpy()
    outside = np.stack([one.out_of_domain(one.percept).double().numpy() for one in (first, second)]).mean(0)
    std = found.std(0, ddof=1) if len(found) > 1 else np.zeros(found.shape[1])
    return {
        "mean": found.mean(0).tolist(),
        "half": (1.96 * std / np.sqrt(len(found))).tolist(),
        "std": std.tolist(),
        "reference": float(outside.mean()),
        "above": float((found.max(1) > outside).mean()),
        "count": len(found),
        "lines": found.tolist(),
        "outside": outside.tolist(),
    }
