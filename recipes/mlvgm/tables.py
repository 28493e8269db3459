"""The tables: what has to be optimised, the attacks' settings, success rates, clean accuracies, the doctor's findings."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from gencls.eval import closest_distances
from gencls.eval.report.formats import MISSING, percent
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from gencls.eval.threats.protocol import TOLERANCE
from recipes.harness.diagnoses import diagnosis_table
from recipes.harness.folders import read_measured
from recipes.harness.records import Share, passes, records_of, unfinished_notes, warnings_of
from recipes.mlvgm import analyses, experiments
from recipes.mlvgm.figures import ATTACKS, pearson
from recipes.mlvgm.runs import Run

PRINTED_PEARSON = {"gender": 0.267, "identities": 0.607, "cars": 0.211}
"""Pearson's coefficients as figures 3 to 5 (a) print them."""

# Table 1; the paper averages over its tasks.
_PRINTED_PARAMETERS = {"TRADES": "10^7", "A-VAE": "10^7", "ND-VAE": "10^6", "ours with BO": "10^1", "ours without BO": "0"}

# Tables 2 and 3 of the supplement.
_PRINTED_ATTACKS = {
    "DeepFool: classes": (2, 8, 4),
    "DeepFool: overshoot": (0.01, 0.02, 0.02),
    "DeepFool: steps": (1024, 128, 256),
    "C&W: first constant": (64, 16, 24),
    "C&W: confidence": (0.01, 0.05, 0.02),
    "C&W: steps": (1024, 1024, 1024),
    "C&W: restarts": (8, 8, 8),
    "C&W: learning rate": (1e-3, 5e-3, 2e-3),
}


def parameters_table(run: Run) -> PaperTable:
    """Make Table 1: numbers of parameters to optimise."""
    counts: dict[str, int] = {}
    for name in ("TRADES", "A-VAE", "ND-VAE"):
        if name in run.profile.baselines:
            learned = (run.transform(name) or run.defense(name)).parameters()
            counts[name] = sum(parameter.numel() for parameter in learned)
    counts |= {"ours with BO": run.generator.num_levels, "ours without BO": 0}
    rows = []
    for name, number in counts.items():
        magnitude = f"10^{round(math.log10(number))}" if number else "0"
        rows.append(Row(name, (Cell(f"{number:,}"), Cell(magnitude), Cell(_PRINTED_PARAMETERS[name]))))
    return PaperTable(
        "table-1",
        "Table 1: parameters that need to be optimised",
        ("", "parameters", "order of magnitude", "paper, averaged over its tasks"),
        tuple(rows),
        ("Without what the method takes as it is: the classifier of A-VAE and ND-VAE, classifier and generator of ours.",),
    )


def attacks_table(run: Run) -> PaperTable:
    """Make tables 2 and 3 of the supplement: the attacks' settings, beside those on the paper's tasks."""
    profile, budget = run.profile, run.budget
    ours = {
        "DeepFool: classes": min(profile.candidates, run.data.num_classes),
        "DeepFool: overshoot": profile.overshoot,
        "DeepFool: steps": budget.deepfool or profile.deepfool,
        "C&W: first constant": profile.constant,
        "C&W: confidence": profile.confidence,
        "C&W: steps": budget.cw_steps,
        "C&W: restarts": budget.cw_restarts,
        "C&W: learning rate": profile.rate * budget.cw_rate,
    }
    rows = [Row(name, tuple(Cell(f"{value:g}") for value in (here, *_PRINTED_ATTACKS[name]))) for name, here in ours.items()]
    columns = ("", "here", "paper: gender", "paper: identities", "paper: cars")
    return PaperTable("table-2-3", "Tables 2 and 3 of the supplement: settings of the attacks", columns, tuple(rows))


def alphas_table(run: Run, random: pd.DataFrame | None) -> PaperTable:
    """Put figures 3 to 5 (a, b) into numbers: the search, and the correlation of monotonicity and accuracy."""
    rows, notes = [], []
    path = run.out / "learned.json"
    if path.is_file():
        search = read_measured(path)
        index, spearman = (analyses.monotonicity(search["alphas"], printed=printed) for printed in (True, False))
        rows += [
            Row("measurements", (Cell(str(search["measurements"])), Cell("100"))),
            Row("FGSM images", (Cell(str(search["images"])), Cell("1024 (code)"))),
            Row("accuracy of the learned alphas there", (Cell(percent(search["value"])), Cell())),
            Row("the optimiser's share of the time", (Cell(percent(search["optimiser_share"])), Cell())),
            Row("their Spearman index: eq. 6 as printed, with its factor", (Cell(f"{index:.3f}, {spearman:.3f}"), Cell())),
        ]
        levels = analyses.class_levels(search["alphas"])
        kept, other = analyses.whose_class(run, levels)
        rows.append(
            Row(
                "mixed images with the class of the class codes, of the details",
                (Cell(f"{percent(kept)}, {percent(other)}"), Cell()),
            )
        )
        if run.as_ == "code":
            notes.append("The base model gets all of these FGSM images wrong: they were chosen so.")
        notes.append(f"Class codes: levels {', '.join(map(str, levels))}; images are mixed as in figures 9 and 10.")
        notes.append("Learned alphas: " + " ".join(f"{alpha:.3f}" for alpha in search["alphas"]) + ".")
    if random is not None:
        coefficient, p_value = pearson(random)
        printed = ", ".join(f"{value} ({task})" for task, value in PRINTED_PEARSON.items())
        rows += [
            Row("random alphas", (Cell(str(len(random))), Cell("512"))),
            Row("Pearson of Spearman's index and accuracy", (Cell(f"{coefficient:.3f} (p = {p_value:.1g})"), Cell(printed))),
            Row("accuracy of the best random alphas", (Cell(percent(random["accuracy"].max())), Cell())),
            Row("mean accuracy of random alphas", (Cell(percent(random["accuracy"].mean())), Cell())),
        ]
        notes.append(
            f"Random alphas: at most {run.budget.random_images} images, {run.budget.random_samples} draws each. Eq. 6 lacks "
            "the factor 6 of Spearman's coefficient; that changes its scale and not Pearson's coefficient."
        )
    return PaperTable("alphas", "Figures 3 to 5 (a, b) in numbers", ("", "here", "paper"), tuple(rows), tuple(notes))


def success_table(run: Run, name: str, title: str, defenses: Sequence[str]) -> PaperTable:
    """Make a table of success rates: all attacks together at the profile's sizes, single attacks at a size that all ran at."""
    sizes, attacked = run.profile.sizes, run.budget.attacked(run.profile)
    middle = attacked[(len(attacked) - 1) // 2]
    rows, missing = list[Row](), list[str]()
    for defense in defenses:
        records, smoothed = (experiments.records(run, defense, smoothed=smoothed) for smoothed in (False, True))
        unknown = defense.startswith("learned") and run.learned is None
        clean = None if unknown else analyses.clean_accuracy(run, defense).current
        known = f"{percent(clean['mean'])}, {percent(clean['single'])}" if clean else MISSING
        cells = [Cell(known)]
        cells += [Cell(_rate(records, size)) for size in sizes]
        cells += [
            Cell(_rate(records[records["attack"].str.startswith(key)], middle)) if len(records) else Cell() for key in ATTACKS
        ]
        # all of our attacks only if both studies are there: one alone would pass for the worst of both
        both = _all_records(run, defense) if len(records) and len(smoothed) else pd.DataFrame()
        cells += [Cell(_rate(smoothed, middle)), Cell(_rate(both, middle))]
        cells.append(Cell(passes(records) if len(records) else MISSING))
        number = records["sample_hash"].nunique() if len(records) else 0
        fewer = f", N = {number}" if 0 < number < run.budget.count else ""
        rows.append(Row(defense + fewer, tuple(cells)))
        folders = {defense: experiments.folder_of(defense)}
        folders[f"{defense}, smoothed gradients"] = experiments.folder_of(defense, smoothed=True)
        missing += unfinished_notes(run.out, folders)
    columns = (
        "",
        "clean accuracy",
        *(f"all, {size:g}" for size in sizes),
        *(f"{attack}, {middle:g}" for attack in ATTACKS.values()),
        f"smoothed PGD, {middle:g}",
        f"ours too, {middle:g}",
        "passes",
    )
    notes = (
        "Success rates in % within an L2 size (the lower the better), of all attacks of the paper and of single ones, "
        f"N = {run.budget.count}, with 95 % Wilson intervals; verified by the judge's majority on fresh draws, errors on clean "
        "images included (eq. 5). Ours too: with PGD along gradients averaged over noise, which the paper does not have.",
        "Passes per image of the paper's attacks: forwards + backwards, a draw counts as one.",
        f"Budget: {run.budget.spent_on(run.profile)}.",
        f"Clean accuracy on {min(run.budget.clean, len(run.data))} test images: of the mean scores of {run.budget.eot} draws, "
        "the paper's ensemble, and of one draw.",
        "Between the sizes at which AutoAttack attacks its rates, and those of all attacks, are lower bounds.",
        *_choice(run, defenses),
        *missing,
        *warnings_of({defense: _all_records(run, defense) for defense in defenses}),
    )
    return PaperTable(name, title, columns, tuple(rows), notes)


def _all_records(run: Run, defense: str) -> pd.DataFrame:
    return records_of(run.out, *(experiments.folder_of(defense, smoothed=smoothed) for smoothed in (False, True)))


def _choice(run: Run, defenses: Sequence[str]) -> Iterator[str]:
    """Say how our best configuration was found, if it is in the table."""
    ours = experiments.chosen(run)
    if ours in defenses:
        least = run.profile.least_clean
        clean = f", among those that keep {100 * least:g} % clean accuracy, if any does" if least else ""
        yield (
            f"Best configuration: {ours}. The alphas, then their preprocessing, with the lowest success rate of all attacks, "
            f"averaged over sizes from 0 to {run.profile.sizes[-1]:g}{clean}; chosen on the attacked images themselves."
        )


def _rate(records: pd.DataFrame, size: float) -> str:
    if not len(records):
        return MISSING
    distances = closest_distances(records)
    return Share(int((distances <= size + TOLERANCE).sum()), len(distances)).rounded


def doctor_table(run: Run) -> PaperTable | None:
    """Make a table of the doctor's conclusions on each examined defense, with the findings that are not plainly good."""
    title = f"Diagnosis of each defense, L2 {run.profile.sizes[len(run.profile.sizes) // 2]:g}"
    names = [name for name in experiments.every(run) if not name.startswith("learned") or run.learned is not None]
    return diagnosis_table(title, experiments.diagnoses(run, names))
