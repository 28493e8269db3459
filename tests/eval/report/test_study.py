"""The report: everything is there, nothing comes from outside, nothing depends on the hour."""

from __future__ import annotations

import json
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
from gencls.eval.measures.curves import SuccessCurve, closest_distances, robust_accuracy
from gencls.eval.measures.records import WORST_CASE
from gencls.eval.measures.summary import COLUMNS, compare, summarize
from gencls.eval.report import ImagePanel, read_diagnoses, write_report
from gencls.eval.report.study import columns as report_columns
from gencls.eval.report.study.curves import AtBudgets, reading_sizes, study_curves
from gencls.eval.report.study.estimates import ThreatKey, estimates, threats
from gencls.eval.report.study.matrix import better, mcnemar_matrix, mcnemar_tables
from gencls.eval.report.study.panels import image_grid
from gencls.eval.report.study.tables import escape, latex_tables

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
                                "clean_majority_correct": bool(clean_draws[i].mean() > 0.5),
                                "majority_correct": bool(right[i].mean() > 0.5),
                                "undecided": bool(draws > 1 and right[i].sum() == draws // 2),
                                "attack_draws": 16 if draws > 1 else 1,
                                "peak_memory": 512.25,
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
    return records.assign(
        attack="ddn",
        epsilon=np.nan,
        distance=generator.gamma(4, 0.3, len(records)),
        correct=0.0,
        majority_correct=generator.random(len(records)) < 0.1,  # failures
    )


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
    table = page.source[page.source.index('<table class="verdict">') :].split("</table>")[0]
    keys, rows = estimates(summary)
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


def test_verdict_takes_the_lowest_worst_case() -> None:
    summary = fake_summary()
    twice = pd.concat([summary, summary[summary["attack"] == "worst case"].assign(seed=1, robust_accuracy=0.0)])
    assert threats(summary) == [ThreatKey(*threat) for threat in (("linf", 0.1), ("linf", 0.3), ("l2", 0.75), ("l2", 1.5))]
    for row in estimates(twice)[1]:
        assert all(estimate is not None and estimate.value == 0 for estimate in row.robust)
    single = summary[summary["attack"] != "worst case"]
    keys, rows = estimates(single)
    assert keys == []
    assert [row.defense for row in rows] == [name for name, *_ in DEFENSES]


def test_the_table_has_the_columns_of_a_summary() -> None:
    assert [name for column in report_columns.SUMMARY for name in column.names] == COLUMNS


def test_minimal_perturbations_stay_out_of_the_verdict() -> None:
    both = pd.concat([fake_summary(), fake_summary().assign(epsilon=np.nan)], ignore_index=True)
    assert ThreatKey("l2", None) in threats(both)
    assert estimates(both)[0] == estimates(fake_summary())[0]


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


def both_records(n: int = 20) -> pd.DataFrame:
    return pd.concat([fake_records(n), minimal_records(n)], ignore_index=True)


def test_curves_of_minimal_attacks_and_of_budgets() -> None:
    records = both_records()
    curves = study_curves(records, summarize(records))
    assert list(curves) == ["linf", "l2"]
    for norm, kind in (("linf", AtBudgets), ("l2", SuccessCurve)):
        assert list(curves[norm]) == [defense for defense, *_ in DEFENSES]
        for known in curves[norm].values():
            assert list(known.minimal) == ([] if norm == "linf" else ["ddn", WORST_CASE])
            assert isinstance(known.worst, kind)
            assert known.worst.epsilon[0] == 0
            assert (np.diff(known.worst.rate) >= -1e-12).all()
            assert (known.worst.low <= known.worst.rate).all()
            assert (known.worst.rate <= known.worst.high).all()


def test_where_curves_are_read_off() -> None:
    assert reading_sizes(both_records()) == {"l2": [0.75, 1.5]}  # the budgets of that norm
    alone = reading_sizes(minimal_records())
    assert list(alone) == ["l2"]
    assert 1 <= len(alone["l2"]) <= 3
    assert reading_sizes(fake_records(20)) == {}


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
            f"{report_columns.distance(row.median_distance)} [{report_columns.distance(row.median_distance_low)}, "
            f"{report_columns.distance(row.median_distance_high)}]"
        )
        assert shown in section
        assert f'data-key="{row.failures}">{row.failures}<' in section
    sizes = reading_sizes(minimal_records(60))["l2"]  # without an attacked L2 size these are round ones
    readings = page.source[page.source.index("read off the curves, L2") :].split("</table>")[0]
    assert all(f"ε = {report_columns.epsilon(size)}" in readings for size in sizes)
    for row in robust_accuracy(records[records["epsilon"].isna()], sizes).query("attack == 'ddn'").itertuples():
        assert f"{100 * row.accuracy:.1f} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]" in readings


def test_the_page_shows_what_the_judge_could_not_decide(page: Page) -> None:
    records = fake_records()
    _, rows = estimates(summarize(records[records["epsilon"].isin((0.3,))]))
    text = unescape(page.source[page.source.index('<table class="verdict">') :].split("</table>")[0]).replace("\xa0", " ")
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


@pytest.mark.parametrize(("p", "ours", "expected"), [(0.009, 9, 1), (0.009, 1, -1), (0.01, 9, 0), (1.0, 5, 0)])
def test_who_is_better(p: float, ours: int, expected: int) -> None:
    assert better(p, ours, 5) == expected


def test_the_matrix_points_to_the_better_defense() -> None:
    pairs = pd.DataFrame(
        {
            "defense_a": ["a", "a", "b"],
            "defense_b": ["b", "c", "c"],
            "only_a": [30, 4, 12],
            "only_b": [2, 5, 1],
            "p_value": 0.0,
            "p_holm": [0.0004, 1.0, 0.011],
            "p_mid": 0.0,
            "p_mid_holm": [0.0002, 1.0, 0.007],
        }
    )
    axis = mcnemar_matrix(pairs, ["a", "b", "c"]).axes[0]
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): [] for t in axis.texts}
    for t in axis.texts:
        texts[round(t.get_position()[1]), round(t.get_position()[0])].append(t.get_text())
    assert texts[0, 1] == ["← 30 : 2", "p < .001", "mid-p < .001"]
    assert texts[1, 0] == ["↑ 2 : 30", "p < .001", "mid-p < .001"]
    assert texts[0, 2] == ["4 : 5", "p = 1.000", "mid-p = 1.000"]
    assert texts[2, 1] == ["1 : 12", "p = .011", "mid-p = .007"]
    np.testing.assert_array_equal(axis.images[0].get_array().filled(9), [[9, 1, 0], [-1, 9, 0], [0, 0, 9]])


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
        (report_columns.distance(1.1), "1.10"),
        (report_columns.distance(0.0), "0"),
        (report_columns.distance(float("inf")), "∞"),
        (report_columns.distance(123.4), "123"),
        (report_columns.distance(None), "–"),
        (report_columns.probability(0.0009), "< .001"),
        (report_columns.probability(0.0125), ".013"),
        (report_columns.probability(1.0), "1.000"),
        (report_columns.number(1234.5), "1\u202f234"),
        (report_columns.text(pd.NA), "–"),
        (report_columns.text(3.0), "3"),
        (report_columns.epsilon(2 / 255), "2/255"),
        (report_columns.epsilon(None), "–"),
    ],
)
def test_cells(formatted: str, expected: str) -> None:
    assert formatted == expected


def test_the_distances_of_minimal_attacks_in_latex() -> None:
    records = both_records()
    source = latex_tables(summarize(records))
    assert source.count(r"\begin{tabular}") == source.count(r"\bottomrule") == 3
    table = source.split(r"\toprule")[3]
    assert "$\\ell_2$" in table
    assert table.count("ddn") == 5  # abs has two gradient modes
    assert source.isascii()


def test_panels_of_images_with_different_numbers_of_draws() -> None:
    images = torch.zeros(2, 1, 4, 4)
    draws = torch.tensor([[3, -1, -1, -1], [3, 5, 5, 5]])
    panel = ImagePanel("cnn", "pgd", "exact", images, images, torch.tensor([3, 3]), draws)
    shown = [text.get_text() for text in image_grid(panel).axes[0].texts]
    assert "3" in shown
    assert "3→5 (75 %)" in shown


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
