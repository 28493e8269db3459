"""Tables 4.1 to 4.3, steps and readings, and the two curves in numbers, from the folder of a run.

A sample counts as right if the majority of the judge's draws is right on the image and on every adversarial of the attacks.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from gencls.eval.measures.statistics import McNemar, holm, mcnemar
from gencls.eval.report.formats import MISSING, epsilon, probability
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from recipes.harness.records import (
    naturally_right,
    passes,
    records_of,
    right_under,
    share,
    unfinished,
    unfinished_notes,
    warnings_of,
)
from recipes.variational_smoothing import experiments
from recipes.variational_smoothing.experiments import Variant
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.settings import BASES

ATTACKS = {
    "autoattack": "AutoAttack",
    "autoattack-rand": "AutoAttack, rand",
    "pgd": "PGD",
    "pgd-targeted": "PGD, targeted",
    "square": "Square",
}

PRINTED = {
    ("pretrained", False): (92.5, 20.3),
    ("pretrained", True): (92.8, 30.6),
    ("gaussian", False): (92.7, 64.2),
    ("gaussian", True): (92.7, 72.3),
    ("robust", False): (83.3, 43.2),
    ("robust", True): (82.6, 45.1),
}
"""Tables 4.1 and 4.3: natural and adversarial accuracy in %, CIFAR10, ResNet18."""
PRINTED_SWEEPS: Mapping[str, Mapping[float, float]] = {
    "strength": {1.0: 72.3, 2.0: 36.8, 4.0: 1.4},  # Table 4.2, by multiples of 2/255
    "steps": {1: 72.3, 10: 74.4},  # section 4.4, in words
}


def main_tables(run: Run) -> Iterator[PaperTable]:
    """Table 4.1 (bare models) and Table 4.3 (adversarially trained ones)."""
    for number, kinds in (("4.1", ("pretrained", "gaussian")), ("4.3", ("robust", "combined"))):
        variants = [variant for variant in experiments.main_variants(run) if variant.kind in kinds]
        found = {variant: records_of(run.out, variant.folder) for variant in variants}
        if any(len(records) for records in found.values()):
            yield _main_table(run, number, found)


def _main_table(run: Run, number: str, found: dict[Variant, pd.DataFrame]) -> PaperTable:
    rows = list[Row]()
    size = next(iter(found)).epsilon
    for variant, records in found.items():
        if not len(records):
            continue
        natural, worst = (run.profile.printed and PRINTED.get((variant.kind, variant.inference))) or ("", "")
        cells = [Cell(share(naturally_right(records)), f"{natural}")]
        for attack in ATTACKS:
            met = records["attack"].eq(attack).any()
            theirs = f"{worst}" if attack == "autoattack" else ""
            cells.append(Cell(share(right_under(records, (attack,))) if met else MISSING, theirs))
        cells += [Cell(share(right_under(records))), Cell(passes(records))]
        rows.append(Row(_name(variant), tuple(cells)))
    notes = unfinished_notes(run.out, {_name(variant): variant.folder for variant in found if len(found[variant])})
    notes += [line for kind, line in _comparisons(run).items() if any(variant.kind == kind for variant in found)]
    total = max((records["sample_hash"].nunique() for records in found.values() if len(records)), default=0)
    return PaperTable(
        f"table-{number}",
        f"Table {number}: natural and adversarial accuracy, Linf {epsilon(size)}",
        ("", "natural", *ATTACKS.values(), "all", "passes"),
        tuple(rows),
        (
            f"Accuracy in % on {total} images of {run.data.name} ({run.data.split}), with 95 % Wilson intervals"
            + ("; in brackets the thesis, with its own networks." if run.profile.printed else "."),
            "All: per image the worst attack and gradient mode. Passes of attacks and judge per image: forwards + backwards of "
            "the defense, a draw counts as one; a pass with inference holds many of the base model.",
            f"Budget: {run.budget.spent}.",
            *notes,
            *warnings_of({_name(variant): records for variant, records in found.items() if len(records)}),
        ),
    )


def _name(variant: Variant) -> str:
    return BASES[variant.kind] + (" + inference" if variant.inference else "")


def _comparisons(run: Run) -> Mapping[str, str]:
    """Base model with finished studies -> a note on what inference changes; p-values also by Holm over the base models."""
    variants = experiments.main_variants(run)
    pairs = {kind: [variant.folder for variant in variants if variant.kind == kind] for kind in run.bases}
    found = {kind: [records_of(run.out, folder) for folder in folders] for kind, folders in pairs.items()}
    done = [kind for kind, both in found.items() if all(map(len, both)) and not unfinished(run.out, *pairs[kind])]
    said: dict[str, list[str]] = {kind: [] for kind in done}
    for title, decided in (("natural accuracy", naturally_right), ("under all attacks", right_under)):
        tests = {kind: _paired(*map(decided, found[kind])) for kind in done}
        for (kind, (gain, test)), adjusted in zip(
            tests.items(), holm([test.p_value for _, test in tests.values()]), strict=True
        ):
            said[kind].append(
                f"{title} {gain:+.1f} points, right only without {test.b}, only with {test.c}, McNemar's p = "
                f"{probability(test.p_value)}" + (f", by Holm {probability(float(adjusted))}" if len(done) > 1 else "")
            )
    return {kind: f"Inference around {BASES[kind]} changes {'; '.join(lines)}." for kind, lines in said.items()}


def _paired(without: pd.Series, with_it: pd.Series) -> tuple[float, McNemar]:
    """The points that inference wins, and the test."""
    both = sorted(set(without.index) & set(with_it.index))
    test = mcnemar(without.loc[both].to_numpy(), with_it.loc[both].to_numpy())
    return 100 * float(np.mean(with_it.loc[both]) - np.mean(without.loc[both])), test


def sweep_table(run: Run, part: str) -> PaperTable | None:
    """Make Table 4.2 ("strength"), accuracy and cost of inner steps ("steps"), or of readings of the thesis ("readings")."""
    variants = experiments.sweep_variants(run, part)
    found = {variant: records_of(run.out, variant.folder) for variant in variants}
    found = {variant: records for variant, records in found.items() if len(records)}
    if not found:
        return None
    rows = list[Row]()
    total = max(records["sample_hash"].nunique() for records in found.values())
    printed = PRINTED_SWEEPS.get(part, {}) if compared(run) else {}
    for variant, records in found.items():
        key = variant.epsilon / run.profile.epsilon if part == "strength" else variant.steps
        theirs = f"{printed[key]:g}" if variant.inference and key in printed else ""
        number = records["sample_hash"].nunique()
        cells = (
            Cell(share(naturally_right(records))),
            Cell(share(right_under(records)), theirs),
            Cell(passes(records)),
            Cell(f"{records['seconds'].sum() / number:.2f}"),
        )
        rows.append(Row(_head(part, variant) + (f", N = {number}" if number < total else ""), cells))
    titles = {
        "strength": ("table-4.2", f"Table 4.2: {BASES[run.swept]} as attacks grow"),
        "steps": ("steps", "Steps of the inner optimisation (section 4.4)"),
        "readings": ("readings", "What the thesis leaves open or prints otherwise"),
    }
    name, title = titles[part]
    size = (
        "the radius of the inference grows with the attack"
        if part == "strength"
        else f"Linf {epsilon(run.profile.size(run.swept))}"
    )
    return PaperTable(
        name,
        title,
        ("", "natural", "adversarial", "passes", "seconds per image"),
        tuple(rows),
        (
            f"Accuracy in % on {total} images under PGD on margins ({run.budget.restarts} x {run.budget.pgd} steps) and "
            f"targeted PGD ({run.budget.targets} x {run.budget.pgd}), EoT {run.budget.eot}, in every gradient mode, worst "
            f"counts; {size}." + (" In brackets the thesis, under AutoAttack." if printed else ""),
            *unfinished_notes(run.out, {_head(part, variant): variant.folder for variant in found}),
            *warnings_of({_head(part, variant): records for variant, records in found.items()}),
        ),
    )


def _head(part: str, variant: Variant) -> str:
    if part == "strength":
        return f"{epsilon(variant.epsilon)}{' + inference' if variant.inference else ''}"
    return str(variant.steps) if part == "steps" else variant.reading


def compared(run: Run) -> bool:
    """Whether the thesis's numbers belong beside those of the sweeps."""
    return run.profile.printed and run.swept == "gaussian"
