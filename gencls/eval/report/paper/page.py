"""Tables in the form of a paper, our numbers beside theirs: each in Markdown and LaTeX, all on one HTML page with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from gencls.core.errors import GenclsError
from gencls.core.files import atomically
from gencls.eval.measures.names import file_name
from gencls.eval.report.formats import MISSING
from gencls.eval.report.latex import HEAD, escape
from gencls.eval.report.latex import table as latex_table
from gencls.eval.report.style import NamedFigure


@dataclass(frozen=True)
class Cell:
    """A value of ours beside the paper's.

    Args:
        ours: our measured value, as text.
        theirs: the value that the paper prints, as text; empty if it prints none.
    """

    ours: str = MISSING
    theirs: str = ""

    @property
    def text(self) -> str:
        """Our value, with the paper's in brackets."""
        return f"{self.ours} ({self.theirs})" if self.theirs else self.ours


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        head: the line's heading.
        cells: one per column; none makes a subheading.
        strong: whether the line sums up the lines above it.
    """

    head: str
    cells: tuple[Cell, ...] = ()
    strong: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Args:
        name: stem of the file names, such as "table-2.2".
        title: the table's number and caption.
        columns: the headings; the first stands above the row heads.
        rows: the lines from top to bottom.
        notes: sentences below the table.

    Raises:
        GenclsError: a row's number of cells differs from the number of columns.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.cells and len(row.cells) != len(self.columns) - 1:
                raise GenclsError(f"{self.name}: expected {len(self.columns) - 1} cells in {row.head!r}, got {len(row.cells)}")

    def markdown(self, banner: str = "") -> str:
        """Write the table as GitHub's Markdown, title above and notes below; a banner stands before all."""
        lines = [f"> **{_plain(banner)}**", ""] if banner else []
        lines += [f"**{_plain(self.title)}**", ""]
        lines += [_line(self.columns), "|---" * len(self.columns) + "|"]
        for row in self.rows:
            words = [row.head, *(cell.text for cell in row.cells or [Cell("")] * (len(self.columns) - 1))]
            emphatic = row.strong or not row.cells
            lines.append(_line([f"**{word}**" if emphatic and word else word for word in words]))
        lines += [""] + [f"- {_plain(note)}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def latex(self, banner: str = "") -> str:
        """Write the table for LaTeX with booktabs, title above and notes below; a banner stands before the notes."""
        lines = []
        for row in self.rows:
            words = [escape(word) for word in (row.head, *(cell.text for cell in row.cells))]
            look = r"\emph" if not row.cells else r"\textbf" if row.strong else ""
            lines.append([f"{look}{{{word}}}" if look and word else word for word in words])
        notes = [*([rf"\textbf{{{escape(banner)}}}"] if banner else []), *map(escape, self.notes)]
        columns = "l" + "r" * (len(self.columns) - 1)
        return f"{HEAD}\n{latex_table(columns, [*map(escape, self.columns)], lines, escape(self.title), notes)}"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        title: the part's heading.
        text: a paragraph below it; may be empty.
        tables: tables, shown one below the other.
        figures: figures, shown below the tables.
    """

    title: str
    text: str = ""
    tables: Sequence[PaperTable] = ()
    figures: Sequence[NamedFigure] = ()


def write_paper(folder: Path, title: str, facts: Mapping[str, str], sections: Sequence[Section], *, banner: str = "") -> Path:
    """Write `report.html`, `tables/*.md|tex` and `figures/*.png|pdf`.

    The page needs nothing from outside, and equal arguments give equal bytes.

    Args:
        folder: the folder to write to, made if it does not exist.
        title: the page's title.
        facts: head -> words; the page shows them below the title.
        sections: the page's parts, in order.
        banner: words above everything, on the page and in each table; empty for none.

    Returns:
        The path of the page.
    """
    from jinja2 import Environment, StrictUndefined

    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shown = []
    for section in sections:
        for table in section.tables:
            for kind, source in (("md", table.markdown(banner)), ("tex", table.latex(banner))):
                atomically(folder / "tables" / f"{file_name(table.name)}.{kind}", source.encode())
        images = [replace(figure, name=file_name(figure.name)).write(folder / "figures") for figure in section.figures]
        shown.append({"section": section, "figures": images})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath("paper.html").read_text("utf-8"))
    page = folder / "report.html"
    atomically(page, template.render(title=title, facts=facts, shown=shown, banner=banner).encode())
    return page


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(word) for word in words) + " |"


def _plain(words: str) -> str:
    """Write the text of a cell so that Markdown does not take it for the border of a cell."""
    return words.replace("|", r"\|").replace("\n", " ")
