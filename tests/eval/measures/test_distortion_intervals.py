"""Bands, areas and verdicts of models with trained seeds."""

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from gencls.core import GenclsError
from gencls.eval.measures.distortion_curves import DistortionCurve
from gencls.eval.measures.distortion_intervals import AreaInterval, area_contrast, area_interval, compare_areas, curve_band
from gencls.eval.measures.frechet_curves import FrechetCurve
from gencls.eval.measures.statistics import holm

EPSILONS = np.array([0.0, 0.2, 0.4, 1.0])
COMMON = np.random.default_rng(9).gamma(4, 0.25, size=(50, 1))


def lpips(
    slope: float, *, seeds: int = 3, noise: float = 0.02, seed: int = 0, common: np.ndarray = COMMON
) -> list[DistortionCurve]:
    """Curves of seeds that share how hard each image is."""
    generator = np.random.default_rng(seed)
    slopes = (slope + noise * generator.normal(size=(seeds, 1, 1))) * common
    return [DistortionCurve(EPSILONS, one * EPSILONS, False, "LPIPS") for one in slopes]


def row(*heights: float, larger: bool = False) -> DistortionCurve:
    """A curve without images."""
    return DistortionCurve((0.0, 1.0), [heights], larger, "FID")


def test_the_area_is_the_mean_of_the_areas_of_seeds() -> None:
    curves = lpips(0.2)
    found = area_interval(curves, 0.15)
    assert found.value == pytest.approx(np.mean([curve.area(0.15) for curve in curves]))
    assert found.low < found.value < found.high
    beyond = area_interval(curves, 0.15, beyond=True)
    assert beyond.value == pytest.approx(np.mean([curve.area_beyond(0.15) for curve in curves]))


def test_areas_of_rows_have_students_interval_over_seeds() -> None:
    curves = [row(0.0, 0.2), row(0.0, 0.6), row(0.0, 0.4)]
    found = area_interval(curves, 1.0, over="seeds")
    assert found[:3] == pytest.approx((0.8, 0.8 - t.isf(0.025, 2) * 0.1 / 3**0.5, 0.8 + t.isf(0.025, 2) * 0.1 / 3**0.5))


def test_limits_of_an_area_are_not_negative() -> None:
    curves = [row(0.0, 10.0), row(0.0, 2.0), row(3.0, 9.0)]
    found = area_interval(curves, 1.0, over="seeds")
    assert found.low == 0 < found.value < found.high
    beyond = [row(3.0, 4.0)] * 2
    assert area_interval(beyond, 1.0, over="seeds") == AreaInterval(0.0, 0.0, 0.0, 1.0)


def test_intervals_over_both_are_the_widest() -> None:
    curves = lpips(0.2, noise=0.01)
    widths = [
        found.high - found.low
        for found in (area_interval(curves, 0.15, over=o) for o in ("images", "seeds", "seeds and images"))
    ]
    assert widths[2] > max(widths[:2])
    assert widths[2] < np.hypot(*widths[:2]) * 1.001


def test_a_difference_is_welchs_over_seeds_and_paired_over_images() -> None:
    first, second = lpips(0.1), lpips(0.12, seed=1)
    found = area_contrast({"a": first, "b": second}, {"a": 1, "b": -1}, 0.15, over="seeds")
    areas = [[curve.area(0.15) for curve in curves] for curves in (first, second)]
    expected = ttest_ind(*areas, equal_var=False)
    assert found[1:] == pytest.approx((*expected.confidence_interval(0.95), expected.pvalue))
    # Without noise the difference of the areas is a multiple of the mean image, and so is its interval.
    pair = {"a": lpips(0.1, seeds=1), "b": lpips(0.11, seeds=1)}
    paired = area_contrast(pair, {"a": 1, "b": -1}, 10.0, over="images")
    alone = area_interval(pair["a"], 10.0, over="images")
    assert paired.high - paired.low < (alone.high - alone.low) / 5


def test_verdicts() -> None:
    table = compare_areas(
        {"strong": lpips(0.05, noise=0.002), "weak": lpips(0.3, noise=0.002, seed=1), "same": lpips(0.052, seed=2)}, 0.15
    )
    assert list(zip(table["model_a"], table["model_b"], table["verdict"], strict=True)) == [
        ("strong", "weak", "holds"),
        ("strong", "same", "open"),
        ("weak", "same", "does not hold"),
    ]
    assert set(table["measure"]) == {"LPIPS"}
    np.testing.assert_allclose(table["difference"], table["area_a"] - table["area_b"])
    np.testing.assert_allclose(table["p_holm"], holm(table["p_value"]))
    assert ((table["p_value"] < 0.05) == (table["verdict"] != "open")).all()


def test_a_verdict_needs_a_limit_beyond_zero() -> None:
    verdicts = [AreaInterval(0.1, low, high, 0.5).verdict for low, high in ((0.01, 0.2), (0.0, 0.2), (-0.1, 0.2), (-0.2, -0.1))]
    assert verdicts == ["holds", "open", "open", "does not hold"]


def test_a_contrast_of_several_models_has_the_sum_of_their_variances() -> None:
    models = {name: [row(0.0, x) for x in (a, a + 0.1, a + 0.3)] for name, a in {"vae": 0.4, "dae": 0.2, "aae": 0.3}.items()}
    found = area_contrast(models, {"dae": 0.5, "aae": 0.5, "vae": -1}, 1.0, over="seeds")
    variance = np.var([0.0, 0.05, 0.15], ddof=1) / 3
    freedom = (0.25 + 0.25 + 1) ** 2 / ((0.25**2 + 0.25**2 + 1) / 2)
    half = t.isf(0.025, freedom) * (1.5 * variance) ** 0.5
    assert found[:3] == pytest.approx((0.075, 0.075 - half, 0.075 + half))


def test_a_trained_network_by_itself_has_an_interval_over_images() -> None:
    (curve,) = lpips(0.2, seeds=1)
    found = area_interval(curve, 10.0, over="images")  # far from the line the area is a mean over images
    each = np.array([DistortionCurve(EPSILONS, [values], False, "LPIPS").area(10.0) for values in curve.values])
    half = t.isf(0.025, 49) * each.std(ddof=1) / 50**0.5
    assert found.high - found.value == pytest.approx(half, rel=0.05)  # 2000 resamples: a deviation of 1.6 %, three times
    with pytest.raises(GenclsError, match="at least two trained seeds, got 1; over='images' takes the trained"):
        area_interval(curve, 0.15)


def test_a_band_is_pointwise_and_has_no_limits_where_it_is_infinite() -> None:
    curves = [DistortionCurve((0, 1, 2), [[np.inf, 40.0 + s, 30.0], [np.inf, 42.0, 30.0]], True, "PSNR") for s in (0, 1, 2)]
    band = curve_band(curves)
    np.testing.assert_array_equal(band.heights, [np.inf, 41.5, 30.0])
    assert np.isnan(band.low).tolist() == np.isnan(band.high).tolist() == [True, False, False]
    assert band.low[1] < 41.5 < band.high[1]
    assert (band.low[2], band.high[2]) == (30.0, 30.0)
    frame = band.frame()
    assert list(frame.columns) == ["measure", "epsilon", "value", "ci_low", "ci_high"]
    assert frame["value"].tolist() == [np.inf, 41.5, 30.0]


def test_frechet_curves_of_seeds_have_intervals() -> None:
    generator = np.random.default_rng(0)
    before = generator.normal(size=(60, 2))
    after = [np.stack([before, before + shift + 0.1 * generator.normal(size=(60, 2))]) for shift in (0.9, 1.0, 1.1)]
    curves = [FrechetCurve((0.0, 1.0), before, one, "FID (2)") for one in after]
    found = area_interval(curves, 3.0, resamples=50)
    assert found.value == pytest.approx(np.mean([curve.area(3.0) for curve in curves]))
    assert found.low < found.value < found.high
    assert curve_band(curves, resamples=50).low[0] == pytest.approx(0.0, abs=1e-6)  # equal pictures, in each resample


def test_the_seed_fixes_the_resampling() -> None:
    curves = lpips(0.2)
    assert area_interval(curves, 0.15, seed=1) == area_interval(curves, 0.15, seed=1) != area_interval(curves, 0.15, seed=2)


LPIPS = lpips(0.2)
REFUSED = {
    "no curve": (lambda: area_interval([], 0.15), "curves: expected at least one curve, one for each trained seed, got none"),
    "an array": (lambda: area_interval(np.ones((2, 3)), 0.15), "got ndarray"),
    "arrays": (lambda: area_interval([np.ones((2, 3))], 0.15), "got ndarray"),
    "other epsilons": (
        lambda: area_interval([row(0.0, 1.0), DistortionCurve((0, 2), [[0, 1]], False, "FID")], 0.15, over="seeds"),
        r"expected curves at the same epsilons, got \[0\.0, 1\.0\] and \[0\.0, 2\.0\]",
    ),
    "another measure": (
        lambda: curve_band([row(0.0, 1.0), DistortionCurve((0, 1), [[0, 1]], False, "MSE")]),
        "expected curves of one measure, got 'FID' and 'MSE'",
    ),
    "another side": (
        lambda: curve_band([row(0.0, 1.0), row(0.0, 1.0, larger=True)]),
        "with one larger_is_better, got False and True",
    ),
    "other images": (
        lambda: compare_areas({"a": LPIPS, "b": lpips(0.2, common=COMMON[:20])}, 0.15),
        "expected curves of equally many images, got 50 and 20",
    ),
    "a base line NaN": (lambda: area_interval(LPIPS, np.nan), "LPIPS: base line: expected a finite number, got nan"),
    "an infinite curve": (
        lambda: area_interval([row(np.inf, 1.0, larger=True)] * 2, 0.5, over="seeds"),
        "expected a finite curve for an area, got infinite values at epsilon 0; cap them",
    ),
    "a confidence in percent": (lambda: area_interval(LPIPS, 0.15, confidence=95), "strictly between 0 and 1, got 95"),
    "no resamples": (lambda: curve_band(LPIPS, resamples=0), "resamples: expected an int >= 1"),
    "an unknown level": (lambda: curve_band(LPIPS, over="draws"), "expected over to be images, seeds, or seeds and images"),
    "one model": (lambda: compare_areas({"a": LPIPS}, 0.15), "at least two models by name, got 1"),
    "models without names": (lambda: compare_areas([LPIPS, LPIPS], 0.15), "at least two models by name, got list"),
    "a weight of another model": (
        lambda: area_contrast({"a": LPIPS}, {"b": 1}, 0.15),
        r"expected weights of models among \['a'\], got \['b'\]",
    ),
    "weights of 0": (lambda: area_contrast({"a": LPIPS}, {"a": 0}, 0.15), "expected a weight that is not 0"),
    "a weight NaN": (lambda: area_contrast({"a": LPIPS}, {"a": np.nan}, 0.15), "weight of a: expected a finite number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(GenclsError, match=message):
        call()
