"""Intervals and paired tests against statsmodels, scipy, closed forms and simulation."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from gencls.core.errors import GenclsError
from gencls.eval.measures import statistics
from gencls.eval.measures.statistics import (
    McNemar,
    bootstrap_band,
    bootstrap_counts,
    holm,
    mcnemar,
    pairwise_mcnemar,
    percentile_interval,
    wilson,
    wilson_band,
)


def decisions(only_a: int, only_b: int, both: int = 5, neither: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Paired decisions with the given number of discordant samples, shuffled."""
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    order = np.random.default_rng(0).permutation(len(a))
    return a[order], b[order]


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 50), (37, 50), (50, 50), (12.4, 200), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes: float, count: int, confidence: float) -> None:
    expected = proportion_confint(successes, count, alpha=1 - confidence, method="wilson")
    low, high = wilson(successes, count, confidence)
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= low <= successes / count <= high <= 1


def test_wilson_equals_the_closed_form() -> None:
    z, n, p = 1.959963984540054, 80, 0.3
    centre, half = (p + z**2 / (2 * n)), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    assert wilson(24, 80) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("p", [0.03, 0.2, 0.5, 0.95])
def test_wilson_covers(p: float) -> None:
    n, runs = 60, 20_000
    intervals = np.array([wilson(k, n) for k in range(n + 1)])
    drawn = intervals[np.random.default_rng(7).binomial(n, p, size=runs)]
    covered = float(np.mean((drawn[:, 0] <= p) & (p <= drawn[:, 1])))
    # Wilson's coverage swings around 95 % by at most some 3 points at this N; the simulation itself by 0.5 (3 sigma).
    assert 0.915 < covered < 0.985
    exact = sum(binom.pmf(k, n, p) for k in range(n + 1) if intervals[k, 0] <= p <= intervals[k, 1])
    assert covered == pytest.approx(exact, abs=0.006)


@pytest.mark.parametrize(
    ("successes", "count", "confidence", "words"),
    [
        (5, 4, 0.95, "between 0 and 4 successes, got 5"),
        (-1, 4, 0.95, "got -1"),
        (float("nan"), 4, 0.95, "got nan"),
        (0, 0, 0.95, "count: expected an int >= 1, got 0"),
        (1, -2, 0.95, "got -2"),
        (1, 4, 1.0, "confidence strictly between 0 and 1, got 1.0"),
    ],
)
def test_wilson_refuses(successes: float, count: int, confidence: float, words: str) -> None:
    with pytest.raises(GenclsError, match=words):
        wilson(successes, count, confidence)


def test_wilson_band_is_wilson_at_each_point() -> None:
    successes = np.array([0, 3.5, 20, 20 * (1 + 1e-12)])
    low, high = wilson_band(successes, 20, 0.9)
    np.testing.assert_array_equal(np.stack([low, high], axis=1), [wilson(value, 20, 0.9) for value in successes])


def means(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=1, keepdims=True)


def test_bootstrap_of_a_mean_is_normal_for_many_samples() -> None:
    """The percentile bootstrap of a mean tends to the normal interval with the plug-in variance."""
    values = np.random.default_rng(1).gamma(2.0, 1.0, 400)
    (low,), (high,) = bootstrap_band(values, means, confidence=0.9, resamples=20_000)
    error = values.std() / 20
    expected = values.mean() + norm.ppf([0.05, 0.95]) * error
    # 20,000 resamples place a 5 % quantile within 0.015 standard errors (1 sigma), the skewness (0.07) moves it by 0.03.
    np.testing.assert_allclose([low, high], expected, atol=0.1 * error)


def test_bootstrap_of_a_proportion_is_binomial() -> None:
    values = np.repeat([0.0, 1.0], [35, 15])
    (low,), (high,) = bootstrap_band(values, means, resamples=20_000)
    # The count of a resample is Binomial(50, 0.3). Neither quantile lies near a step of that distribution (3 sigma: 0.0033).
    assert abs(binom.cdf(8, 50, 0.3) - 0.025) > 0.0033 < abs(binom.cdf(9, 50, 0.3) - 0.025)
    assert round(50 * low) == binom.ppf(0.025, 50, 0.3)
    assert round(50 * high) == binom.ppf(0.975, 50, 0.3)


def test_bootstrap_covers() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for run in range(300):
        (low,), (high,) = bootstrap_band(
            generator.exponential(1.0, 80), lambda rows: np.median(rows, axis=1, keepdims=True), resamples=400, seed=run
        )
        hits += low <= np.log(2) <= high
    assert hits / 300 > 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5  # it rounds outwards, so that more is no surprise


def test_bootstrap_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(37)

    def both(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows.mean(axis=1), rows.max(axis=1)], axis=1)

    whole = bootstrap_band(values, both, resamples=101)
    assert whole[0].shape == (2,)
    for block in (1, 38, 37 * 7):
        monkeypatch.setattr(statistics, "_BLOCK", block)
        np.testing.assert_array_equal(bootstrap_band(values, both, resamples=101), whole)
    assert not np.array_equal(bootstrap_band(values, both, resamples=101, seed=1), whole)


def test_bootstrap_keeps_infinities_apart_and_leaves_out_what_is_not_defined() -> None:
    half = np.repeat([1.0, np.inf], [10, 10])
    (low,), (high,) = bootstrap_band(half, lambda rows: np.median(rows, axis=1, keepdims=True), resamples=200)
    assert (low, high) == (1.0, np.inf)
    rare = np.array([7.0, *[np.inf] * 5])

    def finite_mean(rows: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(rows).any(axis=1), 7.0, np.nan)[:, None]

    assert [*bootstrap_band(rare, finite_mean, resamples=50)] == [7.0, 7.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": np.zeros(0)}, r"shape \(N,\), N >= 1, and none of them NaN, got \(0,\)"),
        ({"values": np.zeros((2, 2))}, r"got \(2, 2\)"),
        ({"resamples": 0}, "resamples: expected an int >= 1, got 0"),
        ({"confidence": 0.0}, "confidence strictly between 0 and 1, got 0.0"),
    ],
)
def test_bootstrap_refuses(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"values": np.ones(3), "statistic": means} | change
    with pytest.raises(GenclsError, match=words):
        bootstrap_band(arguments.pop("values"), arguments.pop("statistic"), **arguments)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 9), (9, 3), (4, 4), (0, 12), (30, 55)])
def test_mcnemar_exact_equals_the_binomial_test(b: int, c: int) -> None:
    result = mcnemar(*decisions(b, c))
    assert (result.b, result.c) == (b, c)
    assert result.p_value == pytest.approx(binomtest(b, b + c, 0.5).pvalue, abs=1e-12)
    assert result.p_value == pytest.approx(statsmodels_mcnemar([[5, b], [c, 3]], exact=True).pvalue, abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 9), (9, 3), (4, 4), (0, 12)])
def test_mcnemar_mid_p_equals_the_sum_by_hand(b: int, c: int) -> None:
    n, low = b + c, min(b, c)
    more_extreme = sum(comb(n, k) for k in range(n + 1) if min(k, n - k) < low) / 2**n
    as_extreme = sum(comb(n, k) for k in range(n + 1) if min(k, n - k) == low) / 2**n
    assert mcnemar(*decisions(b, c), mid_p=True).p_value == pytest.approx(more_extreme + as_extreme / 2, abs=1e-12)


@pytest.mark.parametrize("mid_p", [False, True])
def test_mcnemar_without_discordant_samples(mid_p: bool) -> None:
    assert mcnemar(*decisions(0, 0), mid_p=mid_p) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize("mid_p", [False, True])
def test_mcnemar_holds_its_level(mid_p: bool) -> None:
    generator = np.random.default_rng(3)
    pairs = generator.random((200, 2, 80)) < 0.6  # two equally good, independent defenses
    rejected = np.mean([mcnemar(a, b, mid_p=mid_p).p_value < 0.05 for a, b in pairs])
    assert rejected < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([True], [True, False], "same samples for both defenses, got 1 and 2"),
        ([], [], "bool decisions for the first"),
        (np.zeros(0, dtype=bool), np.zeros(0, dtype=bool), r"shape \(N,\), N >= 1, for the first defense, got \(0,\)"),
        ([True], [0.5], "bool decisions for the second defense, got dtype float64"),
        ([[True]], [[True]], r"got \(1, 1\)"),
    ],
)
def test_mcnemar_refuses(a: list[bool], b: list[bool], words: str) -> None:
    with pytest.raises(GenclsError, match=words):
        mcnemar(a, b)


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    values = np.random.default_rng(seed).random(7) ** 3
    np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1], atol=1e-15)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("bad", [[0.1, 1.2], [-0.1], [float("nan")], [[0.1]]])
def test_holm_refuses(bad: list[float]) -> None:
    with pytest.raises(GenclsError, match="expected p-values"):
        holm(bad)


def test_pairwise_mcnemar() -> None:
    generator = np.random.default_rng(1)
    correct = {name: generator.random(60) < p for name, p in (("cnn", 0.1), ("abs", 0.8), ("adv", 0.7))}
    table = pairwise_mcnemar(correct)
    assert list(table.columns) == [
        *("defense_a", "defense_b", "only_a", "only_b"),
        *("p_value", "p_holm", "p_mid", "p_mid_holm"),
    ]
    assert list(zip(table["defense_a"], table["defense_b"], strict=True)) == [
        ("cnn", "abs"),
        ("cnn", "adv"),
        ("abs", "adv"),
    ]
    for row in table.itertuples():
        a, b = correct[row.defense_a], correct[row.defense_b]
        assert (row.only_a, row.only_b) == (np.sum(a > b), np.sum(b > a))
        assert row.p_value == mcnemar(a, b).p_value
        assert row.p_mid == mcnemar(a, b, mid_p=True).p_value < row.p_value
    np.testing.assert_array_equal(table["p_mid_holm"], holm(table["p_mid"].to_numpy()))
    np.testing.assert_array_equal(table["p_holm"], holm(table["p_value"].to_numpy()))
    assert pairwise_mcnemar({"cnn": correct["cnn"]}).empty


def test_counts_are_the_resamples_of_the_bootstrap():
    values = np.random.default_rng(1).normal(size=12)
    counts = bootstrap_counts(12, resamples=300, seed=5)
    assert (counts.sum(1) == 12).all()
    expected = bootstrap_band(values, lambda sample: sample.mean(axis=1, keepdims=True), resamples=300, seed=5)
    found = percentile_interval(counts @ values[:, None] / 12)
    np.testing.assert_allclose(np.stack(found), np.stack(expected))


def test_percentiles_leave_out_what_is_not_defined():
    low, high = percentile_interval([np.nan, *range(1, 101)], 0.9)
    assert (low, high) == (5, 96)  # the ranks 5.95 and 95.05 of the 100 numbers, outwards
    assert percentile_interval([1.0, np.inf])[1] == np.inf
    low, high = percentile_interval([[np.nan, 1.0, np.nan], [np.nan, 2.0, 3.0]])
    np.testing.assert_array_equal([low, high], [[np.nan, 1.0, 3.0], [np.nan, 2.0, 3.0]])
    assert np.isnan(percentile_interval([np.nan])).all()
    with pytest.raises(GenclsError, match=r"expected values of shape \(B, ...\), B >= 1, got \(0,\)"):
        percentile_interval([])
