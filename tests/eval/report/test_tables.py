"""Tables, curves and matrices of a study's report."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

from gencls.eval.measures.comparison import compare
from gencls.eval.measures.names import WORST_CASE
from gencls.eval.measures.success_rates import SuccessCurve
from gencls.eval.measures.summary import COLUMNS, summarize
from gencls.eval.report import formats
from gencls.eval.report.study import columns as report_columns
from gencls.eval.report.study.curves import AtBudgets, reading_sizes, study_curves
from gencls.eval.report.study.estimates import ThreatKey, estimates, threats
from gencls.eval.report.study.matrix import better, mcnemar_matrix, mcnemar_tables
from gencls.eval.report.study.tables import escape, latex_tables
from tests.eval.report.fake_study import DEFENSES, WARNING, fake_records, minimal_records


@cache
def fake_summary() -> pd.DataFrame:
    """The table of a small invented study."""
    return summarize(fake_records(20))


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
        (formats.percent(0.73451), "73.5"),
        (formats.percent(float("nan")), "–"),
        (formats.percent(None), "–"),
        (formats.count(1234567), "1\u202f234\u202f567"),
        (formats.count(41.5), "41.5"),
        (formats.number(1.23456), "1.23"),
        (formats.distance(1.1), "1.10"),
        (formats.distance(0.0), "0"),
        (formats.distance(float("inf")), "∞"),
        (formats.distance(123.4), "123"),
        (formats.distance(None), "–"),
        (formats.probability(0.0009), "< .001"),
        (formats.probability(0.0125), ".013"),
        (formats.probability(1.0), "1.000"),
        (formats.number(1234.5), "1\u202f234"),
        (formats.text(pd.NA), "–"),
        (formats.text(3.0), "3"),
        (formats.epsilon(2 / 255), "2/255"),
        (formats.epsilon(None), "–"),
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
