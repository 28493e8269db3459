"""The page of chapter 2: all tables and figures that the folder of a run has data for."""

from collections.abc import Iterator
from pathlib import Path

import pandas

from gencls.eval.report.paper.page import PaperTable, Section
from gencls.eval.report.style import NamedFigure
from recipes.eabs import settings_tables, tables
from recipes.eabs.experiments import ABLATION, BOUNDED
from recipes.eabs.figures import example_figures
from recipes.eabs.runs import Run
from recipes.eabs.settings import FOLDERS
from recipes.harness.folders import read_measured
from recipes.harness.records import begun, records_of


def sections(run: Run) -> Iterator[Section]:
    """Yield the tables and figures that the folder of the run has data for."""
    number = run.profile.table
    if any(begun(folder) for part in FOLDERS for folder in (run.out / part).glob("*")):
        table, right = tables.accuracy_table(run)
        yield Section(f"Table {number}", tables=[table])
        if pairs := list(tables.mcnemar(run, right)):
            text = "Each cell compares two models by the images that only one of them gets right under all attacks."
            yield Section("Paired tests", text, [table for table, _ in pairs], [figure for _, figure in pairs])
    if figures := list(example_figures(run)):
        yield Section("Adversarial examples", figures=figures)
    missing = sorted({run.profile.network(kind) for kind, _ in ABLATION.values() if not run.path(kind).is_file()})
    if ablated := settings_tables.ablation_table(run, tuple(ABLATION), missing):
        yield Section("Table 2.6", tables=[ablated])
    if sweeps := list(_sweeps(run)):
        text = "The attacks' settings are large enough where larger ones change nothing."
        yield Section("Tables 2.7 to 2.9", text, [table for table, _ in sweeps], [figure for _, figure in sweeps])
    written = [(name, run.out / "bound" / name / "bound.json") for name in BOUNDED]
    bounds = [(name, _frame(path)) for name, path in written if path.is_file()]
    absent = [run.profile.network(kind) for kind, _ in map(ABLATION.__getitem__, BOUNDED) if not run.path(kind).is_file()]
    if bounded := settings_tables.bound_table(run, bounds, absent):
        yield Section("Lower bounds", tables=[bounded])


def _frame(path: Path) -> pandas.DataFrame:
    """Read the columns that a file holds, without its key and its checksum."""
    return pandas.DataFrame({name: values for name, values in read_measured(path).items() if name not in ("key", "checksum")})


def _sweeps(run: Run) -> Iterator[tuple[PaperTable, NamedFigure]]:
    """Yield Tables 2.7 to 2.9 with their figures, as far as there are records."""
    budget = run.budget
    by_draws = {draws: records_of(run.out, f"eot/{draws}") for draws in budget.eot_runs}
    by_starts, by_steps = (
        {int(value): rows for value, rows in records.groupby("attack")} if len(records) else {}
        for records in (records_of(run.out, folder) for folder in ("starts", "steps"))
    )
    pgd, restarts = f"PGD with {budget.sweep_steps} steps", f"{budget.sweep_starts} starts"
    found = (
        settings_tables.sweep(
            run, "2.7", "Runs of EoT", by_draws, f"{pgd} from {min(5, budget.sweep_starts)} starts", chosen=budget.eot
        ),
        settings_tables.sweep(run, "2.8", "Random starts", by_starts, f"{pgd}, EoT 3", chosen=budget.attacks.restarts),
        settings_tables.sweep(run, "2.9", "Steps", by_steps, f"PGD from {restarts}, EoT 3", chosen=budget.attacks.pgd_steps),
    )
    yield from filter(None, found)
