"""The page of the paper: all tables and figures that the folder of a run has data for."""

from collections.abc import Iterator

from gencls.eval.report.paper.page import Section
from gencls.eval.report.style import NamedFigure
from recipes.mlvgm import analyses, experiments, figures, tables
from recipes.mlvgm.runs import ALPHAS, Run


def sections(run: Run) -> Iterator[Section]:
    """Yield the tables and figures that the folder of the run has data for."""
    random = analyses.random_alphas(run)
    drawn = list(figures.every_figure(run, random))

    def of(section: str, *names: str) -> list[NamedFigure]:
        return [figure for figure in drawn if figure.section == section and (not names or figure.name in names)]

    yield Section("Codes", figures=of("codes"))
    yield Section("Alphas", tables=[tables.alphas_table(run, random)], figures=of("alphas"))
    table = tables.success_table(run, "success-alphas", "Figures 3 to 5 (c) and 17 to 19 in numbers", ALPHAS)
    yield Section("Alphas under attack", tables=[table], figures=of("attacks", "figure-3c"))
    if preprocessed := experiments.preprocessed(run):
        table = tables.success_table(run, "success-preprocessing", "Figures 11 to 13 in numbers", preprocessed)
        yield Section("Preprocessing", tables=[table], figures=of("attacks", "figure-11"))
    compared, best = experiments.compared(run), experiments.chosen(run) or "not known yet"
    table = tables.success_table(run, "success-comparison", "Figures 6 to 8 and 17 to 19 in numbers", compared)
    yield Section("Comparison", f"Best configuration: {best}.", [table], of("attacks", "figure-6"))
    yield Section("Purified images", figures=of("examples"))
    title = "What is optimised, and how it is attacked"
    yield Section(title, tables=[tables.parameters_table(run), tables.attacks_table(run)])
    if examined := tables.doctor_table(run):
        yield Section("Diagnosis", tables=[examined])
