"""The chapter's claims in numbers: what was measured, with its interval, and in how many pairs of settings each holds."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from torch import Tensor

from gencls.eval.measures.statistics import holm, mcnemar
from gencls.eval.report.formats import MISSING
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.distances import averaged
from recipes.gan_inversion.domain_tables import domain_correlations, peaks, printed_correlation
from recipes.gan_inversion.intervals import Correlation, Estimate, correlation, excess, mean_estimate, means
from recipes.gan_inversion.inversions import Found
from recipes.gan_inversion.printed import Setting
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES, METHODS, REGULAR
from recipes.gan_inversion.tables import finished, perceptual_share

__all__ = ["CLOSER", "FEWER_ERRORS", "Claim", "Comparison", "claims", "claims_table"]

_LEVEL = 0.05

_PAIRS = ("pairs that hold", "equal", "significantly", "significant opposites")

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """How two results on the same images are compared.

    Attributes:
        values: what counts, (N,) of a result; less is better.
        test: two results -> how much the first is ahead, and the p-value of no difference.
        form: how a mean difference is written.
        unit: unit of the differences, for the table.
    """

    values: Callable[[Found], Tensor]
    test: Callable[[Found, Found], tuple[float, float]]
    form: str
    unit: str


@dataclass(frozen=True)
class Claim:
    """The first setting of each pair should be ahead of the second.

    Attributes:
        text: the claim.
        pairs: our results.
        comparison: how two of them are compared.
        theirs: the thesis's values of both, of which the first should be lower.
    """

    text: str
    pairs: Sequence[tuple[Found, Found]]
    comparison: Comparison
    theirs: Sequence[tuple[float, float]] = ()

    @property
    def estimate(self) -> Estimate:
        """How much lower the first of a pair is: the mean over pairs and images, with a bootstrap over the images."""
        values = self.comparison.values
        return mean_estimate(
            np.mean([(values(second) - values(first)).double().numpy() for first, second in self.pairs], axis=0)
        )

    @property
    def row(self) -> Row:
        """The mean difference; in how many pairs it holds or both are equal; in how many it or its opposite is significant."""
        ahead, p_values = zip(*(self.comparison.test(*pair) for pair in self.pairs), strict=True)
        sure = [p < _LEVEL for p in holm(p_values)]
        right = [sum(a > 0 for a in ahead), sum(a > 0 and b for a, b in zip(ahead, sure, strict=True))]
        wrong = sum(a < 0 and b for a, b in zip(ahead, sure, strict=True))
        equal = sum(a == 0 for a in ahead)
        measured = f"{self.estimate.text(self.comparison.form)} {self.comparison.unit}"
        counts = f"{right[0]} of {len(ahead)}", str(equal), str(right[1]), str(wrong)
        verdict = self.estimate.verdict
        if {"holds": wrong, "does not hold": right[1]}.get(verdict):  # some pairs surely go the other way
            verdict += " on average"
        return _row(self.text, measured, verdict, self._theirs, counts)

    @property
    def _theirs(self) -> str:
        if not self.theirs:
            return MISSING
        difference = sum(second - first for first, second in self.theirs) / len(self.theirs)
        held = sum(first < second for first, second in self.theirs)
        return f"{difference:+.1f} {self.comparison.unit}; {held} of {len(self.theirs)}"


def _row(
    text: str, measured: str, verdict: str, theirs: str = MISSING, counts: Sequence[str] = (MISSING,) * len(_PAIRS)
) -> Row:
    return Row(text, tuple(map(Cell, (measured, verdict, *counts, theirs))))


def _fewer_errors(first: Found, second: Found) -> tuple[float, float]:
    """McNemar's exact test of the error rates."""
    test = mcnemar(first.right.numpy(), second.right.numpy())
    return float(test.b - test.c), float(test.p_value)


def _closer(first: Found, second: Found) -> tuple[float, float]:
    """Wilcoxon's test of signed ranks of the in-domain perceptual distances: their mean is ahead, and its p-value."""
    from scipy.stats import rankdata, wilcoxon

    difference = (_inside(second) - _inside(first)).double().numpy()
    moved = difference[difference != 0]
    if not moved.size:
        return 0.0, 1.0
    return float((rankdata(abs(moved)) * np.sign(moved)).mean()), float(wilcoxon(difference).pvalue)


def _inside(found: Found) -> Tensor:
    return found.in_domain(found.percept)


def _outside(found: Found) -> Tensor:
    return found.out_of_domain(found.percept)


FEWER_ERRORS = Comparison(lambda found: 100.0 * ~found.right, _fewer_errors, "+.1f", "points")
CLOSER = Comparison(_inside, _closer, "+.3g", "of distance")


def claims(run: Run) -> Iterator[Claim]:
    """Yield the claims of section 3.4 about pairs of settings, of which the folder of the run has at least one."""
    return (claim for claim in _claims(run) if claim.pairs)


def _claims(run: Run) -> Iterator[Claim]:
    weights, tables = sorted(run.budget.weights), (printed.INVERSION, printed.ROBUST)
    grids = [
        {(one.method, one.weight): found for one, found in finished(run, experiments.main_settings(run, distance)).items()}
        for distance in run.profile.main
    ]
    errors = [{setting: values[0] for setting, values in table.items()} for table in tables]
    for distance, found, theirs in zip(run.profile.main, grids, errors, strict=False):
        name = DISTANCES[distance]

        def claim(
            text: str,
            settings: Iterable[tuple[Setting, Setting]],
            found: Mapping[Setting, Found] = found,
            theirs: Mapping[Setting, float] = theirs,
            name: str = name,
        ) -> Claim:
            return _claim(f"{text}: {name}", settings, found, theirs, FEWER_ERRORS)

        distances = {setting: values[2] for setting, values in printed.INVERSION.items()} if distance == "plain" else {}
        larger = [((m, b), (m, a)) for m in METHODS for a, b in pairwise(weights)]
        yield claim("a larger λ errs less", larger)
        yield _claim(f"a smaller λ reconstructs better: {name}", _turned(larger), found, distances, CLOSER)
        for better, worse in (("enc-d", "enc"), ("enc", "direct"), ("enc-d", "direct")):
            both = [((better + plus, w), (worse + plus, w)) for plus in ("", "+") for w in weights]
            yield claim(f"{METHODS[better]} errs less than {METHODS[worse]}", both)
        plain = [((m, w), (f"{m}+", w)) for m in REGULAR for w in weights]
        yield claim("overparameterised methods err more", plain)
        yield _claim(f"overparameterised methods reconstruct better: {name}", _turned(plain), found, distances, CLOSER)
    steps = {one.steps: found for one, found in finished(run, experiments.steps(run)).items()}
    more = [*pairwise(sorted(steps))]
    for text, pairs, i, comparison in (
        ("more steps err more", more, 0, FEWER_ERRORS),
        ("more steps reconstruct better", _turned(more), 1, CLOSER),
    ):
        by_steps = {count: values[i] for count, values in printed.STEPS.items()}
        yield _claim(f"{text}: {DISTANCES[run.profile.main[-1]]}", pairs, steps, by_steps, comparison)
    if len(grids) == 2:
        joined = {(i, setting): found for i, grid in enumerate(grids) for setting, found in grid.items()}
        rates = {(i, setting): values[1 - i] for setting, values in printed.ROBUST.items() for i in (0, 1)}
        same = [((1, (m, w)), (0, (m, w))) for m in METHODS for w in weights]
        text = f"{DISTANCES[run.profile.main[1]]} errs less than {DISTANCES[run.profile.main[0]]}"
        yield _claim(text, same, joined, rates, FEWER_ERRORS)
    yield from _of_distances(run)


def _of_distances(run: Run) -> Iterator[Claim]:
    """The claims about the distances of Table 3.5: does it help to average over transformations, or to train otherwise?"""
    found = {one.distance: result for one, result in finished(run, experiments.comparison(run)).items()}
    transformed = [(name, averaged(run.profile, name, run.weights)) for name in ("e-plain", "e-lpips")]
    for better, worse in (*transformed, ("linf", "plain"), ("corruptions", "plain"), ("contrastive", "corruptions")):
        text = f"{DISTANCES[better]} errs less than {DISTANCES[worse]}: Table 3.5"
        yield _claim(text, [(better, worse)], found, printed.DISTANCES, FEWER_ERRORS)


def _of_shares(run: Run) -> Iterator[str]:
    """The caveat of the claim about E-LPIPS: how much of the D of both rows is perceptual."""
    found = {one.distance: (one, result) for one, result in finished(run, experiments.comparison(run)).items()}
    both = "e-lpips", averaged(run.profile, "e-lpips", run.weights)
    if all(name in found for name in both):
        names = [DISTANCES[name] for name in both]
        shares = [f"{float(perceptual_share(*found[name]).mean()):.2g} %" for name in both]
        yield (
            f"{names[0]} and {names[1]} average over places, while D sums pixels: {shares[0]} and {shares[1]} of D are "
            f"perceptual (Table 3.5). With a few percent the row “{names[0]} errs less than {names[1]}” says little about "
            "these distances."
        )


def _turned(pairs: Iterable[tuple[S, S]]) -> list[tuple[S, S]]:
    return [(second, first) for first, second in pairs]


def _claim(
    text: str,
    settings: Iterable[tuple[S, S]],
    found: Mapping[S, Found],
    theirs: Mapping[S, float],
    comparison: Comparison,
) -> Claim:
    both = list(settings)
    ours = [(found[first], found[second]) for first, second in both if first in found and second in found]
    return Claim(text, ours, comparison, [(theirs[a], theirs[b]) for a, b in both if a in theirs and b in theirs])


def _correlated(run: Run) -> Iterator[Row]:
    """The claims about all settings together: the error rate beside distances of reconstructions, and beside gaps of sets."""
    values = list(printed.INVERSION.values())
    theirs = correlation([one[0] for one in values], [one[2] for one in values]).turned
    for distance in run.profile.main:
        found = list(finished(run, experiments.main_settings(run, distance)).values())
        errors = means([~one.right for one in found]) if found else None
        for side, places in (("in", _inside), ("out of", _outside)):
            if errors is not None:
                place = means([places(one) for one in found])
                known = distance == "plain" and side == "in"
                text = f"reconstructions closer {side} domain go with more errors: {DISTANCES[distance]}"
                ours = correlation(errors[0], place[0], (errors[1], place[1])).turned
                yield from _over_settings(text, ours, theirs if known else None)
    for name, one in domain_correlations(run).items():
        text = f"a larger gap of {name}, out of domain minus in domain, goes with more errors: {DISTANCES[run.profile.main[0]]}"
        yield from _over_settings(text, one, printed_correlation() if name == "FID" else None)


def _over_settings(text: str, ours: Correlation, theirs: Correlation | None) -> Iterator[Row]:
    if ours.known:
        yield _row(text, f"{ours.text()}; {ours.count} settings", ours.verdict, theirs.text() if theirs else MISSING)


def _overfitted(run: Run) -> Iterator[Row]:
    """The claim of Table 3.4 and Figure 3.10: the ends of a line overfit plain features more than robust ones."""
    found = peaks(run)
    if len(found) < 2:
        return
    (plain, first), (robust, second) = (found[distance] for distance in run.profile.main)
    with np.errstate(invalid="ignore"):
        difference = Estimate.corrected(plain.value - robust.value, first - second)
    lines = [printed.INTERPOLATION[distance] for distance in run.profile.main]
    theirs = [excess(one["mean"], one["reference"][0]) for one in lines]
    names = [DISTANCES[distance] for distance in run.profile.main]
    yield _row(
        f"between two optimal codes the distance rises further towards the one out of domain: {names[0]} than {names[1]}",
        f"{difference.text('+.2f')} of the way: {plain.text('.2f')} against {robust.text('.2f')}",
        difference.verdict,
        f"{theirs[0] - theirs[1]:+.2f} of the way: {theirs[0]:.2f} against {theirs[1]:.2f}",
    )


def claims_table(run: Run) -> PaperTable | None:
    """Make the table of the claims."""
    rows = (*(claim.row for claim in claims(run)), *_correlated(run), *_overfitted(run))
    columns = ("", "measured, with its 95 % interval", "verdict", *_PAIRS, "thesis")
    notes = (
        f"All on the same {len(run.rows)} images. Intervals are percentiles of 2,000 bootstrap resamples of the images, the "
        "same ones for all settings; networks and settings are not resampled. Those of correlations and peaks are "
        "bias-corrected, since noise moves these to one side. A claim holds if its whole interval lies above 0 (both intervals "
        "of a correlation), and does not hold if it lies below; otherwise it is open. “On average”: at least one pair "
        "significantly goes the other way. Nothing corrects for the number of rows: of twenty claims with nothing behind them, "
        "about one would not be open.",
        "Error rates: the mean difference over the pairs of settings, in points of percent. Reconstructions: the mean "
        "difference of in-domain perceptual distances (eq. 3.6). A positive value bears the claim out.",
        "Pairs of settings: McNemar's exact tests of error rates, Wilcoxon's of distances; significant: p < .05 by Holm's "
        "correction over the pairs of the row.",
        "Correlations with the error rate are over settings; those of distances have their sign turned, so that a positive "
        "value bears the claim out. Of the way: from the mean distance at the ends of the line (0) to the mean distance out of "
        "domain (1), see Table 3.4.",
        *_of_shares(run),
        "The thesis's column is made of its printed tables, on CIFAR10.",
    )
    return PaperTable("claims", "Claims of section 3.4", columns, rows, notes) if rows else None
