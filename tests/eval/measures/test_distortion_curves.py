"""Distortion-distortion curves: means, resamples, infinite values, and what is refused."""

import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.eval.measures.distortion_areas import TABLE_1_BASE_LINES, TABLE_3_BASE_LINES
from gencls.eval.measures.distortion_curves import DistortionCurve
from gencls.eval.measures.psnr import PSNR_OF_ROUNDING
from gencls.eval.measures.statistics import bootstrap_counts

EPSILONS = (0.0, 0.5, 1.0)


def ratios() -> DistortionCurve:
    """PSNR that is infinite at epsilon 0, and for one of four images at 0.5."""
    values = [[np.inf, 50.0, 30.0], [np.inf, np.inf, 32.0], [np.inf, 44.0, 28.0], [np.inf, 46.0, 26.0]]
    return DistortionCurve(EPSILONS, values, True, "PSNR")


def test_the_curve_is_the_mean_and_its_area_that_of_the_mean() -> None:
    # One image is beyond the line at once, one never: the mean of their areas would not be the area of the mean.
    curve = DistortionCurve(EPSILONS, torch.tensor([[0.0, 0.3, 0.3], [0.0, 0.0, 0.1]]), False, "LPIPS")
    np.testing.assert_allclose(curve.heights, [0, 0.15, 0.2], atol=1e-7)  # float32
    assert curve.area(0.175) == pytest.approx(0.5 * (0.175 + 0.025) / 2 + 0.25 * 0.025 / 2, abs=1e-7)
    assert curve.area_beyond(0.175) == pytest.approx(0.25 * 0.025 / 2, abs=1e-7)
    assert curve.count == 2


def test_a_similarity_has_its_area_above_the_line() -> None:
    curve = DistortionCurve((0.0, 1.0), [[1.0, 0.0]], True, "SSIM")
    assert (curve.area(0.5), curve.area_beyond(0.5)) == (0.125, 0.125)


def test_resamples_are_means_of_the_rows_they_hold() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    curve, counts = DistortionCurve(EPSILONS, values, True, "SSIM"), bootstrap_counts(7, resamples=5)
    expected = np.stack([np.repeat(values, row, axis=0).mean(axis=0) for row in counts])
    np.testing.assert_allclose(curve.resampled(counts), expected, atol=1e-15)


def test_a_resample_is_infinite_where_it_holds_an_equal_picture() -> None:
    found = ratios().resampled(np.array([[1, 1, 1, 1], [2, 0, 1, 1]]))
    np.testing.assert_array_equal(found, [[np.inf, np.inf, 29.0], [np.inf, 47.5, 28.5]])


def test_an_infinite_curve_has_no_area_until_it_is_capped_or_cut() -> None:
    curve = ratios()
    assert curve.heights.tolist() == [np.inf, np.inf, 29.0]
    with pytest.raises(GenclsError, match=r"PSNR: expected a finite curve for an area, got infinite values at epsilon 0, 0\.5"):
        curve.area(34.0)
    with pytest.raises(GenclsError, match=r"infinite values at epsilon 0\.5"):
        curve.starting_at(0.5).area(34.0)
    capped = curve.capped(60.0).starting_at(0.5)
    assert capped.heights.tolist() == [50.0, 29.0]
    assert capped.area(34.0) == pytest.approx(0.5 * 16 / 21 * 16 / 2)
    assert curve.capped(60.0).area(34.0) == pytest.approx(0.5 * (26 + 16) / 2 + capped.area(34.0))


def test_a_cap_does_not_change_differences_of_curves_above_the_line() -> None:
    first, second = (DistortionCurve((0, 1, 2), [[np.inf, *after]], True, "PSNR") for after in ([40, 30], [36, 20]))
    differences = [first.capped(cap).area(34) - second.capped(cap).area(34) for cap in (50, PSNR_OF_ROUNDING, 100)]
    assert differences == pytest.approx([differences[0]] * 3)


def test_the_first_step_of_a_capped_curve_is_more_than_the_paper_prints() -> None:
    least = DistortionCurve((0.0, 0.1), [[PSNR_OF_ROUNDING, 34.0]], True, "PSNR")  # the curve falls to the line at once
    assert least.area(TABLE_3_BASE_LINES["PSNR"]) > 1.0091


def test_printed_areas_of_table_1_lie_within_the_base_lines() -> None:
    """No area can be above that of an attack without effect, over epsilon up to 1 (MNIST) and 2 (CelebA)."""
    for name, best, printed in (("LPIPS", 0.0, (0.129, 0.134)), ("SSIM", 1.0, (0.514, 0.438))):
        for end, area in zip((1.0, 2.0), printed, strict=True):
            still = DistortionCurve((0.0, end), [[best, best]], name == "SSIM", name)
            assert area < still.area(TABLE_1_BASE_LINES[name])


def test_fields_are_copies_that_stay_as_they_are() -> None:
    values = np.ones((2, 3))
    curve = DistortionCurve(EPSILONS, values, False, "MSE")
    values[:] = 7
    assert curve.heights.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        curve.values[0, 0] = 7
    with pytest.raises(ValueError, match="read-only"):
        curve.epsilons[0] = 7


GOOD = {"epsilons": EPSILONS, "values": np.ones((2, 3)), "larger_is_better": False, "name": "LPIPS"}
BAD = {
    "a negative epsilon": ({"epsilons": (-0.1, 0.5, 1.0)}, r"finite epsilons >= 0 that grow, got \[-0\.1, 0\.5, 1\.0\]"),
    "epsilons out of order": ({"epsilons": (0.0, 1.0, 0.5)}, "that grow"),
    "an epsilon twice": ({"epsilons": (0.0, 0.5, 0.5)}, "that grow"),
    "an infinite epsilon": ({"epsilons": (0.0, 0.5, np.inf)}, "finite epsilons"),
    "epsilon NaN": ({"epsilons": (0.0, np.nan, 1.0)}, "finite epsilons"),
    "one epsilon": ({"epsilons": (0.5,), "values": np.ones((2, 1))}, r"E >= 2, got \(1,\)"),
    "epsilons in rows": ({"epsilons": [EPSILONS]}, r"shape \(E,\)"),
    "epsilons as words": ({"epsilons": ("a", "b", "c")}, "expected numbers"),
    "values of fewer epsilons": ({"values": np.ones((2, 2))}, r"\(N, 3\), N >= 1, a column for each epsilon, got \(2, 2\)"),
    "values without images": ({"values": np.ones(3)}, r"got \(3,\)"),
    "no image": ({"values": np.ones((0, 3))}, r"got \(0, 3\)"),
    "values NaN": ({"values": [[0.0, np.nan, 1.0]]}, "expected finite numbers, got nan"),
    "an infinite distance": ({"values": [[0.0, np.inf, 1.0]]}, "expected finite numbers, got inf"),
    "a similarity of minus infinity": (
        {"values": [[0.0, -np.inf, 1.0]], "larger_is_better": True},
        "numbers, or infinity for equal pictures, got -inf",
    ),
    "values that need a gradient": ({"values": torch.ones(2, 3, requires_grad=True)}, "requires grad"),
    "complex values": ({"values": np.ones((2, 3)) * 1j}, "expected numbers"),
    "a word for the side": ({"larger_is_better": "yes"}, "expected larger_is_better to be True or False"),
    "no name": ({"name": " "}, "printable name"),
    "a number as a name": ({"name": 3}, "printable name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fields_are_refused(case: str) -> None:
    changes, message = BAD[case]
    DistortionCurve(**GOOD)
    with pytest.raises(GenclsError, match=message):
        DistortionCurve(**{**GOOD, **changes})


@pytest.mark.parametrize("line", [np.nan, np.inf, -np.inf, "0.4", None, True])
def test_a_base_line_is_a_finite_number(line: object) -> None:
    curve = DistortionCurve(**GOOD)
    for method in (curve.area, curve.area_beyond):
        with pytest.raises(GenclsError, match="LPIPS: base line: expected a finite number, got"):
            method(line)


def test_a_cut_begins_at_a_point_of_the_curve_and_leaves_two() -> None:
    with pytest.raises(GenclsError, match=r"one of the epsilons \[0\.0, 0\.5, 1\.0\] to start at, got 0\.4"):
        ratios().starting_at(0.4)
    with pytest.raises(GenclsError, match="E >= 2"):
        ratios().starting_at(1.0)
    with pytest.raises(GenclsError, match="largest value: expected a finite number"):
        ratios().capped(np.inf)
