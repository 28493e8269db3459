"""The page of chapter 3: all tables and figures that the folder of a run has data for."""

from collections.abc import Iterable, Iterator

from gencls.eval.report.paper.page import PaperTable, Section
from gencls.eval.report.style import NamedFigure
from recipes.gan_inversion import attack_tables, claims, domain_tables, figures, grids, selection, tables
from recipes.gan_inversion.runs import Run


def sections(run: Run) -> Iterator[Section]:
    """Yield the sections that have something to show."""
    drawn = list(grids.grids(run))
    main = (
        "3.1" in run.profile.tables
    )  # Table 3.7 has inversions of the same names, which the thesis's CIFAR10 numbers do not fit
    made: list[tuple[str, str, Iterable[PaperTable | None], Iterable[NamedFigure]]] = [
        ("Claims", "", [claims.claims_table(run)] if main else [], ()),
        (
            "Tables 3.1 and 3.6",
            "",
            [tables.inversion_table(run), tables.robust_table(run)] if main else [],
            figures.trade_off(run) if main else (),
        ),
        ("Table 3.2", "", [tables.steps_table(run)], figures.steps_figure(run)),
        ("Table 3.3", "", [domain_tables.domain_table(run)], ()),
        (
            "Table 3.4",
            "Two optimal codes of one image, and the line between them.",
            [domain_tables.interpolation_table(run)],
            [*figures.interpolation_figure(run), *_of(drawn, "interpolation")],
        ),
        ("Table 3.5", "", [tables.distances_table(run)], ()),
        ("Tables 3.7 and 3.8", "", [tables.imagenette_table(run), tables.large_steps_table(run)], ()),
        ("Optimal codes", "", (), figures.codes_figure(run) if main else ()),
        ("Reconstructions", "", (), _of(drawn, "examples")),
        ("The best setting", "", [selection.selection_table(run)] if main else [], ()),
        ("Early elimination", "", [tables.elimination_table(run)], ()),
        ("Robustness", "", attack_tables.robustness_tables(run), ()),
    ]
    for title, text, found, shown in made:
        section = Section(title, text, [table for table in found if table], list(shown))
        if section.tables or section.figures:
            yield section


def _of(drawn: list[NamedFigure], section: str) -> list[NamedFigure]:
    return [figure for figure in drawn if figure.section == section]
