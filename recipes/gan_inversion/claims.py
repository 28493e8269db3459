"""The chapter's claims in numbers: in how many pairs of settings each holds, ours beside the thesis's."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from gencls.eval.measures.statistics import holm, mcnemar
from gencls.eval.report.formats import MISSING
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.gan_inversion import experiments, printed
from recipes.gan_inversion.domain_tables import correlated
from recipes.gan_inversion.inversions import Found
from recipes.gan_inversion.printed import Setting
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import DISTANCES, METHODS, REGULAR
from recipes.gan_inversion.tables import finished

__all__ = ["Claim", "claims", "claims_table", "closer", "fewer_errors"]

_LEVEL = 0.05

S = TypeVar("S", bound=Hashable)

Test = Callable[[Found, Found], tuple[float, float]]
"""Two results on the same images -> how much the first is ahead, and the p-value of no difference."""


@dataclass(frozen=True)
class Claim:
    """The first setting of each pair should be ahead of the second.

    Attributes:
        text: the claim.
        pairs: our results.
        test: how two of them are compared.
        theirs: the thesis's values of both, of which the first should be lower.
    """

    text: str
    pairs: Sequence[tuple[Found, Found]]
    test: Test
    theirs: Sequence[tuple[float, float]] = ()

    @property
    def row(self) -> Row:
        """In how many pairs it holds or both are equal; in how many it or its opposite is significant (Holm's correction)."""
        ahead, p_values = zip(*(self.test(*pair) for pair in self.pairs), strict=True)
        sure = [p < _LEVEL for p in holm(p_values)]
        right = [sum(a > 0 for a in ahead), sum(a > 0 and b for a, b in zip(ahead, sure, strict=True))]
        wrong = sum(a < 0 and b for a, b in zip(ahead, sure, strict=True))
        equal = sum(a == 0 for a in ahead)
        theirs = f"{sum(first < second for first, second in self.theirs)} of {len(self.theirs)}" if self.theirs else MISSING
        return Row(self.text, tuple(map(Cell, (f"{right[0]} of {len(ahead)}", str(equal), str(right[1]), str(wrong), theirs))))


def fewer_errors(first: Found, second: Found) -> tuple[float, float]:
    """Compare error rates by McNemar's exact test."""
    test = mcnemar(first.right.numpy(), second.right.numpy())
    return float(test.b - test.c), float(test.p_value)


def closer(first: Found, second: Found) -> tuple[float, float]:
    """Compare in-domain perceptual distances by Wilcoxon's test of signed ranks: their mean is ahead, and its p-value."""
    from scipy.stats import rankdata, wilcoxon

    difference = (second.in_domain(second.percept) - first.in_domain(first.percept)).double().numpy()
    moved = difference[difference != 0]
    if not moved.size:
        return 0.0, 1.0
    return float((rankdata(abs(moved)) * np.sign(moved)).mean()), float(wilcoxon(difference).pvalue)


def claims(run: Run) -> Iterator[Claim]:
    """Yield the claims of section 3.4 for which the folder of the run has at least one pair."""
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
            return _claim(f"{text}: {name}", settings, found, theirs, fewer_errors)

        yield claim("a larger λ errs less", [((m, b), (m, a)) for m in METHODS for a, b in pairwise(weights)])
        for better, worse in (("enc-d", "enc"), ("enc", "direct"), ("enc-d", "direct")):
            both = [((better + plus, w), (worse + plus, w)) for plus in ("", "+") for w in weights]
            yield claim(f"{METHODS[better]} errs less than {METHODS[worse]}", both)
        plain = [((m, w), (f"{m}+", w)) for m in REGULAR for w in weights]
        yield claim("overparameterised methods err more", plain)
        distances = {setting: values[2] for setting, values in printed.INVERSION.items()} if distance == "plain" else {}
        turned = [(second, first) for first, second in plain]
        yield _claim(f"overparameterised methods reconstruct better: {name}", turned, found, distances, closer)
    steps = {one.steps: found for one, found in finished(run, experiments.steps(run)).items()}
    by_steps = {steps: values[0] for steps, values in printed.STEPS.items()}
    yield _claim("more steps err more", pairwise(sorted(steps)), steps, by_steps, fewer_errors)
    if len(grids) == 2:
        joined = {(i, setting): found for i, grid in enumerate(grids) for setting, found in grid.items()}
        rates = {(i, setting): values[1 - i] for setting, values in printed.ROBUST.items() for i in (0, 1)}
        same = [((1, (m, w)), (0, (m, w))) for m in METHODS for w in weights]
        text = f"{DISTANCES[run.profile.main[1]]} errs less than {DISTANCES[run.profile.main[0]]}"
        yield _claim(text, same, joined, rates, fewer_errors)


def _claim(
    text: str,
    settings: Iterable[tuple[S, S]],
    found: Mapping[S, Found],
    theirs: Mapping[S, float],
    test: Test,
) -> Claim:
    both = list(settings)
    ours = [(found[first], found[second]) for first, second in both if first in found and second in found]
    return Claim(text, ours, test, [(theirs[a], theirs[b]) for a, b in both if a in theirs and b in theirs])


def claims_table(run: Run) -> PaperTable | None:
    """Make the table of the claims."""
    rows = tuple(claim.row for claim in claims(run))
    columns = ("pairs of settings", "holds", "equal", "significantly", "significant opposites", "thesis")
    notes = (
        "Error rates by McNemar's exact tests, distances by Wilcoxon's, on the same images; significant: p < .05 by Holm's "
        "correction over the pairs of the row.",
        *_trade_offs(run),
    )
    return PaperTable("claims", "Claims of section 3.4", columns, rows, notes) if rows else None


def _trade_offs(run: Run) -> Iterator[str]:
    for distance in run.profile.main:
        found = finished(run, experiments.main_settings(run, distance)).values()
        errors = [float((~one.right).float().mean()) for one in found]
        places = [float(one.in_domain(one.percept).mean()) for one in found]
        if errors:
            yield (
                f"Correlation of error rate and in-domain perceptual distance over {len(errors)} settings, "
                f"{DISTANCES[distance]}: {correlated(errors, places)}. All settings share their images, so p is a rough guide."
            )
    theirs = correlated(
        [values[0] for values in printed.INVERSION.values()], [values[2] for values in printed.INVERSION.values()]
    )
    yield f"In Table 3.1 of the thesis: {theirs}."
