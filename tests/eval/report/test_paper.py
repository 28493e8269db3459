"""Tables beside a paper's, their page, and the figures that go with them."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure

from gencls.core import GenclsError
from gencls.eval.measures.success_rates import success_rate_curve
from gencls.eval.report.paper.figures import Tile, plateau, success_panels, tile_grid
from gencls.eval.report.paper.page import Cell, PaperTable, Row, Section, write_paper
from gencls.eval.report.style import NamedFigure

TABLE = PaperTable(
    "table-1",
    "Table 1: <accuracy> | all",
    ("", "CNN", "ABS"),
    (
        Row("Clean", (Cell("98.0 [89, 100]", "99.5"), Cell())),
        Row("Attacks"),
        Row("All", (Cell("0.0", "0"), Cell("4.0")), strong=True),
    ),
    ("N = 50.", "† a slip | of the print"),
)


def test_markdown():
    assert TABLE.markdown() == (
        "**Table 1: <accuracy> \\| all**\n"
        "\n"
        "|  | CNN | ABS |\n"
        "|---|---|---|\n"
        "| Clean | 98.0 [89, 100] (99.5) | – |\n"
        "| **Attacks** |  |  |\n"
        "| **All** | **0.0 (0)** | **4.0** |\n"
        "\n"
        "- N = 50.\n"
        "- † a slip \\| of the print\n"
    )


def test_latex():
    assert TABLE.latex().splitlines()[2:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Table 1: \textless{}accuracy\textgreater{} \textbar{} all}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & CNN & ABS \\",
        r"\midrule",
        r"{}Clean & 98.0 [89, 100] (99.5) & -- \\",
        r"\multicolumn{3}{l}{\emph{Attacks}} \\",
        r"{}\textbf{All} & \textbf{0.0 (0)} & \textbf{4.0} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize N = 50.",
        r"\par\footnotesize \dag{} a slip \textbar{} of the print",
        r"\end{table}",
    ]


@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
def test_latex_compiles(engine, tmp_path):
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not there")
    lines = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", TABLE.latex("Smoke"), r"\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(lines))
    done = subprocess.run([engine, "-interaction=nonstopmode", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_banner_stands_above_everything(tmp_path):
    section = Section("Results", tables=[TABLE])
    page = write_paper(tmp_path / "told", "Paper", {}, [section], banner="Smoke & no <paper>").read_text()
    assert page.index("Smoke &amp; no &lt;paper&gt;") < page.index("<h1>")
    tables = tmp_path / "told" / "tables"
    assert (tables / "table-1.md").read_text() == f"> **Smoke & no <paper>**\n\n{TABLE.markdown()}"
    assert r"\par\footnotesize \textbf{Smoke \& no \textless{}paper\textgreater{}}" in (tables / "table-1.tex").read_text()
    plain = write_paper(tmp_path / "plain", "Paper", {}, [section]).read_text()
    assert 'class="banner"' not in plain
    assert (tmp_path / "plain" / "tables" / "table-1.tex").read_text() == TABLE.latex()


def test_a_row_with_too_few_cells_is_an_error():
    with pytest.raises(GenclsError, match="t: expected 2 cells in 'Clean', got 1"):
        PaperTable("t", "T", ("", "a", "b"), (Row("Clean", (Cell("1"),)),))


class Page(HTMLParser):
    """Texts of table cells, and where images come from."""

    def __init__(self):
        super().__init__()
        self.cells, self.sources, self.links, self._open = [], [], [], False

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("td", "th"):
            self._open = True
            self.cells.append("")
        self.sources += [given["src"]] if "src" in given else []
        self.links += [given["href"]] if "href" in given else []

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data


def test_page_holds_everything_and_needs_nothing(tmp_path):
    figure = NamedFigure("s", "figure-1", 'Figure "1"', plateau("steps", [1, 5], [(0.9, 0.8, 1.0), (0.5, 0.4, 0.6)]))
    sections = [Section("Results <2>", "What & why.", [TABLE], [figure])]
    page = write_paper(tmp_path / "new", "Paper & ours", {"Data": "digits <50>"}, sections)
    text = page.read_text()
    assert (tmp_path / "new" / "tables" / "table-1.md").read_text() == TABLE.markdown()
    assert (tmp_path / "new" / "figures" / "figure-1.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "figures" / "figure-1.pdf").read_bytes().startswith(b"%PDF")
    found = Page()
    found.feed(text)
    assert found.cells == ["", "CNN", "ABS", "Clean", "98.0 [89, 100](99.5)", "–", "Attacks", "All", "0.0(0)", "4.0"]
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert len(found.sources) == 1
    assert all(link.startswith("#part-") for link in found.links)
    assert "Results &lt;2&gt;" in text
    assert "What &amp; why." in text
    assert "digits &lt;50&gt;" in text
    assert not re.search(r"https?://", text)
    before = page.read_bytes()
    assert write_paper(tmp_path / "new", "Paper & ours", {"Data": "digits <50>"}, sections).read_bytes() == before


def test_tiles_show_the_images_as_they_are():
    grey, colour = torch.rand(1, 5, 5), torch.rand(3, 5, 5)
    figure = tile_grid(
        [[Tile(grey, "7"), Tile(colour, "3, 1.2", wrong=True)], [Tile(None, "none found", wrong=False), Tile(grey)]],
        ["clean", "CNN"],
        [("", 1), ("PGD-L2", 1)],
    )
    (axes,) = figure.axes
    shown = [image.get_array() for image in axes.get_images()]
    assert len(shown) == 3
    torch.testing.assert_close(torch.as_tensor(shown[0]), grey[0])
    torch.testing.assert_close(torch.as_tensor(shown[1]), colour.permute(1, 2, 0))
    words = {text.get_text() for text in axes.texts}
    assert {"clean", "CNN", "PGD-L2", "7", "3, 1.2", "none found"} <= words
    corners = [image.get_extent() for image in axes.get_images()]
    width, height = figure.get_size_inches()
    assert all(0 <= left < right <= width and 0 <= top < bottom <= height for left, right, bottom, top in corners)
    assert corners[0][0] < corners[0][1] < corners[1][0]  # side by side, without overlap
    assert corners[0][2] < corners[2][3]  # the second row below the first


@pytest.mark.parametrize(
    ("rows", "heads", "groups"),
    [
        ([], [], []),
        ([[Tile(None)], [Tile(None), Tile(None)]], [], []),
        ([[Tile(None)]], ["a", "b"], []),
        ([[Tile(None)]], ["a"], [("g", 2)]),
    ],
)
def test_tiles_that_do_not_fit(rows, heads, groups):
    with pytest.raises(GenclsError, match="expected"):
        tile_grid(rows, heads, groups)


def test_plateau_draws_both_in_one_order():
    figure = plateau("steps", [0, 10], [(0.9, 0.8, 0.95), (0.4, 0.3, 0.5)], [(10, 0.6), (50, 0.5)], chosen=10, source="they")
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines["ours, 95 % interval"] == [[0, 90], [1, 40]]
    assert lines["they"] == [[1, 60], [2, 50]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "10", "50"]


def test_success_panels_draw_each_curve_to_the_limit_in_one_colour():
    first, second = (success_rate_curve(distances, resamples=1) for distances in ([0.0, 1.0], [0.5, float("inf")]))
    figure = success_panels({"DeepFool": {"ours": first, "blur": second}, "C&W": {"blur": second}}, limit=2, dotted=["blur"])
    assert isinstance(figure, Figure)
    panels = {axis.get_title(): axis.lines for axis in figure.axes}
    assert list(panels) == ["DeepFool", "C&W"]
    ours, blur = panels["DeepFool"]
    assert ours.get_xydata().tolist() == [[0, 50], [1, 100], [2, 100]]
    assert blur.get_xydata().tolist() == [[0, 0], [0.5, 50], [2, 50]]
    assert ours.get_drawstyle() == "steps-post"
    assert blur.get_color() == panels["C&W"][0].get_color() != ours.get_color()
    assert (ours.get_linestyle(), blur.get_linestyle()) == ("-", ":")
    (cut,) = success_panels({"DeepFool": {"ours": first}}, limit=0.8).axes[0].lines  # sizes beyond the limit are left out
    assert cut.get_xydata().tolist() == [[0, 50], [0.8, 50]]
    with pytest.raises(GenclsError, match="expected at least one curve"):
        success_panels({"DeepFool": {}}, limit=1)
