"""Tables 3.3 and 3.4: kernel and Frechet distances in and out of domain, and distances along the lines between two codes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gencls.eval.report.formats import MISSING
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.domains import domain_distances, input_distances
from recipes.gan_inversion.interpolation import interpolations
from recipes.gan_inversion.intervals import Correlation, Estimate, correlation, excess, excesses, means
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES
from recipes.gan_inversion.tables import finished, grouped
from recipes.gan_inversion.words import cells, error

__all__ = ["distance_gaps", "domain_correlations", "domain_table", "interpolation_table", "peaks", "printed_correlation"]

_SCALE = 1000
"""Kernel distances are printed times this, as in the literature."""

_INPUTS = "the images themselves"


def _known(run: Run) -> dict[Inversion, tuple[Found, Mapping[str, Any]]]:
    """The settings of Table 3.1 whose distances in and out of domain are measured, of the inversions as they are now."""
    found = finished(run, experiments.main_settings(run, run.profile.main[0])) if run.profile.judge else {}
    kept = {inversion: (one, domain_distances(run, inversion).current) for inversion, one in found.items()}
    return {inversion: (one, known) for inversion, (one, known) in kept.items() if known}


def domain_table(run: Run) -> PaperTable | None:
    """Make Table 3.3, and the correlations of its gaps with the error rates."""
    known = _known(run)
    if not known:
        return None

    def row(inversion: Inversion, one: tuple[Found, Mapping[str, Any]]) -> Row:
        found, kept = one
        setting = inversion.method, inversion.weight
        theirs = [f"{value:g}" for value in printed.FRECHET.get(setting, ())] or [""] * 3
        rate = f"{printed.INVERSION[setting][0]:g}" if setting in printed.INVERSION else ""
        frechet = [Cell(ours, value) for ours, value in zip(_frechet(kept), theirs, strict=True)]
        return Row(inversion.head, (*map(Cell, _kernel(kept)), *frechet, Cell(error(found), rate)))

    about = next(iter(known.values()))[1]
    rows, inputs = [*grouped(known, row)], input_distances(run).current
    if inputs:
        rows = [Row(_INPUTS, tuple(map(Cell, (*_kernel(inputs), *_frechet(inputs), MISSING)))), *rows]
    marked = "FID" if about["images"] > about["features"] else "FID (n ≤ d: biased)"
    kernel, frechet = ([f"{name} {side}" for side in ("in domain", "out of domain", "gap")] for name in ("KID", marked))
    columns = ("", *kernel, *frechet, "error rate")
    notes = (
        f"KID, the kernel distance, times {_SCALE}, with 95 % bootstrap intervals over the inverted images: unbiased for any "
        f"number of images, so it may be negative. Per class it compares {about['images']:.0f} reconstructions in domain and "
        f"{about['others']:.0f} out of domain with {about['targets']:,.0f} real training images; the mean over classes counts "
        "(eq. 3.9 and 3.10). Gap: out of domain minus in domain.",
        f"{_INPUTS.capitalize()}: the inverted test images in place of reconstructions. In domain stands the floor: above 0, "
        f"since {run.profile.judge} was trained on the real training images and not on the test images. Out of domain stands "
        "what perfect reconstructions would give. The nearer the distributions of both sets, the rougher the interval of KID: "
        "of equal ones the statistic is degenerate, and the ordinary bootstrap does not hold.",
        f"FID, the Frechet distance, without intervals, over {about['images']:.0f} images in domain, and out of domain over "
        f"groups of as many; {_bias(about)}",
        f"KID and FID on the d = {about['features']:,} features before the last layer of {run.profile.judge}, not those of "
        "Inception. The thesis inverts all training images; here it is the test images of Table 3.1. In brackets the thesis on "
        "CIFAR10, on Inception's features. Error rates in percent, with 95 % Wilson intervals.",
        *_correlations(run),
    )
    return PaperTable("table-3.3", "Table 3.3: kernel and Frechet distances in and out of domain", columns, tuple(rows), notes)


def _bias(about: Mapping[str, Any]) -> str:
    if about["images"] > about["features"]:
        return "its bias grows with the spread of a set and falls with its size."
    return (
        "that is n ≤ d, so it is biased: too large, the more so the wider a set spreads, and settings may come in a wrong "
        "order. Take KID."
    )


def _kernel(kept: Mapping[str, Any]) -> list[str]:
    if kept["kernel_in"] is None:
        return [MISSING] * 3
    gap = distance_gaps([kept])[0]
    estimates = [Estimate.of(kept[f"kernel_{side}"], _floats(kept[f"resampled_{side}"])) for side in ("in", "out")]
    estimates.append(Estimate.of(kept["kernel_out"] - kept["kernel_in"], gap))
    scaled = [Estimate(*(_SCALE * value for value in (one.value, one.low, one.high))) for one in estimates]
    return [one.text(",.0f") for one in scaled]


def _frechet(kept: Mapping[str, Any]) -> list[str]:
    inside, outside = kept["frechet_in"], kept["frechet_out"]
    return [MISSING] * 3 if inside is None else [f"{value:.1f}" for value in (inside, outside, outside - inside)]


def distance_gaps(kept: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """The gap of kernel distances, out of domain minus in domain, of S results in each resample, (S, B)."""
    return np.stack([_floats(one["resampled_out"]) - _floats(one["resampled_in"]) for one in kept])


def _floats(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None, for no value, becomes NaN


def domain_correlations(run: Run) -> Mapping[str, Correlation]:
    """Correlations of error rate and gap over the settings, by the name of the distance: "KID", and "FID" without intervals.

    The resamples of the images are those of the kernel distances, so that errors and gaps change together. Frechet distances of
    resamples are not taken: a resample has fewer different images, and fewer images make the distance larger.
    """
    known = [both for both in _known(run).values() if both[1]["kernel_in"] is not None]
    if not known:
        return {}
    errors, resampled = means([~found.right for found, _ in known])
    kept = [one for _, one in known]
    gaps = [one["kernel_out"] - one["kernel_in"] for one in kept]
    found = {"KID": correlation(errors, gaps, (resampled, distance_gaps(kept)))}
    if all(one["frechet_in"] is not None for one in kept):
        found["FID"] = correlation(errors, [one["frechet_out"] - one["frechet_in"] for one in kept])
    return {name: one for name, one in found.items() if one.known}


def printed_correlation() -> Correlation:
    """The correlation of error rate and gap of the Frechet distances in the thesis's tables."""
    both = [(printed.INVERSION[setting][0], values[2]) for setting, values in printed.FRECHET.items()]
    return correlation(*zip(*both, strict=True))


def _correlations(run: Run) -> Iterator[str]:
    found = domain_correlations(run)
    if found:
        count = max(one.count for one in found.values())
        words = "; ".join(f"{name}: {one.text()}" for name, one in found.items())
        yield (
            f"Correlation of error rate and gap over {count} settings, with 95 % bootstrap intervals over images, "
            f"bias-corrected: {words} (without interval). In the thesis's tables, FID: {printed_correlation().text()}."
        )


def peaks(run: Run) -> Mapping[str, tuple[Estimate, npt.NDArray[np.float64]]]:
    """By distance, how far the line's peak lies from its ends to the reference: with its interval, and by resample, (B,)."""
    found = {distance: excesses(known["lines"], known["outside"]) for distance, known in interpolations(run).items()}
    return {distance: (Estimate.corrected(value, resampled), resampled) for distance, (value, resampled) in found.items()}


def interpolation_table(run: Run) -> PaperTable | None:
    """Make Table 3.4."""
    kept = interpolations(run)
    if not kept:
        return None
    rows, notes, rise = list[Row](), list[str](), peaks(run)
    for distance, known in kept.items():
        theirs = printed.INTERPOLATION[distance]
        rows.append(Row(f"Inference with {DISTANCES[distance]}"))
        for name, head in (("mean", "mean"), ("half", "half of the 95 % interval"), ("std", "standard deviation")):
            values = [f"{value:.4g}" for value in known[name]]
            rows.append(Row(head, cells(*values, theirs=theirs[name])))
        notes.append(
            f"{DISTANCES[distance]}: mean distance out of domain, the reference, {known['reference']:.4g} (thesis "
            f"{theirs['reference'][0]:g}); from the ends (0) to it (1) the peak lies at {rise[distance][0].text('.2f')} "
            f"(thesis {excess(theirs['mean'], theirs['reference'][0]):.2f}); on {100 * known['above']:.0f} % of the images the "
            "line rises above the image's own distance out of domain."
        )
    count = next(iter(kept.values()))["count"]
    columns = ("order", *(str(order) for order in range(11)))
    title = f"Table 3.4: perceptual distance between two runs of Direct, λ = 1, {run.budget.steps} steps"
    about = (
        f"Perceptual distances (eq. 3.6) of {count} images to the reconstructions by their true class; those of two distances "
        "have different scales. The interval of a mean is 1.96 standard errors to each side, that of a peak a 95 % bootstrap "
        "over images. In brackets the thesis on CIFAR10."
    )
    return PaperTable("table-3.4", title, columns, tuple(rows), (*notes, about))
