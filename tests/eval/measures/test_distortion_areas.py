"""Areas between piecewise linear curves and a base line, in closed form."""

import numpy as np
import pytest

from gencls.eval.measures.distortion_areas import areas

# epsilons, heights, base line, area below the line and above the curve, area above the line and below the curve: by hand.
CLOSED_FORMS = {
    "never crosses": ([0, 1, 2], [0.0, 0.1, 0.1], 0.2, 0.2 - 0.05 + 0.1, 0.0),
    "two points, crosses in the middle": ([0, 1], [0.0, 0.4], 0.2, 0.5 * 0.2 / 2, 0.5 * 0.2 / 2),
    "crosses at a third": ([0, 3], [0.1, 0.4], 0.2, 1 * 0.1 / 2, 2 * 0.2 / 2),
    "crosses three times": ([0, 1, 2, 3], [0.0, 2.0, 0.0, 2.0], 1.0, 0.25 + 0.5 + 0.25 - 0.25, 0.25 + 0.25 + 0.25),
    "uneven steps": ([0, 0.5, 4, 5], [0.0, 1.0, 1.0, 4.0], 2.0, 0.5 * 1.5 + 3.5 * 1 + 1 / 6, 2 * (2 / 3) / 2),
    "touches the line from below": ([0, 1, 2], [0.0, 1.0, 0.0], 1.0, 1.0, 0.0),
    "touches the line from above": ([0, 1, 2], [2.0, 1.0, 2.0], 1.0, 0.0, 1.0),
    "lies on the line": ([0, 1, 2], [1.0, 1.0, 1.0], 1.0, 0.0, 0.0),
    "crosses at a point of the curve": ([0, 1, 2], [0.0, 1.0, 2.0], 1.0, 0.5, 0.5),
    "begins beyond the line": ([0, 1, 2], [3.0, 1.0, 1.0], 2.0, 0.25 + 1.0, 0.25),
    "is always beyond the line": ([0.5, 1], [3.0, 4.0], 2.0, 0.0, 0.5 * 1.5),
    "does not begin at 0": ([1, 3], [1.0, 1.0], 2.0, 2.0, 0.0),
    "has a base line below 0": ([0, 1], [-2.0, 0.0], -1.0, 0.25, 0.25),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_area_in_closed_form(case: str) -> None:
    epsilons, heights, line, below, above = CLOSED_FORMS[case]
    points = np.array(epsilons, dtype=float), np.array(heights)
    # The sums have at most 8 terms of size 1, each rounded to 1e-16.
    assert areas(*points, line, larger_is_better=False) == pytest.approx((below, above), abs=1e-14)
    assert areas(*points, line, larger_is_better=True) == pytest.approx((above, below), abs=1e-14)


def test_areas_equal_a_fine_sum() -> None:
    generator = np.random.default_rng(0)
    epsilons = np.sort(generator.uniform(0, 2, 12))
    heights, line = generator.normal(size=(10, 12)), 0.3
    fine = np.union1d(np.linspace(epsilons[0], epsilons[-1], 20_001), epsilons)
    good, beyond = areas(epsilons, heights, line, larger_is_better=True)
    for curve, above, below in zip(heights, good, beyond, strict=True):
        distance = np.interp(fine, epsilons, curve) - line
        # A step h errs at a crossing of slope a by at most a h^2 / 8: with h = 1e-4 and a below 1e3, 11 times, by 1.4e-5.
        assert above == pytest.approx(np.trapezoid(np.maximum(distance, 0), fine), abs=2e-5)
        assert below == pytest.approx(np.trapezoid(np.maximum(-distance, 0), fine), abs=2e-5)


def test_the_difference_of_the_sides_is_the_integral() -> None:
    generator = np.random.default_rng(1)
    epsilons, heights = np.array([0, 0.1, 0.5, 0.6, 2.0]), generator.normal(size=(3, 7, 5))
    good, beyond = areas(epsilons, heights, 0.1, larger_is_better=True)
    assert good.shape == beyond.shape == (3, 7)
    np.testing.assert_allclose(good - beyond, np.trapezoid(heights - 0.1, epsilons), atol=1e-14)


def test_a_point_on_the_line_between_two_others_changes_nothing() -> None:
    epsilons, heights = np.array([0, 0.4, 1.0]), np.array([1.0, 0.2, 0.9])
    more = np.array([0, 0.1, 0.4, 0.55, 1.0])
    found = areas(more, np.interp(more, epsilons, heights), 0.5, larger_is_better=True)
    assert found == pytest.approx(areas(epsilons, heights, 0.5, larger_is_better=True), abs=1e-15)


def test_tiny_and_huge_differences_stay_finite() -> None:
    for size in (1e-300, 1e300):
        good, beyond = areas(np.array([0.0, 1.0]), np.array([size, -size]), 0.0, larger_is_better=True)
        assert good == beyond == pytest.approx(size / 4, rel=1e-12)
