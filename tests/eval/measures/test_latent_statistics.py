"""Mean absolute codes (eq. 7) and the spread of codes."""

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from gencls.core import GenclsError
from gencls.eval.measures.latent_statistics import mean_absolute_codes, spread_ratio

BEFORE, AFTER = np.array([[1.0, -2.0], [-3.0, 0.0]]), np.array([[1.5, 2.0], [-3.0, -1.0]])


def test_equation_7_by_hand() -> None:
    found = mean_absolute_codes(BEFORE, AFTER)
    assert (found.before.tolist(), found.after.tolist(), found.change.tolist()) == ([2.0, 1.0], [2.25, 1.5], [0.25, 2.5])
    assert found.n == 2


def test_intervals_are_students() -> None:
    before, after = np.random.default_rng(0).normal(size=(2, 20, 3))
    frame = mean_absolute_codes(before, after, confidence=0.9).frame()
    assert list(frame["quantity"]) == ["before"] * 3 + ["after"] * 3 + ["change"] * 3
    assert list(frame["dimension"]) == [1, 2, 3] * 3
    for j, row in enumerate(frame[frame["quantity"] == "change"].itertuples()):
        expected = ttest_1samp(abs(after - before)[:, j], 0.0).confidence_interval(0.9)
        assert (row.ci_low, row.ci_high) == pytest.approx(expected)


def test_codes_of_several_dimensions_are_flattened() -> None:
    codes = torch.randn(4, 2, 3)
    found = mean_absolute_codes(codes, codes + 1)
    torch.testing.assert_close(torch.tensor(found.before).float(), codes.abs().mean(0).flatten())
    assert found.change == pytest.approx(np.ones(6), abs=1e-6)


def test_spread_is_a_ratio_of_lengths() -> None:
    codes = np.random.default_rng(0).normal(size=(50, 4))
    for factor in (0.5, 1.0, 3.0):
        found = spread_ratio(codes, factor * codes + 7)
        assert found == pytest.approx((factor,) * 3)  # in each resample, too


def test_spread_against_the_covariance_and_its_interval_by_another_bootstrap() -> None:
    generator = np.random.default_rng(1)
    before, after = generator.normal(size=(40, 3)), 0.7 * generator.normal(size=(40, 3))

    def ratio(rows: np.ndarray) -> float:
        return float((np.trace(np.cov(after[rows].T)) / np.trace(np.cov(before[rows].T))) ** 0.5)

    found = spread_ratio(before, after)
    assert found.value == pytest.approx(ratio(np.arange(40)))
    expected = np.quantile([ratio(generator.integers(40, size=40)) for _ in range(2000)], [0.025, 0.975])
    # The quantile of 2000 resamples varies by 1/20 of the bootstrap's deviation, here .08; both are drawn, so four are .023.
    assert (found.low, found.high) == pytest.approx(expected, abs=0.023)


def test_codes_that_an_attack_makes_equal() -> None:
    assert spread_ratio(np.eye(5), np.full((5, 5), 0.3)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (BEFORE, AFTER[:, :1], r"expected one shape before and after the attack, got \(2, 2\) and \(2, 1\)"),
        (BEFORE, AFTER.T.reshape(1, 4), r"codes after the attack: expected codes of shape \(N, ...\), N >= 2, got \(1, 4\)"),
        (BEFORE[:1], AFTER[:1], r"N >= 2, got \(1, 2\)"),
        (BEFORE[0], AFTER[0], r"got \(2,\)"),
        (BEFORE * np.nan, AFTER, "codes before the attack: expected finite numbers, got 4 NaN or infinite ones"),
        ([["a"]], AFTER, "expected numbers"),
    ],
)
def test_bad_codes_are_refused(before: np.ndarray, after: np.ndarray, message: str) -> None:
    for measure in (mean_absolute_codes, spread_ratio):
        with pytest.raises(GenclsError, match=message):
            measure(before, after)


def test_equal_codes_have_no_spread_to_compare() -> None:
    with pytest.raises(GenclsError, match="expected codes that differ before the attack, got 3 equal ones"):
        spread_ratio(np.full((3, 2), 0.1), np.eye(3)[:, :2])
    with pytest.raises(GenclsError, match="confidence"):
        mean_absolute_codes(BEFORE, AFTER, confidence=1)
