"""Tables 3.1 to 3.8 from the inversions in the folder of a run, with the thesis's numbers in brackets."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from gencls.eval.measures.statistics import mcnemar
from gencls.eval.report.formats import MISSING, probability
from gencls.eval.report.paper.page import PaperTable, Row
from gencls.perceptual import title_of
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.inversions import Found, Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.selection import described
from recipes.gan_inversion.settings import DISTANCES, METHODS
from recipes.gan_inversion.timing import eliminated, timing
from recipes.gan_inversion.words import accuracy, cells, domain, error, mean

T = TypeVar("T")

_DISTANCES = (
    "L2: the squared distance in [0, 1] pixel units, summed over the image (eq. 3.7); perceptual: eq. 3.6. Both are means over "
    "the images, ± half of their 95 % intervals."
)

_SHARE = "perceptual share of D in %"

_OF_SHARE = (
    "Perceptual share of D (eq. 3.7): λ_percept · perceptual / (L2 + λ_percept · perceptual) of the in-domain reconstructions, "
    "mean over the images. D sums pixels over the image, while LPIPS and E-LPIPS average over places. A row whose share is a "
    "few percent says little about its perceptual distance: its D is pixels almost alone."
)

Results = Mapping[Inversion, Found]


def finished(run: Run, chosen: Sequence[Inversion], parent: str = "inversions", count: int = 0) -> Results:
    """The inversions that are finished, in their order."""
    found = {inversion: run.found(inversion, parent, count) for inversion in chosen}
    return {inversion: one for inversion, one in found.items() if one is not None}


def grouped(found: Mapping[Inversion, T], row: Callable[[Inversion, T], Row]) -> Iterator[Row]:
    """Yield the rows of the regular methods, then those of the overparameterised ones, each under its head."""
    for head, plus in (("(a) Regular", False), ("(b) Overparameterised", True)):
        rows = [row(inversion, one) for inversion, one in found.items() if inversion.method.endswith("+") == plus]
        yield from ([Row(head), *rows] if rows else [])


def perceptual_share(inversion: Inversion, found: Found) -> Tensor:
    """How much of D (eq. 3.7) of the in-domain reconstructions is perceptual, in percent: (N,).

    An image that is reconstructed without any error has a D of 0 and no share: it is left out.
    """
    percept = inversion.percept_weight * found.in_domain(found.percept)
    whole = found.in_domain(found.pixel) + percept
    return 100 * percept[whole > 0] / whole[whole > 0]


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
        tuple(grouped(found, row)),
        (
            _about(run, found),
            _DISTANCES,
            "The thesis does not name its pixel scale. No two 3 x 32 x 32 images in [-1, 1] have an L2 distance above 110.9, "
            "so its L2 column is of squares too. Its images have 3,072 numbers and its features are others: compare orders and "
            "directions. Seconds: those of the inversion alone, all classes, as the run measured them.",
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
        tuple(grouped(robust, row)),
        (
            _about(run, robust),
            _DISTANCES,
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
    return PaperTable(
        "table-3.2", title, columns, tuple(row(*item) for item in found.items()), (_about(run, found), _DISTANCES)
    )


def distances_table(run: Run) -> PaperTable | None:
    """Make Table 3.5."""
    found = finished(run, experiments.comparison(run))
    if not found:
        return None

    def row(inversion: Inversion, one: Found) -> Row:
        theirs = [printed.DISTANCES[inversion.distance]] if inversion.distance in printed.DISTANCES else []
        inside, outside, share = *domain(one, one.percept), mean(perceptual_share(inversion, one))
        if inversion.distance == "pixels":
            inside = outside = share = MISSING
        ours = error(one), inside, outside, mean(one.in_domain(one.pixel)), share, f"{one.seconds / len(one.labels):.2g}"
        return Row(DISTANCES[inversion.distance], cells(*ours, theirs=theirs))

    columns = (
        *("", "error rate", "in-domain perceptual", "out-of-domain perceptual", "in-domain L2"),
        *(_SHARE, "seconds per image"),
    )
    title = f"Table 3.5: perceptual distances, Enc-D with {run.budget.compared} steps, λ = 10, λ_percept = 10"
    lines = tuple(row(*item) for item in found.items())
    absent = [DISTANCES[name] for name in run.distances if name not in {inversion.distance for inversion in found}]
    notes = (
        _OF_SHARE,
        "Perceptual distances of two rows have different scales. Rows without the thesis's number are ours.",
        *_transformed(run, {inversion.distance for inversion in found}),
        *([f"Not measured: {'; '.join(absent)}."] if absent else []),
    )
    return PaperTable("table-3.5", title, columns, lines, (_about(run, found), _DISTANCES, *notes))


def _transformed(run: Run, shown: Collection[str]) -> Iterator[str]:
    """What the rows of E-LPIPS average, which depends on the networks at hand."""
    titles = [title_of(run.perceptual(name)) for name in ("e-plain", "e-lpips") if name in shown]
    if titles:
        yield f"{' and '.join(titles)}: means over {run.budget.ensembled} transformations."


def imagenette_table(run: Run) -> PaperTable | None:
    """Make Table 3.7."""
    found = finished(run, experiments.imagenette(run)) if "3.7" in run.profile.tables else {}
    rows = tuple(
        Row(
            f"{METHODS[inversion.method]}, {DISTANCES[inversion.distance]}",
            cells(
                accuracy(one),
                mean(perceptual_share(inversion, one)),
                theirs=[printed.IMAGENETTE[inversion.method, inversion.distance]],
            ),
        )
        for inversion, one in found.items()
    )
    columns = ("", "accuracy", _SHARE)
    notes = (_about(run, found), _OF_SHARE, "λ = 1 is ours: the thesis does not say it.") if found else ()
    return PaperTable("table-3.7", "Table 3.7: methods on Imagenette", columns, rows, notes) if found else None


def large_steps_table(run: Run) -> PaperTable | None:
    """Make Table 3.8."""
    found = finished(run, experiments.large_steps(run)) if "3.8" in run.profile.tables else {}
    rows = tuple(
        Row(
            f"{inversion.steps}",
            cells(
                accuracy(one),
                *domain(one, one.percept),
                mean(perceptual_share(inversion, one)),
                theirs=printed.IMAGENETTE_STEPS.get(inversion.steps, ()),
            ),
        )
        for inversion, one in found.items()
    )
    columns = ("steps", "accuracy", "in-domain perceptual", "out-of-domain perceptual", _SHARE)
    notes = (_about(run, found), _DISTANCES, _OF_SHARE) if found else ()
    return PaperTable("table-3.8", "Table 3.8: Enc by steps", columns, rows, notes) if found else None


def elimination_table(run: Run) -> PaperTable | None:
    """Make the table of early elimination: its cost in accuracy and what it saves."""
    rows = list[Row]()
    for inversion, fast in finished(run, eliminated(run)).items():
        known = timing(run, inversion).current
        whole = run.found(replace(inversion, fast=False))
        if whole is None or known is None:
            continue
        test = mcnemar(whole.right.numpy(), fast.right.numpy())
        changed = int((whole.losses.argmin(1) != fast.losses.argmin(1)).sum())
        points = 100 * float(fast.right.float().mean() - whole.right.float().mean())
        seconds = f"{known['whole']:.3g}", f"{known['fast']:.3g}", f"{known['whole'] / known['fast']:.2f}"
        ours = error(whole), error(fast), f"{points:+.1f}", str(changed), probability(test.p_value), *seconds
        rows.append(Row(described(inversion), cells(*ours)))
    columns = (
        *("", "error rate: all classes", "early elimination", "points of accuracy", "changed decisions", "McNemar's p"),
        *("seconds per image: all classes", "early elimination", "times as fast"),
    )
    note = (
        f"{len(run.rows)} images. Seconds: the least of three timings in turn on {min(run.budget.timed, len(run.data))} "
        f"images, {run.budget.together} in one batch."
    )
    return PaperTable("elimination", "Hopeless classes leave early", columns, tuple(rows), (note,)) if rows else None


def _about(run: Run, found: Results) -> str:
    total = max(len(one.labels) for one in found.values())
    where = "" if run.profile.printed else ", on other images: CIFAR10 or Imagenette"
    return (
        f"Rates in percent on {total} images of {run.data.name} ({run.data.split}), with 95 % Wilson intervals; in brackets "
        f"the thesis with its own networks{where}."
    )


def _slips(run: Run) -> Iterator[str]:
    yield from (f"Slip: {slip}." for slip in printed.SLIPS)


def _missing(chosen: Sequence[Inversion], found: Results) -> Iterator[str]:
    left = [inversion.head for inversion in chosen if inversion not in found]
    if left:
        yield f"Not finished: {'; '.join(left)}."
