"""The tables of robustness: accuracy of all defenses under the same attacks, and the doctor's findings."""

from collections.abc import Iterator, Sequence

import pandas as pd

from gencls.core import GenclsError
from gencls.eval import closest_distances
from gencls.eval.report.formats import MISSING, count, epsilon
from gencls.eval.report.paper.page import Cell, PaperTable, Row
from gencls.eval.threats.protocol import TOLERANCE
from recipes.gan_inversion.robustness import MODES, OURS, patients, trials
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.selection import attacked, best, described, right_of
from recipes.harness.diagnoses import diagnosis_table
from recipes.harness.records import naturally_right, records_of, share, unfinished_notes, warnings_of

__all__ = ["robustness_tables"]

NORMS = {"linf": "L∞", "l2": "L2"}
ATTACKS = {"pgd": "PGD", "transfer": "Transfer from the CNN", "square": "Square", "boundary": "Boundary"}


def robustness_tables(run: Run) -> Iterator[PaperTable]:
    """Yield the tables that the folder of the run has data for."""
    if table := _accuracies(run):
        yield table
        try:
            found = patients(run)
        except GenclsError:  # the page of a run whose attacked setting is not known yet
            found = {}
        if diagnosed := diagnosis_table(f"Diagnosis of the attacked setting, L∞ {epsilon(run.profile.linf)}", found):
            yield diagnosed


def left_right(records: pd.DataFrame, norm: str, size: float, attacks: Sequence[str] = ()) -> pd.Series:
    """Say by sample hash whether every adversarial that these attacks (or all) found in a norm lies farther than the size."""
    rows = records[records["norm"] == norm] if len(records) else records
    if attacks and len(rows):
        rows = rows[rows["attack"].isin([f"{attack}-{norm}" for attack in attacks])]
    return closest_distances(rows) > size + TOLERANCE if len(rows) else pd.Series(dtype=bool)


def _accuracies(run: Run) -> PaperTable | None:
    studies = trials(run)
    models = [OURS, *run.profile.beside]
    folders = {model: {trial.mode: trial.folder for trial in studies if trial.model == model} for model in models}
    found = {model: {mode: records_of(run.out, folder) for mode, folder in by.items()} for model, by in folders.items()}
    every = {model: records_of(run.out, *by.values()) for model, by in folders.items()}
    every = {model: records for model, records in every.items() if len(records)}
    if not every:
        return None
    total = max(records["sample_hash"].nunique() for records in every.values())

    def line(head: str, right: dict[str, pd.Series], *, strong: bool = False) -> list[Row]:
        counts = {len(own) for own in right.values() if len(own)}
        fewer = f", N = {max(counts)}" if counts and max(counts) < total else ""
        cells = tuple(Cell(share(right[model]) if model in right else MISSING) for model in models)
        return [Row(head + fewer, cells, strong=strong)] if counts else []

    rows = line("Clean", {model: naturally_right(records) for model, records in every.items()})
    for norm, size in (("linf", run.profile.linf), ("l2", run.profile.l2)):
        rows.append(Row(f"{NORMS[norm]} attacks (ε = {epsilon(size)})"))
        for attack, name in ATTACKS.items():
            for mode, suffix in MODES.items():
                right = {
                    model: left_right(by[mode], norm, size, (attack,)) for model, by in found.items() if len(by.get(mode, ()))
                }
                rows += line(f"{name}, {suffix}" if suffix else name, right)
        worst = {model: left_right(records, norm, size) for model, records in every.items()}
        rows += line(f"All {NORMS[norm]}", worst, strong=True)
    per_image = {
        model: records.groupby("sample_hash")[["forwards", "backwards"]].sum().mean() for model, records in every.items()
    }
    rows.append(Row("What it cost, attacks and judge together"))
    for kind in ("forwards", "backwards"):
        cells = tuple(Cell(count(round(per_image[model][kind])) if model in every else MISSING) for model in models)
        rows.append(Row(f"{kind.capitalize()} per image", cells))
    minutes = (f"{every[model]['seconds'].sum() / 60:.1f}" if model in every else MISSING for model in models)
    rows.append(Row("Minutes in all", tuple(map(Cell, minutes))))
    names = {f"{model}, {MODES[mode] or mode}": folder for model, by in folders.items() for mode, folder in by.items()}
    return PaperTable(
        "robustness",
        f"Beyond the thesis: accuracy under attack, {run.data.name}",
        ("", *models),
        tuple(rows),
        (
            f"Accuracy in % on the first {total} of the images of the tables, with 95 % Wilson intervals; in the rows “All” "
            "the worst attack and gradient count for each image. Our setting was chosen without attacks, on other images.",
            _setting(run),
            f"Budget: {run.budget.attack}.",
            *unfinished_notes(run.out, names),
            *warnings_of(every),
        ),
    )


def _setting(run: Run) -> str:
    """Say what is attacked, and how much worse it is on the images that chose than the best setting of any number of steps."""
    try:
        ours = attacked(run)
    except GenclsError:
        return f"{OURS}: the setting is not known in this folder."
    said = f"{OURS}: {described(ours)}, the best setting of at most {run.budget.attacked_steps} steps"
    try:
        whole = best(run)
    except GenclsError:
        return f"{said}; candidates of more steps are not finished."
    if ours == whole:
        return f"{said}; none of more steps is better on the images that choose."
    right, most = (right_of(run, one) for one in (ours, whole))
    return (
        f"{said}: each look of an attack is an inversion. It has {right} of the {run.budget.selected} images that choose "
        f"right, and the best of all settings, {described(whole)}, has {most}."
    )
