"""Names that people give: refused before anything is computed, or shown as they are wherever they stand."""

import csv
import io
import re
import shutil
import subprocess
import unicodedata

import pandas
import pytest
import torch
from torch import nn

from gencls._commands.attack import _print
from gencls.core import GenclsError
from gencls.eval import FGSM, Protocol, Study, ThreatModel, evaluate, progress_bar, summarize
from gencls.eval.measures.comparison import compare
from gencls.eval.measures.names import check_names, file_name, isolated, shortened
from gencls.eval.measures.spreadsheet import csv_of, read_csv
from gencls.eval.report.latex import OTHER_SCRIPTS, escape
from gencls.eval.report.study.figures import all_figures
from gencls.eval.report.study.page import write_report
from gencls.eval.report.study.panels import ImagePanel
from gencls.eval.report.style import STYLE, drawn, legend_columns
from tests.toys import small_cnn

LONG = "resnet-" + "x" * 290 + "-ema"
HOSTILE = (
    *(r"$\frac{1}$", "$", "a/b", "a:b", "A B", "a b", "../../etc/passwd", "C:\\x", "CON", "nul.txt", ".hidden", "x."),
    *("=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "'=1", "''", "＝1", "nan", "NA", "1.0", "1", "True"),
    *("[red]x[/red]", "[/]", ":smile:", "{0}", "%s", "<script>alert(1)</script>", "&amp", '"quoted", twice'),
    *(
        "µ é",
        "Ünïcödé",
        "מגן אקראי",
        "دفاع",
        "名前",
        "🔥",
        "👩‍🔬",
        "می‌خواهم",
        "&%$#_{}~^\\<>|",
        "--",
        "``x''",
        LONG,
        LONG[:-1] + "b",
    ),
)
REFUSED = {
    "": "printable name",
    " a": "printable name",
    "a\n": "printable name",
    "a\tb": "printable name",
    "\tx": "printable name",
    "\x00": "printable name",
    "\x1b[31m": "printable name",
    "\ud800": "printable name",
    "a\u202eb": "printable name",
    "\u200b": "printable name",
    "\u200d": "printable name",
    "a;b": "without a semicolon",
    "worst case": "another name than 'worst case'",
    "n" * 1001: "at most 1000 characters, got 1001",
}
LINF = ThreatModel("linf", 0.1)
IMAGES, LABELS = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)


class Never(nn.Module):
    """Counts how often it is asked."""

    asked = 0

    def forward(self, images):
        type(self).asked += 1
        return torch.zeros(len(images), 4)


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_names_are_checked_before_anything_is_asked(name, tmp_path):
    Never.asked = 0
    network, attacks = Never().eval(), {"FGSM": FGSM(LINF)}
    calls = [
        lambda: evaluate(network, attacks, [(IMAGES, LABELS)], name=name),
        lambda: evaluate(network, {name: FGSM(LINF)}, [(IMAGES, LABELS)]),
        lambda: Study(tmp_path / "s", defenses={name: network}, attacks=attacks, images=IMAGES, labels=LABELS),
        lambda: Study(tmp_path / "s", defenses={"n": network}, attacks={name: FGSM(LINF)}, images=IMAGES, labels=LABELS),
    ]
    for call in calls:
        with pytest.raises(GenclsError, match=REFUSED[name]) as caught:
            call()
        str(caught.value).encode()  # a message can be printed
    assert Never.asked == 0
    assert not list(tmp_path.iterdir())


def test_names_that_people_use_are_taken():
    check_names(HOSTILE, "study")
    check_names(["noise", "noise"], "study")  # of a defense and of an attack


@pytest.mark.parametrize(
    "pair", [("é", unicodedata.normalize("NFD", "é")), ("a b", "a  b"), ("ab", "a\u200db"), ("☂", "☂\ufe0f")], ids=ascii
)
def test_names_that_look_alike_are_refused(pair):
    with pytest.raises(GenclsError, match="expected names that look different"):
        check_names(pair, "study")
    assert file_name(pair[0]) != file_name(pair[1])


@pytest.mark.parametrize("about", ["words", {1: "x"}, {"data": None}, {"data": object()}])
def test_what_is_said_of_a_study_is_text(about, tmp_path):
    with pytest.raises(GenclsError, match="expected about to be"):
        Study(tmp_path / "s", defenses={"n": small_cnn()}, attacks={"f": FGSM(LINF)}, images=IMAGES, labels=LABELS, about=about)


def test_names_of_files_are_safe_and_apart_anywhere():
    stems = [file_name("images", name, "pgd", "exact", "linf-0.3") for name in HOSTILE] + [file_name(name) for name in HOSTILE]
    assert len({stem.casefold() for stem in stems}) == len(stems)
    for stem in stems:
        assert re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*[a-z0-9_-]|[a-z0-9_-]", stem)
        assert not re.fullmatch(r"(con|nul|aux|prn|com\d|lpt\d)(\..*)?", stem)
    assert len(file_name(LONG, LONG, LONG, LONG, "0.3")) < 250
    assert file_name("images", "cnn-mnist", "", "linf-0.3") == "images-cnn-mnist-linf-0.3"
    assert file_name("A B") == file_name("A B") != file_name("a b")


def test_long_names_are_short_and_apart_in_figures():
    texts = [drawn(name) for name in HOSTILE]
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 32
    assert drawn("名") == "U+540D"
    assert drawn("מ é $x$") == "מ é $x$"
    assert shortened("short", 16) == "short"
    assert [legend_columns([name], 3) for name in ("pgd", "x" * 32, "x" * 60)] == [3, 2, 1]
    assert isolated("מגן") == "\u2068מגן\u2069"
    assert isolated("abs") == "abs"


def records(defenses, attacks):
    """Four images by defense and attack, every second attack a minimal one."""
    rows = []
    for i, defense in enumerate(defenses):
        for j, attack in enumerate(attacks):
            for k in range(4):
                right = (i + j + k) % 3 == 0
                row = {"sample": k, "sample_hash": f"{k:08x}", "label": k, "defense": defense, "attack": attack}
                row |= {"gradient": "exact", "norm": "linf", "epsilon": 0.3 if j % 2 else None, "seed": 0}
                row |= {
                    "clean_correct": 1.0,
                    "correct": float(right),
                    "clean_majority_correct": True,
                    "majority_correct": right,
                }
                row |= {"claimed": not right, "distance": 0.1 + 0.02 * k, "valid": True, "draws": 1}
                row |= {"predictions": [k], "clean_predictions": [k], "forwards": 1.0, "backwards": 1.0, "seconds": 0.1}
                rows.append({**row, "eight_bit": False, "undecided": False, "clean_undecided": False, "warnings": ""})
    return pandas.DataFrame(rows)


@pytest.fixture(scope="module")
def hostile():
    """Records of four defenses and three attacks, and their summary."""
    made = records([r"$\frac{1}$", LONG, "A B", "a b"], ["a/b", "=1", "a:b"])
    return made, summarize(made)


def test_a_report_shows_every_name_as_it_is(tmp_path, monkeypatch):
    made = records([r"$\frac{1}$", "<script>alert(1)</script>"], ["a/b", LONG]).assign(epsilon=0.3)
    summary = summarize(made)
    image = torch.full((1, 1, 4, 4), 0.5)
    panel = ImagePanel(LONG, "a/b", "exact", image, image, torch.tensor([0]), torch.tensor([1]), class_names=["$a$", LONG])
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)
    monkeypatch.setitem(STYLE, "pdf.fonttype", 42)  # as everybody gets it: their letters are taken from the font
    page = write_report(
        tmp_path,
        records=made,
        summary=summary,
        mcnemar=compare(made),
        images=[panel],
        settings={"about": {"title": "\ud800 מגן", "command": "gencls \udcff"}},
        warnings=[],
    )
    text = page.read_text("utf-8")
    for name in (r"$\frac{1}$", LONG, "a/b", "&lt;script&gt;alert(1)&lt;/script&gt;"):
        assert f"<bdi>{name}</bdi>" in text
    assert "<script>alert" not in text
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert all(re.fullmatch(r"[a-z0-9._-]+\.(png|pdf)", name) for name in names)
    assert len(names) == 2 * 4  # accuracy, claims, McNemar, images


def test_figures_of_names_that_files_cannot_hold_stay_apart(hostile):
    from gencls.eval.report.study.curves import study_curves

    made, summary = hostile
    figures = list(all_figures(summary, study_curves(made, summary), pandas.DataFrame(), []))
    names = [figure.name for figure in figures]
    assert len({name.casefold() for name in names}) == len(names) == 1 + 1 + 4 + 2
    reordered = list(all_figures(summary, study_curves(made[::-1], summary), pandas.DataFrame(), []))
    assert sorted(figure.name for figure in reordered) == sorted(names)


def test_hyphens_that_shift_between_names_give_two_files(hostile):
    image = torch.full((1, 1, 4, 4), 0.5)
    parts = (image, image, torch.tensor([0]), torch.tensor([0]))
    panels = [ImagePanel("a-b", "c", "exact", *parts), ImagePanel("a", "b-c", "exact", *parts)]
    made, summary = hostile
    names = [figure.name for figure in all_figures(summary.iloc[:0], {}, pandas.DataFrame(), panels)]
    assert names == ["images-a-b-c-exact", "images-a-b-c-exact-2"]


@pytest.mark.parametrize("column", ["defense", "attack"])
def test_no_cell_is_a_formula_and_names_come_back(column, tmp_path):
    odd = ["\t=1", " @x", "\n+1", "''-1", "\r=1"]  # of records that people made
    frame = pandas.DataFrame({column: [*HOSTILE, *odd[:4]], "n": 1, "robust_accuracy": 0.5, "warnings": "-1"})
    path = tmp_path / "results.csv"
    path.write_bytes(csv_of(frame))
    for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")):
        assert not any(re.match(r"\s*[=+\-@\t\r＝＋－＠]", cell) for cell in row), row
    pandas.testing.assert_frame_equal(read_csv(path), frame)
    csv_of(pandas.DataFrame({column: odd}))
    with pytest.raises(GenclsError, match="expected a table as CSV"):
        read_csv(tmp_path / "none.csv")


def test_records_survive_a_csv_file(hostile, tmp_path):
    made, summary = hostile
    made.to_csv(tmp_path / "records.csv", index=False)
    again = pandas.read_csv(tmp_path / "records.csv")
    pandas.testing.assert_frame_equal(summarize(again), summary)
    assert "predictions" in again
    for column, value, words in (
        ("defense", float("nan"), "a defense in every row, got none in 1"),
        ("seed", float("nan"), "a seed in every row"),
        ("defense", 1, "records: defense: expected a printable name"),
        ("attack", "worst case", "another name than"),
        ("correct", 1.5, r"correct in \[0, 1\], got 1.5"),
        ("correct", float("nan"), r"correct in \[0, 1\], got nan"),
        ("distance", -1.0, "distances >= 0 of valid adversarials, got -1"),
        ("distance", "far", "numbers in distance"),
        ("epsilon", "8/255", "numbers in epsilon"),
        ("epsilon", -0.1, "epsilon > 0"),
        ("predictions", "[1, x]", "a list of predictions"),
    ):
        bad = made.astype({column: "object"})
        bad.loc[0, column] = value
        with pytest.raises(GenclsError, match=words):
            summarize(bad)
    for other in (None, [made], made.to_dict()):
        with pytest.raises(GenclsError, match=r"expected a pandas.DataFrame"):
            summarize(other)


def test_console_shows_brackets_and_colons(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    made = records(["[red]x[/red]", "[/]"], [":smile:", "{0} %s"]).assign(warnings="see [bold]this[/bold]")
    _print(summarize(made))
    printed = capsys.readouterr().out
    for name in ("[red]x[/red]", "[/]", ":smile:", "{0} %s", "see [bold]this[/bold]"):
        assert name in printed
    study = Study(
        tmp_path / "s",
        defenses={"[/red]": small_cnn()},
        attacks={":smile: {0}": FGSM(LINF)},
        images=IMAGES,
        labels=LABELS,
        protocol=Protocol(eot_samples=1, judge_draws=1),
    )
    cells = study.cells()
    with progress_bar(study)(cells) as tell:
        tell(cells[0])
    assert "finished [/red] / :smile: {0} / exact" in capsys.readouterr().out


LATEX = {
    "&%$#_{}": r"\&\%\$\#\_\{\}",
    "~^\\": r"\textasciitilde{}\textasciicircum{}\textbackslash{}",
    "<>|": r"\textless{}\textgreater{}\textbar{}",
    "a--b": "a-{}-b",
    "``''": "`{}`{}'{}'",
    "µ é": r"$\mu$ \'{e}",
    "Ünï": r"\"{U}n\"{\i}",
    "λ": r"$\lambda$",
    "ßøł": r"\ss{}\o{}\l{}",
    "名": r"\otherscript{540D}{名}",
    "🔥": r"\otherscript{1F525}{🔥}",
    "\u202e\ud800": r"\texttt{U+202E}\texttt{U+D800}",
    "a\tb\n": "a b ",
    "–—∞": r"-----$\infty$",
}


@pytest.mark.parametrize("words", LATEX, ids=ascii)
def test_latex_prints_every_character(words):
    assert escape(words) == LATEX[words]
    escape(words).encode()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
def test_latex_compiles(engine, tmp_path):
    if not shutil.which(engine):
        pytest.skip(f"no {engine} here")
    printable = [chr(i) for i in range(0x20, 0x500) if chr(i).isprintable()]
    body = "\n\n".join([*map(escape, [*HOSTILE, *LATEX]), *map(escape, printable)])
    source = "\\documentclass{article}\n" + OTHER_SCRIPTS + "\n\\begin{document}\n" + body + "\n\\end{document}\n"
    (tmp_path / "all.tex").write_text(source, "utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
