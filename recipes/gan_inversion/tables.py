"""Tables 3.1 to 3.8 from the inversions in the folder of a run, with the thesis's numbers in brackets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from gencls.eval.measures.statistics import mcnemar
from gencls.eval.report.formats import MISSING, probability
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.domains import domain_distances
from recipes.gan_inversion.interpolation import interpolation
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES, METHODS
from recipes.gan_inversion.timing import eliminated, timing
from recipes.gan_inversion.words import accuracy, cells, domain, error, mean
from recipes.harness.records import Share

T = TypeVar("T")

Results = Mapping[Inversion, Found]


def finished(run: Run, chosen: Sequence[Inversion], parent: str = "inversions", count: int = 0) -> Results:
    """The inversions that are finished, in their order."""
    found = {inversion: run.found(inversion, parent, count) for inversion in chosen}
    return {inversion: one for inversion, one in found.items() if one is not None}


def inversion_table(run: Run) -> PaperTable | None:
    """Make Table 3.1."""
    chosen = experiments.main_settings(run, run.profile.main[0])
    found = finished(run, chosen)
    if not found:
        return None

    def row(inversion: Inversion, one: Found) -> Row:
        inside, outside = domain(one, one.percept)
        ours = (error(one), mean(one.in_domain(one.pixel)), inside, outside, f"{one.seconds / len(one.labels):.2g}")
        return Row(inversion.head, cells(*ours, theirs=printed.INVERSION.get((inversion.method, inversion.weight), ())))

    columns = ("", "error rate", "in-domain L2", "in-domain perceptual", "out-of-domain perceptual", "seconds per image")
    distance = DISTANCES[run.profile.main[0]]
    return PaperTable(
        "table-3.1",
        f"Table 3.1: inference methods with {run.budget.steps} steps under {distance}",
        columns,
        tuple(_grouped(found, row)),
        (
            _about(run, found),
            "L2: the squared distance in [0, 1] pixel units, summed over the image (eq. 3.7); perceptual: eq. 3.6; means over "
            "images, with 95 % intervals. The thesis does not name its pixel scale. No two 3 x 32 x 32 images in [-1, 1] have "
            "an L2 distance above 110.9, so its L2 column is of squares too. Its images have 3,072 numbers and its features "
            "are others: compare orders and directions.",
            *_slips(run),
            *_missing(chosen, found),
        ),
    )


def robust_table(run: Run) -> PaperTable | None:
    """Make Table 3.6: the robust distance beside the standard one, on the same images."""
    if len(run.profile.main) < 2:
        return None
    standard, robust = (finished(run, experiments.main_settings(run, distance)) for distance in run.profile.main)
    if not robust:
        return None
    others = {(inversion.method, inversion.weight): one for inversion, one in standard.items()}

    def row(inversion: Inversion, one: Found) -> Row:
        setting = inversion.method, inversion.weight
        other = others.get(setting)
        p = MISSING if other is None else probability(mcnemar(one.right.numpy(), other.right.numpy()).p_value)
        ours = error(one), MISSING if other is None else error(other), p, *domain(one, one.percept)
        return Row(inversion.head, cells(*ours, theirs=printed.ROBUST.get(setting, ())))

    names = [DISTANCES[distance] for distance in run.profile.main]
    columns = ("", f"error rate: {names[1]}", names[0], "McNemar's p", "in-domain perceptual", "out-of-domain perceptual")
    return PaperTable(
        "table-3.6",
        f"Table 3.6: error rate under {names[1]} and under {names[0]}",
        columns,
        tuple(_grouped(robust, row)),
        (
            _about(run, robust),
            f"Perceptual distances are those of {names[1]}; the thesis does not print them. McNemar's tests are exact and not "
            "corrected for their number.",
            *_slips(run),
            *_missing(experiments.main_settings(run, run.profile.main[1]), robust),
        ),
    )


def steps_table(run: Run) -> PaperTable | None:
    """Make Table 3.2."""
    found = finished(run, experiments.steps(run))

    def row(inversion: Inversion, one: Found) -> Row:
        ours = error(one), *domain(one, one.percept), mean(one.in_domain(one.pixel))
        return Row(f"{inversion.steps}", cells(*ours, theirs=printed.STEPS.get(inversion.steps, ())))

    if not found:
        return None
    first = next(iter(found))
    columns = ("steps", "error rate", "in-domain perceptual", "out-of-domain perceptual", "in-domain L2")
    title = f"Table 3.2: {first.head} under {DISTANCES[first.distance]}, by steps"
    return PaperTable("table-3.2", title, columns, tuple(row(*item) for item in found.items()), (_about(run, found),))


def domain_table(run: Run) -> PaperTable | None:
    """Make Table 3.3, and the correlation of its differences with the error rates."""
    found = finished(run, experiments.main_settings(run, run.profile.main[0])) if run.profile.judge else {}
    known = {inversion: kept for inversion in found if (kept := domain_distances(run, inversion).known)}
    if not known:
        return None

    def row(inversion: Inversion, kept: Mapping[str, float]) -> Row:
        ours = [f"{value:.1f}" for value in (kept["in"], kept["out"], kept["out"] - kept["in"])]
        ours += [f"{kept[name]:.3g}" for name in ("kernel_in", "kernel_out")] + [error(found[inversion])]
        return Row(inversion.head, cells(*ours, theirs=printed.FRECHET.get((inversion.method, inversion.weight), ())))

    about = next(iter(known.values()))
    columns = ("", "FID in domain", "FID out of domain", "difference", "KID in domain", "KID out of domain", "error rate")
    return PaperTable(
        "table-3.3",
        "Table 3.3: Frechet distances in and out of domain",
        columns,
        tuple(_grouped(known, row)),
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


def distances_table(run: Run) -> PaperTable | None:
    """Make Table 3.5."""
    found = finished(run, experiments.comparison(run))
    if not found:
        return None

    def row(inversion: Inversion, one: Found) -> Row:
        theirs = [printed.DISTANCES[inversion.distance]] if inversion.distance in printed.DISTANCES else []
        inside, outside = domain(one, one.percept) if inversion.distance != "pixels" else (MISSING, MISSING)
        ours = error(one), inside, outside, mean(one.in_domain(one.pixel)), f"{one.seconds / len(one.labels):.2g}"
        return Row(DISTANCES[inversion.distance], cells(*ours, theirs=theirs))

    columns = ("", "error rate", "in-domain perceptual", "out-of-domain perceptual", "in-domain L2", "seconds per image")
    title = f"Table 3.5: perceptual distances, Enc-D with {run.budget.compared} steps, λ = 10, λ_percept = 10"
    lines = tuple(row(*item) for item in found.items())
    note = (
        "Perceptual distances of two rows have different scales. E-LPIPS, contrastive and pixels alone are not in the thesis."
    )
    return PaperTable("table-3.5", title, columns, lines, (_about(run, found), note))


def imagenette_table(run: Run) -> PaperTable | None:
    """Make Table 3.7."""
    found = finished(run, experiments.imagenette(run)) if "3.7" in run.profile.tables else {}
    rows = tuple(
        Row(
            f"{METHODS[inversion.method]}, {DISTANCES[inversion.distance]}",
            (Cell(accuracy(one), f"{printed.IMAGENETTE[inversion.method, inversion.distance]:g}"),),
        )
        for inversion, one in found.items()
    )
    notes = (_about(run, found), "λ = 1 is ours: the thesis does not say it.") if found else ()
    return PaperTable("table-3.7", "Table 3.7: methods on Imagenette", ("", "accuracy"), rows, notes) if found else None


def large_steps_table(run: Run) -> PaperTable | None:
    """Make Table 3.8."""
    found = finished(run, experiments.large_steps(run)) if "3.8" in run.profile.tables else {}
    rows = tuple(
        Row(
            f"{inversion.steps}",
            cells(accuracy(one), *domain(one, one.percept), theirs=printed.IMAGENETTE_STEPS.get(inversion.steps, ())),
        )
        for inversion, one in found.items()
    )
    columns = ("steps", "accuracy", "in-domain perceptual", "out-of-domain perceptual")
    return PaperTable("table-3.8", "Table 3.8: Enc by steps", columns, rows, (_about(run, found),)) if found else None


def elimination_table(run: Run) -> PaperTable | None:
    """Make the table of early elimination: its cost in accuracy and what it saves."""
    rows = list[Row]()
    for inversion, fast in finished(run, eliminated(run)).items():
        known = timing(run, inversion).known
        whole = run.found(Inversion(**{**vars(inversion), "fast": False}))
        if whole is None or known is None:
            continue
        test = mcnemar(whole.right.numpy(), fast.right.numpy())
        changed = int((whole.losses.argmin(1) != fast.losses.argmin(1)).sum())
        points = 100 * float(fast.right.float().mean() - whole.right.float().mean())
        seconds = f"{known['whole']:.3g}", f"{known['fast']:.3g}", f"{known['whole'] / known['fast']:.2f}"
        ours = error(whole), error(fast), f"{points:+.1f}", str(changed), probability(test.p_value), *seconds
        rows.append(Row(inversion.head, cells(*ours)))
    columns = (
        *("", "error rate: all classes", "early elimination", "points of accuracy", "changed decisions", "McNemar's p"),
        *("seconds per image: all classes", "early elimination", "times as fast"),
    )
    note = (
        f"Under {DISTANCES[run.main[-1]]}, {run.budget.steps} steps, {len(run.rows)} images. Seconds: the least of three "
        f"timings in turn on {min(run.budget.timed, len(run.data))} images, {run.budget.together} in one batch."
    )
    return PaperTable("elimination", "Hopeless classes leave early", columns, tuple(rows), (note,)) if rows else None


def _grouped(found: Mapping[Inversion, T], row: Callable[[Inversion, T], Row]) -> Iterator[Row]:
    """Yield the rows of the regular methods, then those of the overparameterised ones, each under its head."""
    for head, plus in (("(a) Regular", False), ("(b) Overparameterised", True)):
        rows = [row(inversion, one) for inversion, one in found.items() if inversion.method.endswith("+") == plus]
        yield from ([Row(head), *rows] if rows else [])


def _about(run: Run, found: Results) -> str:
    total = max(len(one.labels) for one in found.values())
    where = "" if run.profile.printed else ", on other images: CIFAR10 or Imagenette"
    return (
        f"In percent on {total} images of {run.data.name} ({run.data.split}), with 95 % Wilson intervals; in brackets the "
        f"thesis with its own networks{where}."
    )


def _slips(run: Run) -> Iterator[str]:
    yield from (f"Slip: {slip}." for slip in printed.SLIPS)


def _missing(chosen: Sequence[Inversion], found: Results) -> Iterator[str]:
    left = [inversion.head for inversion in chosen if inversion not in found]
    if left:
        yield f"Not finished: {'; '.join(left)}."


def right_share(found: Found) -> Share:
    """The share of right decisions."""
    return Share(float(found.right.sum()), len(found.labels))
