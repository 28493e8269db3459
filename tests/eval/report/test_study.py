"""The report: everything is there, nothing comes from outside, nothing depends on the hour."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from markupsafe import escape as escape_html

from gencls.core.errors import GenclsError
from gencls.eval.doctor.diagnosis import read_diagnoses
from gencls.eval.measures.comparison import compare
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.success_rates import closest_distances, robust_accuracy
from gencls.eval.measures.summary import summarize
from gencls.eval.report import formats
from gencls.eval.report.study import columns as report_columns
from gencls.eval.report.study.curves import reading_sizes
from gencls.eval.report.study.estimates import estimates
from gencls.eval.report.study.page import write_report
from gencls.eval.report.study.panels import ImagePanel
from tests.eval.report.fake_study import WARNING, fake_records, minimal_records

DIAGNOSES: dict[str, Any] = {
    "cnn-mnist": {
        "passed": True,
        "checks": [
            {"name": "unbounded attack", "status": "ok", "finding": "It leaves 0 %.", "evidence": {"accuracy": 0.0}},
        ],
    },
    "abs-mnist": {
        "passed": False,
        "checks": [
            {"name": "finite differences", "status": "ok", "finding": "They agree.", "evidence": {"cosine": 0.99997}},
            {"name": "dynamic forward", "status": "note", "finding": "It optimises.", "evidence": {"library": "<b>torch</b>"}},
            {"name": "offset & scale", "status": "fail", "finding": "It saturates.", "evidence": {"shifted": 45, "n": 10_000}},
        ],
    },
}


def diagnoses(path: Path, content: Any = None) -> Path:
    path.write_text(json.dumps(DIAGNOSES if content is None else content))
    return path


def fake_images(count: int = 8) -> list[ImagePanel]:
    """Panels of rings, one grey with one draw, one in colour with five draws."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, 28)
    centre = torch.rand(count, 2, 1, 1, generator=generator) * 0.5 - 0.25
    radius = ((axis[:, None] - centre[:, 0]) ** 2 + (axis[None, :] - centre[:, 1]) ** 2).sqrt()
    grey = torch.exp(-(((radius - 0.45) / 0.12) ** 2))[:, None]
    colour = grey * torch.tensor([0.9, 0.7, 0.4])[:, None, None]
    strong = (grey + 0.3 * torch.randn(grey.shape, generator=generator).sign()).clamp(0, 1)
    weak = (colour + 0.03 * torch.randn(colour.shape, generator=generator)).clamp(0, 1)
    labels = torch.arange(count) % 10
    draws = torch.where(torch.rand(count, 5, generator=generator) < 0.4, labels[:, None], (labels[:, None] + 3) % 10)
    return [
        ImagePanel("cnn-mnist", "pgd-linf", "exact", grey, strong, labels, (labels + 1) % 10, labels, "linf", 0.3),
        ImagePanel("abs-mnist", "pgd-l2", "unrolled", colour, weak, labels, draws, norm="l2", epsilon=1.5),
    ]


SETTINGS: dict[str, Any] = {
    "title": "Digits: transform, Bayes rule and adversarial training",
    "about": {
        "data": "mnist-embedded",
        "split": "test",
        "machine": "2 cores, CPU only, torch 2.15.0",
        "command": "python recipes/quickstart.py --seed 0",
    },
    "attacks": {"pgd-linf": {"steps": 40, "step_size": 0.025}},
    "note": "</pre><script>alert('x')</script>",
}


def write(folder: Path, *, budgets: tuple[float, ...] = (0.3,), panels: int = 3, **changes: Any) -> Path:
    """A report of the invented study, of some of its budgets (each figure costs half a second)."""
    records = fake_records()
    records = records[records["epsilon"].isin(budgets)]
    records = pd.concat([records, minimal_records(60)], ignore_index=True)
    arguments: dict[str, Any] = {
        "records": records,
        "summary": summarize(records),
        "mcnemar": compare(records, at=reading_sizes(records)),
        "images": fake_images(panels),
        "settings": SETTINGS,
        "warnings": ["60 images: intervals are wide", "the attack <noise> uses no gradient"],
    }
    return write_report(folder, **(arguments | changes))


class Page(HTMLParser):
    """Tags with their attributes, and the text of each table cell."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "new"
    found = read_diagnoses(diagnoses(path.parent / "doctor.json"))
    assert write(path, diagnoses=found) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def test_the_page_is_self_contained(page: Page) -> None:
    loaded = [attrs.get(name) or "" for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert loaded
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in loaded)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object")]


def test_the_page_has_every_part(page: Page) -> None:
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    assert anchors == {
        "verdict",
        "diagnosis",
        "accuracy",
        "distance",
        "curves",
        "images",
        "claims",
        "mcnemar",
        "rows",
        "budget",
        "settings",
        "glossary",
    }
    linked = {(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag == "a"}
    assert linked == anchors
    for words in ("mnist-embedded", "python recipes/quickstart.py --seed 0", "2 cores, CPU only, torch 2.15.0", "60"):
        assert words in page.text
    for column in report_columns.SUMMARY:
        assert column.heading in page.text
        assert column.meaning in page.text


def test_the_page_escapes_what_it_is_given(page: Page) -> None:
    assert "<script>alert" not in page.source
    assert "the attack <noise> uses no gradient" in page.text
    assert "–" in page.text
    assert not re.search(r">\s*(nan|None|NaT|<NA>)\s*<", page.source)


def test_a_warning_stands_at_its_number(page: Page) -> None:
    records = fake_records()
    summary = summarize(records[records["epsilon"].isin((0.3,))])
    table = page.source[page.source.index('<table class="estimates">') :].split("</table>")[0]
    keys, rows = estimates(summary)
    seen = 0
    for row, line in zip(rows, [line for line in table.split("<tr>") if 'scope="row"' in line], strict=True):
        for key, cell in zip(keys, line.split("<td")[2:], strict=True):
            for value in summary[(summary["defense"] == row.defense) & (summary["epsilon"] == key.epsilon)]["warnings"]:
                for warning in formats.warning_list(value):
                    assert escape_html(warning) in cell
                    seen += 1
            assert (WARNING in unescape(cell)) == (row.defense == "abs-mnist" and key.norm == "linf")
    assert seen > 2


def test_figures_lie_beside_the_page(folder: Path) -> None:
    names = {path.name for path in (folder / "figures").iterdir()}
    for stem in (
        "accuracy-linf-0.3",
        "curves-l2",
        "claimed-linf-0.3",
        "mcnemar-linf-0.3",
        "images-cnn-mnist-pgd-linf-exact-linf-0.3",
    ):
        assert {f"{stem}.png", f"{stem}.pdf"} <= names
    assert all(name.endswith((".png", ".pdf")) for name in names)
    assert {path.name for path in folder.iterdir()} == {"report.html", "results.tex", "curves.csv", "figures"}


def bare_study() -> dict[str, Any]:
    """One defense and one attack on three images, with little else."""
    records = fake_records(3)
    records = records[(records["defense"] == "cnn-mnist") & (records["attack"] == "pgd-linf") & (records["epsilon"] == 0.3)]
    summary = summarize(records).assign(mean_distance=None, claimed_robust_accuracy=np.nan, majority_accuracy=np.nan)
    return {
        "records": records,
        "summary": summary,
        "mcnemar": pd.DataFrame(),
        "images": [],
        "settings": {},
        "warnings": [],
    }


def test_equal_studies_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(tmp_path / name, **(bare_study() | {"images": fake_images(1)[1:], "settings": SETTINGS}))
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 6  # the page, LaTeX, and two figures twice
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_a_bare_study_has_a_page(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, **bare_study()))
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    assert anchors == {"verdict", "accuracy", "rows", "budget", "settings", "glossary"}
    assert "Read with care" not in page.text
    assert not re.search(r">\s*(nan|None|NaT|<NA>)\s*<", page.source)


def test_frames_without_columns_are_refused(tmp_path: Path) -> None:
    study = bare_study()
    pairs = pd.DataFrame({"defense_a": ["cnn"], "defense_b": ["abs"], "only_a": [1], "only_b": [2], "p_value": [1.0]})
    pairs = pairs.assign(p_mid=1.0, p_mid_holm=1.0)
    for change, words in (
        ({"summary": study["summary"].drop(columns=["ci_low", "warnings"])}, "summary with .* missing: ci_low, warnings"),
        ({"summary": study["summary"].iloc[:0]}, "at least one row"),
        ({"records": study["records"].drop(columns="valid")}, "missing: valid"),
        ({"mcnemar": pairs}, "missing: p_holm"),
    ):
        with pytest.raises(GenclsError, match=words):
            write_report(tmp_path, **(study | change))
    assert not list(tmp_path.iterdir())


def test_curves_lie_beside_the_page(folder: Path) -> None:
    points = pd.read_csv(folder / "curves.csv")
    records = pd.concat([fake_records(), minimal_records(60)], ignore_index=True)
    records = records[records["epsilon"].isin((0.3,)) | records["epsilon"].isna()]
    assert set(points["attack"]) == {"ddn", WORST_CASE}
    for (defense, attack), rows in points.groupby(["defense", "attack"]):
        own = records[(records["defense"] == defense) & (records["norm"] == "l2")]
        distances = closest_distances(own[own["attack"] == attack] if attack == "ddn" else own).to_numpy()
        expected = [(distances <= size + 1e-9).mean() for size in rows["epsilon"]]  # nine digits are written
        np.testing.assert_allclose(rows["success_rate"], expected, atol=1e-9)


def test_the_page_shows_distances_and_readings(page: Page) -> None:
    section = page.source[page.source.index('<section id="distance">') :].split("</section>")[0]
    records = pd.concat([fake_records(), minimal_records(60)], ignore_index=True)
    summary = summarize(records[records["epsilon"].isin((0.3,)) | records["epsilon"].isna()])
    minimal = summary[summary["epsilon"].isna()]
    assert len(minimal) > 4
    for row in minimal.itertuples():
        shown = (
            f"{formats.distance(row.median_distance)} [{formats.distance(row.median_distance_low)}, "
            f"{formats.distance(row.median_distance_high)}]"
        )
        assert shown in section
        assert f'data-key="{row.failures}">{row.failures}<' in section
    sizes = reading_sizes(minimal_records(60))["l2"]  # without an attacked L2 size these are round ones
    readings = page.source[page.source.index("read off the curves, L2") :].split("</table>")[0]
    assert all(f"ε = {formats.epsilon(size)}" in readings for size in sizes)
    for row in robust_accuracy(records[records["epsilon"].isna()], sizes).query("attack == 'ddn'").itertuples():
        assert f"{100 * row.accuracy:.1f} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]" in readings


def test_the_page_shows_what_the_judge_could_not_decide(page: Page) -> None:
    records = fake_records()
    _, rows = estimates(summarize(records[records["epsilon"].isin((0.3,))]))
    text = unescape(page.source[page.source.index('<table class="estimates">') :].split("</table>")[0]).replace("\xa0", " ")
    noisy = next(row for row in rows if row.defense == "cnn-noise-mnist").robust[0]
    assert noisy is not None
    assert noisy.majority is not None
    assert noisy.any_draw is not None
    assert noisy.any_draw <= noisy.value
    assert f"majority {noisy.majority} %, every draw {100 * noisy.any_draw:.1f} %" in text
    assert noisy.claimed is not None
    assert f"claimed {100 * noisy.claimed:.1f} %" in text
    assert noisy.undecided == 0 or f"{noisy.undecided} undecided" in text
    plain = rows[0].robust[0]
    assert plain is not None
    assert plain.majority is plain.any_draw is None


def test_the_budget_names_draws_and_memory(page: Page) -> None:
    table = page.source[page.source.index('<section id="budget">') :].split("</section>")[0]
    assert "Attack draws" in table
    assert "Peak MiB" in table
    assert '<td class="num">512</td>' in table
    assert '<td class="num">16</td><td class="num">8</td>' in table


def test_the_judges_further_draws_are_counted(tmp_path: Path) -> None:
    study = bare_study()
    longer = [list(row) * 3 if i == 0 else list(row) for i, row in enumerate(study["records"]["predictions"])]
    page = Page(write_report(tmp_path, **(study | {"records": study["records"].assign(predictions=longer)})))
    assert "1 (mean 1.7)" in page.text


def test_a_failed_diagnosis_stands_on_top_and_at_its_numbers(page: Page, folder: Path) -> None:
    banner = page.source[page.source.index('<div class="failed"') :].split("</div>")[0]
    assert "<b>abs-mnist</b>: offset &amp; scale" in banner
    assert "cnn-mnist" not in banner
    assert page.source.index('<div class="failed"') < page.source.index('id="verdict"')
    verdict_row = page.source[page.source.index('<th scope="row">abs-mnist') :].split("</th>")[0]
    assert "diagnosis failed: offset &amp; scale" in verdict_row
    section = page.source[page.source.index('<section id="diagnosis">') :].split("</section>")[0]
    second = section[section.index("<h3>abs-mnist") :]
    assert second.index("offset &amp; scale") < second.index("dynamic forward") < second.index("finite differences")
    assert "&lt;b&gt;torch&lt;/b&gt;" in second
    assert "<b>0.99997</b>" in second
    assert "10\u202f000" in second
    assert r"diagnosis failed: offset \& scale" in (folder / "results.tex").read_text()


def test_a_passed_diagnosis_has_no_banner(tmp_path: Path) -> None:
    found = read_diagnoses(diagnoses(tmp_path / "doctor.json", {"cnn-mnist": DIAGNOSES["cnn-mnist"]}))
    page = Page(write_report(tmp_path, **bare_study(), diagnoses=found))
    assert '<section id="diagnosis">' in page.source
    assert '<div class="failed"' not in page.source


CHECK = {"name": "a", "status": "ok", "finding": "b", "evidence": {}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "expected a diagnosis, an object in JSON, got list"),
        ({"cnn": []}, 'cnn: expected the keys "passed", "checks", got '),
        ({"cnn": {"passed": 1, "checks": []}}, 'a bool as "passed", got 1'),
        ({"cnn": {"passed": True, "checks": {}}}, 'a list as "checks", got {}'),
        ({"cnn": {"passed": True, "checks": [{"name": "a"}]}}, "check 1: expected the keys name, status, finding, evidence"),
        ({"cnn": {"passed": True, "checks": [CHECK, CHECK | {"status": "bad"}]}}, 'check 2: expected "status" to be one of'),
        ({"cnn": {"passed": True, "checks": [CHECK | {"finding": 3}]}}, 'text as "finding", got 3'),
        ({"cnn": {"passed": True, "checks": [CHECK | {"evidence": [1]}]}}, 'an object as "evidence"'),
        ({"cnn": {"passed": True, "checks": [CHECK | {"evidence": {"x": [1]}}]}}, 'a number or text as evidence "x"'),
        ({"cnn": {"passed": True, "checks": [CHECK | {"status": "fail"}]}}, 'expected "passed" to be false, got true'),
        ({"cnn": {"passed": False, "checks": [CHECK]}}, 'expected "passed" to be true, got false'),
    ],
)
def test_a_malformed_diagnosis(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(GenclsError, match=re.escape(words)):
        read_diagnoses(diagnoses(tmp_path / "doctor.json", content))


def test_a_diagnosis_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "doctor.json").write_text("{")
    with pytest.raises(GenclsError, match=r"doctor.json: expected a diagnosis in JSON"):
        read_diagnoses(tmp_path / "doctor.json")


def test_what_the_room_exports():
    import gencls.eval.report as room

    assert room.write_report is write_report
    assert room.read_diagnoses is read_diagnoses
    assert {"Check", "Diagnosis", "ImagePanel"} <= set(dir(room))
