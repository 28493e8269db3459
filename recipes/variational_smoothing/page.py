"""The page of chapter 4: all tables and curves that the folder of a run has data for."""

from collections.abc import Iterator

from gencls.eval.report.paper.page import Section
from recipes.harness.diagnoses import diagnosis_table
from recipes.variational_smoothing import experiments, figures, tables
from recipes.variational_smoothing.runs import Run
from recipes.variational_smoothing.survivors import survivor_table


def sections(run: Run) -> Iterator[Section]:
    """Yield the tables and figures that the folder of the run has data for."""
    for table in tables.main_tables(run):
        yield Section(table.title.split(":")[0], tables=[table])
    if left := survivor_table(run):
        yield Section("Attacked harder", tables=[left])
    for part in ("strength", "steps", "readings"):
        if swept := tables.sweep_table(run, part):
            drawn = list(figures.steps_figure(run)) if part == "steps" else []
            yield Section(swept.title.split(":")[0], tables=[swept], figures=drawn)
    if curves := figures.certified_curves(run):
        yield Section("Randomized smoothing", tables=[curves[0]], figures=[curves[1]])
    if diagnosed := diagnosis_table("Diagnosis of each defense, at the size of its attacks", experiments.diagnoses(run)):
        yield Section("Diagnosis", tables=[diagnosed])
