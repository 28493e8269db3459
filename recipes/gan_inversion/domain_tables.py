"""Tables 3.3 and 3.4: Frechet distances in and out of domain, and distances along the lines between two codes."""

from collections.abc import Mapping, Sequence

from gencls.eval.report.formats import MISSING, probability
from gencls.eval.report.paper.page import PaperTable, Row
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.domains import domain_distances
from recipes.gan_inversion.interpolation import interpolation
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES
from recipes.gan_inversion.tables import Results, finished, grouped
from recipes.gan_inversion.words import cells, error

__all__ = ["correlated", "domain_table", "excess", "interpolation_table"]


def domain_table(run: Run) -> PaperTable | None:
    """Make Table 3.3, and the correlation of its differences with the error rates."""
    found = finished(run, experiments.main_settings(run, run.profile.main[0])) if run.profile.judge else {}
    known = {inversion: kept for inversion in found if (kept := domain_distances(run, inversion).known)}
    if not known:
        return None

    def row(inversion: Inversion, kept: Mapping[str, float]) -> Row:
        ours = [f"{value:.1f}" for value in (kept["in"], kept["out"], kept["out"] - kept["in"])]
        ours += [f"{kept[name]:.3g}" for name in ("kernel_in", "kernel_out")]
        ours = [*(ours if kept["images"] else [MISSING] * len(ours)), error(found[inversion])]
        return Row(inversion.head, cells(*ours, theirs=printed.FRECHET.get((inversion.method, inversion.weight), ())))

    about = next(iter(known.values()))
    columns = ("", "FID in domain", "FID out of domain", "difference", "KID in domain", "KID out of domain", "error rate")
    return PaperTable(
        "table-3.3",
        "Table 3.3: Frechet distances in and out of domain",
        columns,
        tuple(grouped(known, row)),
        (
            f"FID and KID on the {about['features']:.0f} features before the last layer of {run.profile.judge}, not those of "
            f"Inception; {about['real']:,.0f} real training images. Means over classes of eq. 3.9 and 3.10, over "
            f"{about['images']:.0f} reconstructions per class in domain, and out of domain over groups of as many, since the "
            "distance of few images is too large. The thesis inverts all training images; here it is the test images of Table "
            "3.1. KID has no such bias. In brackets the thesis on CIFAR10, on Inception's features.",
            _correlation(run, found, known),
        ),
    )


def _correlation(run: Run, found: Results, known: Mapping[Inversion, Mapping[str, float]]) -> str:
    errors = [float((~found[inversion].right).float().mean()) for inversion in known]
    gaps = [kept["out"] - kept["in"] for kept in known.values()]
    kernel = [kept["kernel_out"] - kept["kernel_in"] for kept in known.values()]
    theirs = [(printed.INVERSION[setting][0], printed.FRECHET[setting][2]) for setting in printed.FRECHET]
    return (
        f"Correlation of error rate and difference over {len(errors)} settings: FID {correlated(errors, gaps)}, KID "
        f"{correlated(errors, kernel)}; the thesis's numbers: {correlated(*map(list, zip(*theirs, strict=True)))}."
    )


def correlated(first: Sequence[float], second: Sequence[float]) -> str:
    """Pearson's and Spearman's coefficients with their p-values, in words; a dash for fewer than three pairs."""
    from scipy.stats import pearsonr, spearmanr

    if len(first) < 3 or len({*first}) < 2 or len({*second}) < 2:
        return MISSING
    tests = (("Pearson", pearsonr(first, second)), ("Spearman", spearmanr(first, second)))
    return ", ".join(f"{name} {test.statistic:.2f} (p {_p(float(test.pvalue))})" for name, test in tests)


def _p(value: float) -> str:
    words = probability(value)
    return words if words.startswith("<") else f"= {words}"


def interpolation_table(run: Run) -> PaperTable | None:
    """Make Table 3.4."""
    kept = {distance: known for distance in run.profile.main if (known := interpolation(run, distance).known)}
    if not kept:
        return None
    rows, notes = list[Row](), list[str]()
    for distance, known in kept.items():
        theirs = printed.INTERPOLATION[distance]
        rows.append(Row(f"Inference with {DISTANCES[distance]}"))
        for name, head in (("mean", "mean"), ("half", "half of the 95 % interval"), ("std", "standard deviation")):
            values = [f"{value:.4g}" for value in known[name]]
            rows.append(Row(head, cells(*values, theirs=theirs[name])))
        notes.append(
            f"{DISTANCES[distance]}: mean distance out of domain, the reference, {known['reference']:.4g} (thesis "
            f"{theirs['reference'][0]:g}); from the ends (0) to it (1) the peak lies at "
            f"{excess(known['mean'], known['reference']):.2f} (thesis {excess(theirs['mean'], theirs['reference'][0]):.2f}); "
            f"on {100 * known['above']:.0f} % of the {known['count']} images the line rises above the image's own distance "
            "out of domain."
        )
    columns = ("order", *(str(order) for order in range(11)))
    title = f"Table 3.4: perceptual distance between two runs of Direct, λ = 1, {run.budget.steps} steps"
    return PaperTable("table-3.4", title, columns, tuple(rows), (*notes, "In brackets the thesis on CIFAR10."))


def excess(means: Sequence[float], reference: float) -> float:
    """How far the peak of a line lies on the way from its ends (0) to the reference (1)."""
    ends = (means[0] + means[-1]) / 2
    return (max(means) - ends) / (reference - ends)
