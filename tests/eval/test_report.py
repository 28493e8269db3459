"""The report: everything is there, nothing comes from outside, nothing depends on the hour."""

from __future__ import annotations

import re
from functools import cache
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
from gencls.eval.report import ImagePanel, write_report
from gencls.eval.report import columns as report_columns
from gencls.eval.report.curves import minimal_curve, success_rates
from gencls.eval.report.figures import mcnemar_tables
from gencls.eval.report.tables import escape, latex_tables
from gencls.eval.report.verdict import ThreatKey, threats, verdict
from gencls.eval.summary import COLUMNS, compare, summarize

# (defense, clean accuracy, draws, gradient modes, accuracy left at the two budgets of each norm)
DEFENSES = (
    ("cnn-mnist", 0.985, 1, ("exact",), {"linf": (0.42, 0.0), "l2": (0.55, 0.06)}),
    ("cnn-noise-mnist", 0.96, 8, ("exact",), {"linf": (0.58, 0.03), "l2": (0.7, 0.24)}),
    ("adv-linf-mnist", 0.975, 1, ("exact",), {"linf": (0.93, 0.81), "l2": (0.6, 0.21)}),
    ("abs-mnist", 0.94, 5, ("frozen", "unrolled"), {"linf": (0.71, 0.12), "l2": (0.88, 0.74)}),
)
BUDGETS = {"linf": (0.1, 0.3), "l2": (0.75, 1.5)}
ATTACKS = {"pgd-linf": ("linf", 1.0), "fgsm-linf": ("linf", 1.25), "pgd-l2": ("l2", 1.0), "noise-l2": ("l2", None)}
WARNING = "weaker than the transfer of another defense's images"


@cache
def fake_records(n: int = 60) -> pd.DataFrame:
    """Records of an invented study with the columns and the order of magnitude of a real one."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, n)
    rows: list[dict[str, Any]] = []
    for defense, clean, draws, modes, left in DEFENSES:
        hard = generator.random(n)
        clean_draws = generator.random((n, draws)) < np.where(hard < clean, 0.99, 0.08)[:, None]
        for attack, (norm, weakness) in ATTACKS.items():
            for level, budget in enumerate(BUDGETS[norm]):
                for mode in modes if weakness else ("none",):
                    goal = (
                        min(clean, left[norm][level] * weakness * (1.1 if mode == "frozen" else 1))
                        if weakness
                        else clean - 0.02
                    )
                    right = generator.random((n, draws)) < np.where(hard < goal, 0.97, 0.03 if draws > 1 else 0.0)[:, None]
                    right &= clean_draws
                    for i in range(n):
                        rows.append(
                            {
                                "sample": i,
                                "sample_hash": f"{i:016x}",
                                "label": labels[i],
                                "defense": defense,
                                "attack": attack,
                                "gradient": mode,
                                "norm": norm,
                                "epsilon": budget,
                                "seed": 0,
                                "clean_correct": clean_draws[i].mean(),
                                "correct": right[i].mean(),
                                "claimed": bool(right[i].mean() < 0.7),
                                "distance": budget * generator.uniform(0.97, 1),
                                "valid": True,
                                "draws": draws,
                                "predictions": [int(labels[i] if r else (labels[i] + 1) % 10) for r in right[i]],
                                "clean_predictions": [int(labels[i] if r else (labels[i] + 1) % 10) for r in clean_draws[i]],
                                "forwards": 40.0 * draws + draws,
                                "backwards": 40.0 * draws if weakness else 0.0,
                                "seconds": 0.21 if defense == "abs-mnist" else 0.011,
                                "warnings": WARNING if mode == "frozen" and norm == "linf" else "",
                            }
                        )
    return pd.DataFrame(rows)


@cache
def fake_summary() -> pd.DataFrame:
    """The table of a small invented study."""
    return summarize(fake_records(20))


def minimal_records(n: int = 20) -> pd.DataFrame:
    """Records of an attack that looks for minimal perturbations."""
    records = fake_records(n)
    records = records[(records["attack"] == "pgd-l2") & (records["epsilon"] == 1.5)].copy()
    generator = np.random.default_rng(5)
    return records.assign(attack="ddn", epsilon=np.nan, distance=generator.gamma(4, 0.3, len(records)), correct=0.0)


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
    arguments: dict[str, Any] = {
        "records": pd.concat([records, minimal_records(60)], ignore_index=True),
        "summary": summarize(records),
        "mcnemar": compare(records),
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
    assert write(path) == path / "report.html"
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
        "accuracy",
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
    table = page.source[page.source.index('<table class="verdict">') :].split("</table>")[0]
    keys, rows = verdict(summary)
    seen = 0
    for row, line in zip(rows, [line for line in table.split("<tr>") if 'scope="row"' in line], strict=True):
        for key, cell in zip(keys, line.split("<td")[2:], strict=True):
            for value in summary[(summary["defense"] == row.defense) & (summary["epsilon"] == key.epsilon)]["warnings"]:
                for warning in report_columns.warning_list(value):
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
    assert {path.name for path in folder.iterdir()} == {"report.html", "results.tex", "figures"}


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
    for change, words in (
        ({"summary": study["summary"].drop(columns=["ci_low", "warnings"])}, "summary with .* missing: ci_low, warnings"),
        ({"summary": study["summary"].iloc[:0]}, "at least one row"),
        ({"records": study["records"].drop(columns="valid")}, "missing: valid"),
        ({"mcnemar": pairs}, "missing: p_holm"),
    ):
        with pytest.raises(GenclsError, match=words):
            write_report(tmp_path, **(study | change))
    assert not list(tmp_path.iterdir())


def test_verdict_takes_the_lowest_worst_case() -> None:
    summary = fake_summary()
    twice = pd.concat([summary, summary[summary["attack"] == "worst case"].assign(seed=1, robust_accuracy=0.0)])
    assert threats(summary) == [("linf", 0.1), ("linf", 0.3), ("l2", 0.75), ("l2", 1.5)]
    for row in verdict(twice)[1]:
        assert all(estimate is not None and estimate.value == 0 for estimate in row.robust)
    single = summary[summary["attack"] != "worst case"]
    keys, rows = verdict(single)
    assert keys == []
    assert [row.defense for row in rows] == [name for name, *_ in DEFENSES]


def test_the_table_has_the_columns_of_a_summary() -> None:
    assert [column.name for column in report_columns.SUMMARY] == COLUMNS


def test_minimal_perturbations_stay_out_of_the_verdict() -> None:
    both = pd.concat([fake_summary(), fake_summary().assign(epsilon=np.nan)], ignore_index=True)
    assert ("l2", None) in threats(both)
    assert verdict(both)[0] == verdict(fake_summary())[0]


def test_paired_tests_of_several_seeds_stay_apart() -> None:
    records = fake_records(20)
    pairs = compare(records[records["epsilon"] == 0.1])
    both = pd.concat([pairs, pairs.assign(seed=1)])
    assert [slug for _, slug, _ in mcnemar_tables(both)] == ["linf-0.1-seed-0", "linf-0.1-seed-1"]
    assert all(len(table) == 6 for _, _, table in mcnemar_tables(both))


def test_threat_labels() -> None:
    assert ThreatKey("linf", 8 / 255).label == "L∞, ε = 8/255"
    assert ThreatKey("linf", 0.3).label == "L∞, ε = 0.3"
    assert ThreatKey("l2", None).label == "L2, minimal"
    assert ThreatKey("linf", 8 / 255).slug == "linf-8of255"


def test_minimal_curve_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "sample": [0, 0, 1, 2, 3],
            "clean_correct": [1.0, 1.0, 0.0, 1.0, 1.0],  # sample 1 is wrong without any attack
            "correct": [0.5, 0.0, 0.0, 0.0, 0.0],
            "distance": [0.2, 0.4, 0.7, 0.3, 0.1],
            "valid": [True, True, True, True, False],  # sample 3's image does not count
        }
    )
    curve = minimal_curve(rows, label="ddn")
    np.testing.assert_allclose(curve.epsilon, [0, 0.2, 0.3, 0.4, 0.7])
    np.testing.assert_allclose(curve.rate, [0.25, 0.375, 0.625, 0.75, 0.75])


def test_success_rates_start_at_the_clean_errors_and_grow() -> None:
    records = pd.concat([fake_records(20), minimal_records()], ignore_index=True)
    by_norm = success_rates(records, fake_summary())
    assert set(by_norm) == {"linf", "l2"}
    for defense, *_ in DEFENSES:
        assert [curve.label for curve in by_norm["linf"][defense]] == ["worst case"]
        assert [curve.label for curve in by_norm["l2"][defense]] == ["worst case", "ddn"]
        for curve in by_norm["l2"][defense]:
            assert curve.epsilon[0] == 0
            assert (np.diff(curve.rate) >= -1e-12).all()


def test_latex_is_escaped_and_balanced() -> None:
    summary = fake_summary().copy()
    summary["defense"] = summary["defense"].replace("cnn-mnist", r"my_net & 50% {x} \y #1 ~^$")
    source = latex_tables(summary)
    assert r"my\_net \& 50\% \{x\} \textbackslash{}y \#1 \textasciitilde{}\textasciicircum{}\$" in source
    assert source.count(r"\begin{tabular}") == source.count(r"\end{tabular}") == source.count(r"\toprule") == 2
    assert r"$^{\dagger 1}$ " in source
    assert escape(f"pgd-linf, frozen; fgsm-linf, frozen: {WARNING}") in source
    for table in source.split(r"\toprule")[1:]:
        body = [line for line in table.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
    assert source.isascii()
    assert escape("–") == "--"


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (report_columns.percent(0.73451), "73.5"),
        (report_columns.percent(float("nan")), "–"),
        (report_columns.percent(None), "–"),
        (report_columns.count(1234567), "1\u202f234\u202f567"),
        (report_columns.count(41.5), "41.5"),
        (report_columns.number(1.23456), "1.23"),
        (report_columns.number(1234.5), "1\u202f234"),
        (report_columns.text(pd.NA), "–"),
        (report_columns.text(3.0), "3"),
        (report_columns.epsilon(2 / 255), "2/255"),
        (report_columns.epsilon(None), "–"),
    ],
)
def test_cells(formatted: str, expected: str) -> None:
    assert formatted == expected


def test_warnings_come_as_text_or_list() -> None:
    assert report_columns.warning_list("a; b;") == ["a", "b"]
    assert report_columns.warning_list(["a; b"]) == ["a; b"]
    assert report_columns.warning_list(None) == report_columns.warning_list(float("nan")) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean": torch.zeros(2, 28, 28)}, r"shape \(n, 1 or 3, H, W\), n >= 1, got \(2, 28, 28\)"),
        ({"adversarial": torch.zeros(3, 1, 28, 28)}, r"adversarial images of shape \(2, 1, 28, 28\), got"),
        ({"labels": torch.zeros(3)}, r"labels of shape \(2,\), got \(3,\)"),
        ({"predictions": torch.zeros(1, 5)}, r"predictions of shape \(2,\) or \(2, S\), got \(1, 5\)"),
    ],
)
def test_panels_refuse(change: dict[str, Any], words: str) -> None:
    images = torch.zeros(2, 1, 28, 28)
    arguments: dict[str, Any] = {
        "clean": images,
        "adversarial": images,
        "labels": torch.zeros(2),
        "predictions": torch.zeros(2),
    }
    with pytest.raises(GenclsError, match=words):
        ImagePanel("cnn", "pgd", "exact", **(arguments | change))
