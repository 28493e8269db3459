"""Success-rate curves: MLVGM eq. 5 by hand, its bands, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from gencls.core.errors import GenclsError
from gencls.eval.measures.statistics import wilson
from gencls.eval.measures.success_rates import (
    certified_accuracy,
    closest_distances,
    minimal_runs,
    robust_accuracy,
    round_sizes,
    success_rate_curve,
)
from gencls.eval.measures.summary import WORST_CASE, summarize
from tests.eval.measures.test_summary import broken, clean_error, minimal, mixed_study, record

INF = float("inf")


def equation_5(distances: np.ndarray, epsilon: float) -> float:
    return float(np.mean([distance <= epsilon for distance in distances]))


def test_closest_distances_by_hand() -> None:
    rows = [
        *minimal(clean_error("a"), broken("b", 0.5), broken("c", 0.1, valid=False), record("d", distance=0.3)),
        *minimal(
            clean_error("a", distance=0.9), broken("b", 0.4), broken("c", 0.7), record("d", distance=0.0), gradient="bpda"
        ),
        broken("b", 0.2),
    ]
    found = closest_distances(pd.DataFrame(rows))
    assert found.to_dict() == {"a": 0.0, "b": 0.2, "c": 0.7, "d": INF}


@pytest.mark.parametrize("column", ["defense", "norm"])
def test_distances_of_several_kinds_are_refused(column: str) -> None:
    with pytest.raises(GenclsError, match=f"records of one {column}, got"):
        closest_distances(pd.DataFrame([broken("a", 0.1), broken("a", 0.1, **{column: "other"})]))


def test_the_curve_by_hand() -> None:
    curve = success_rate_curve([0.0, 0.2, 0.2, 0.5, INF])
    np.testing.assert_array_equal(curve.epsilon, [0, 0.2, 0.5])
    np.testing.assert_array_equal(curve.rate, [0.2, 0.6, 0.8])
    np.testing.assert_array_equal(np.stack([curve.low, curve.high], 1), [wilson(k, 5) for k in (1, 3, 4)])
    assert curve.n == 5
    assert list(curve.frame().columns[:2]) == ["epsilon", "success_rate"]
    assert len(curve.frame()) == 3


def test_the_curve_is_equation_5() -> None:
    generator = np.random.default_rng(0)
    distances = np.where(generator.random(70) < 0.2, INF, generator.gamma(2, 0.5, 70))
    distances[:6] = 0
    sizes = [0.0, 0.3, 0.31, 1.0, 7.0]
    curve = success_rate_curve(distances, sizes)
    np.testing.assert_allclose(curve.rate, [equation_5(distances, size) for size in sizes], atol=1e-15)
    steps = success_rate_curve(distances)
    np.testing.assert_allclose(steps.rate, [equation_5(distances, size) for size in steps.epsilon], atol=1e-15)


def test_a_distance_may_exceed_the_size_by_rounding() -> None:
    assert success_rate_curve([0.3 + 2e-8, 0.3 + 1e-5], [0.3]).rate.tolist() == [0.5]


def test_the_bootstrap_band_is_binomial() -> None:
    """The number of broken samples in a resample is Binomial(N, rate), so the band's limits are its quantiles."""
    n, broken_by = 60, [15, 30, 54]
    distances = np.full(n, INF)
    for size, count in zip((3, 2, 1), reversed(broken_by), strict=True):
        distances[:count] = size
    curve = success_rate_curve(distances, [1, 2, 3], resamples=20_000)
    for i, count in enumerate(broken_by):
        p = count / n
        # One count off for quantiles near a step of the distribution (20,000 resamples know them to 0.0011).
        assert abs(n * curve.bootstrap_low[i] - binom.ppf(0.025, n, p)) < 1.001
        assert abs(n * curve.bootstrap_high[i] - binom.ppf(0.975, n, p)) < 1.001
    assert (curve.bootstrap_low <= curve.rate).all()
    assert (np.diff(curve.bootstrap_low) >= 0).all()


def test_the_bands_at_the_borders() -> None:
    curve = success_rate_curve([1.0] * 20, [0.5, 1.0])
    np.testing.assert_array_equal(curve.rate, [0, 1])
    np.testing.assert_array_equal(curve.bootstrap_high, [0, 1])  # no width: nothing varies
    assert curve.high[0] == wilson(0, 20)[1] > 0.1
    assert curve.low[1] == wilson(20, 20)[0] < 0.9


def test_equal_seeds_give_equal_bands() -> None:
    distances = np.random.default_rng(0).random(40)
    first, again, other = (success_rate_curve(distances, [0.5], resamples=300, seed=seed) for seed in (0, 0, 1))
    assert first.frame().equals(again.frame())
    assert not first.frame().equals(other.frame())


def test_runs_of_a_study() -> None:
    runs = {run.attack: run for run in minimal_runs(mixed_study())}
    assert list(runs) == ["ddn", "cw", WORST_CASE]
    assert runs["ddn"].distances.tolist() == [0, 0.6, 2.2, 3.0]  # over both gradient modes
    assert runs["cw"].distances.tolist() == [0, INF, 2.4, 2.8]
    assert runs[WORST_CASE].distances.tolist() == [0, 0.6, 1.9, 2.8]  # 1.9 is PGD's, which had a budget
    assert runs["ddn"][:2] == ("cnn", "l2")
    assert not list(minimal_runs(mixed_study().dropna(subset="epsilon")))


def test_robust_accuracy_at_any_size() -> None:
    found = robust_accuracy(mixed_study(), [2.0, 0.0, 1.0, 2.5])
    assert found["epsilon"].to_list() == [0.0, 1.0, 2.0, 2.5] * 3
    by_attack = {attack: rows["accuracy"].to_list() for attack, rows in found.groupby("attack")}
    assert by_attack == {"ddn": [0.75, 0.5, 0.5, 0.25], "cw": [0.75, 0.75, 0.75, 0.5], WORST_CASE: [0.75, 0.5, 0.25, 0.25]}
    for row in found.itertuples():
        assert (row.ci_low, row.ci_high) == wilson(4 * row.accuracy, 4)


def test_the_curve_agrees_with_the_table_at_the_budgets() -> None:
    """Attacked or read off the curve, the worst case within a budget is the same."""
    table = summarize(mixed_study()).query("attack == @WORST_CASE and epsilon.notna()").set_index("epsilon")
    curve = robust_accuracy(mixed_study(), [1.0, 2.0]).query("attack == @WORST_CASE").set_index("epsilon")
    assert table["majority_accuracy"].to_dict() == curve["accuracy"].to_dict()


def test_round_sizes() -> None:
    assert round_sizes(np.array([0, 0, 0.19, 0.55, 1.2, INF])) == [0.5, 1.0]  # quartiles 0.37, 0.55, 0.875
    assert round_sizes(np.array([0.0, INF])) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: success_rate_curve([]), r"shape \(N,\), N >= 1, all >= 0 .*, got shape \(0,\)"),
        (lambda: success_rate_curve([0.1, -0.2]), "got -0.2"),
        (lambda: success_rate_curve([float("nan")]), "got nan"),
        (lambda: success_rate_curve([0.1], [INF]), "finite sizes >= 0, got "),
        (lambda: success_rate_curve([0.1], []), "finite sizes >= 0, got "),
        (lambda: success_rate_curve([0.1], confidence=1.0), "confidence strictly between"),
        (lambda: robust_accuracy(mixed_study(), [-1.0]), "finite sizes >= 0"),
        (lambda: robust_accuracy(pd.DataFrame([record("a")]), [1.0]), "minimal-norm attack .epsilon NaN., got none"),
    ],
)
def test_curves_refuse(call: Any, words: str) -> None:
    with pytest.raises(GenclsError, match=words):
        call()


class Certificates:
    labels = torch.tensor([0, 1, -1, 2, 1])
    radii = torch.tensor([0.5, 0.25, 0.0, 1.0, 0.75], dtype=torch.float64)


def test_certified_accuracy_by_hand() -> None:
    truth = torch.tensor([0, 1, 2, 0, 1])  # the third abstains, the fourth is wrong
    found = certified_accuracy(Certificates(), truth, [1.0, 0.0, 0.25, 0.5, 0.6], confidence=0.9)
    assert found["radius"].tolist() == [0.0, 0.25, 0.5, 0.6, 1.0]
    assert found["accuracy"].tolist() == [0.6, 0.6, 0.4, 0.2, 0.0]
    assert found["n"].tolist() == [5] * 5
    for held, low, high in zip([3, 3, 2, 1, 0], found["ci_low"], found["ci_high"], strict=True):
        assert (low, high) == pytest.approx(wilson(held, 5, 0.9))


@pytest.mark.parametrize(
    ("labels", "radii", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), [0.0], "expected 5 labels, one per image, got 4"),
        (torch.zeros(5), [0.0], "labels: expected int64"),
        (torch.zeros(5, dtype=torch.int64), [-0.1], r"expected a list of finite sizes >= 0, got \[-0.1\]"),
        (torch.zeros(5, dtype=torch.int64), [], r"expected a list of finite sizes >= 0, got \[\]"),
    ],
)
def test_bad_certified_accuracy(labels: torch.Tensor, radii: list[float], message: str) -> None:
    with pytest.raises(GenclsError, match=message):
        certified_accuracy(Certificates(), labels, radii)
