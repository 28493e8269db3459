"""Intervals over images and trained seeds against Student's own, Welch's and Howe's formulas."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind

from gencls.core import GenclsError
from gencls.eval.measures.statistics import bootstrap_counts
from gencls.eval.measures.trained_seeds import Replicates, Uncertain, combine


def means(values: np.ndarray, resamples: int = 4000) -> Replicates:
    """The mean over images as a statistic, of values (S, N)."""
    counts = bootstrap_counts(values.shape[1], resamples=resamples)
    return Replicates(values.mean(1)[:, None], (counts @ values.T / values.shape[1])[..., None])


def given_seeds(found: list[float]) -> Replicates:
    """Seeds without images."""
    return Replicates(np.array(found)[:, None], np.array(found)[None, :, None])


def test_over_seeds_it_is_students_interval() -> None:
    found = [0.3, 0.5, 0.35]
    group, expected = combine([given_seeds(found)], [1.0], 1, "seeds"), ttest_1samp(found, 0.0)
    assert np.concatenate(group.interval(0.9)) == pytest.approx(expected.confidence_interval(0.9))
    assert group.p_values() == pytest.approx(expected.pvalue)


def test_a_difference_over_seeds_is_welchs() -> None:
    first, second = [0.3, 0.5, 0.35], [0.1, 0.12, 0.3, 0.2]
    found = combine([given_seeds(first), given_seeds(second)], [1.0, -1.0], 1, "seeds")
    expected = ttest_ind(first, second, equal_var=False)
    assert np.concatenate(found.interval()) == pytest.approx(expected.confidence_interval(0.95))
    assert found.p_values() == pytest.approx(expected.pvalue)


def test_over_images_it_is_students_interval_up_to_the_resampling() -> None:
    values = np.random.default_rng(0).gamma(2, size=(1, 30))
    found, expected = combine([means(values)], [1.0], 30, "images"), ttest_1samp(values[0], 0.0).confidence_interval(0.95)
    # The standard deviation of 4000 resamples is known to 1.1 %; here are three of these.
    assert np.concatenate(found.interval()) - found.value == pytest.approx(expected - values.mean(), rel=0.035)


def test_a_difference_over_images_is_paired() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(size=40)
    first, second = shared + 0.1, shared + 0.05 * generator.normal(size=40)
    found = combine([means(first[None]), means(second[None])], [1.0, -1.0], 40, "images")
    expected = ttest_1samp(first - second, 0.0).confidence_interval(0.95)
    assert np.concatenate(found.interval()) - found.value == pytest.approx(expected - (first - second).mean(), rel=0.035)


def test_both_parts_add_up_as_squares() -> None:
    value, seeds, images = np.array([1.0]), np.array([0.04]), np.array([0.09])
    low, high = Uncertain(value, seeds, np.array([2.0]), images, 9).interval()
    half = np.hypot(t.isf(0.025, 2) * 0.2, t.isf(0.025, 9) * 0.3)
    assert (low[0], high[0]) == pytest.approx((1 - half, 1 + half))


def test_the_p_value_is_where_the_interval_reaches_zero() -> None:
    found = Uncertain(np.array([1.0, -2.0]), np.array([0.04, 0.2]), np.array([2.0, 3.7]), np.array([0.09, 0.0]), 9)
    for i, p in enumerate(found.p_values()):
        low, high = found.interval(1 - p)
        assert min(abs(low[i]), abs(high[i])) == pytest.approx(0.0, abs=1e-9)


def test_values_without_variance() -> None:
    nothing = np.zeros(2)
    found = Uncertain(np.array([0.0, 0.1]), nothing, np.ones(2), nothing, 9)
    assert [part.tolist() for part in found.interval()] == [[0.0, 0.1], [0.0, 0.1]]
    assert found.p_values().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_images_and_seeds_together_count_once(shared: float) -> None:
    """Means over images of N x S independent numbers plus a part that the seeds share: each part of the variance is known."""
    generator, images, seeds = np.random.default_rng(2), 60, 4
    common, alone = shared * generator.normal(size=images), generator.normal(size=(seeds, images))
    alone -= alone.mean(axis=0)  # the seeds share exactly `common`
    group = means(common + alone)
    found = combine([group], [1.0], images, "seeds and images")
    assert found.seeds == pytest.approx(group.found.var(axis=0, ddof=1) / seeds)
    between = alone.var(axis=1, ddof=1).mean() / images / (seeds - 1)
    expected = max(common.var(ddof=1) / images - between, 0.0)
    # 3.5 % as above, of the variance of one seed; it is clipped at 0 where the seeds share nothing.
    assert found.images == pytest.approx(expected, abs=0.07 * (common + alone).var(axis=1).mean() / images)
    assert combine([group], [1.0], images, "images").images == pytest.approx(common.var(ddof=1) / images, rel=0.07)


def test_a_model_of_weight_zero_needs_no_seeds() -> None:
    found = combine([given_seeds([0.3, 0.5]), given_seeds([0.1])], [1.0, 0.0], 1, "seeds")
    assert found.value.tolist() == [0.4]
    assert found.seed_freedom.tolist() == [1.0]


def test_too_few_of_either_are_refused() -> None:
    with pytest.raises(GenclsError, match="over seeds and images: expected curves of at least two trained seeds, got 1"):
        combine([means(np.ones((1, 5)), 10)], [1.0], 5, "seeds and images")
    for over in ("images", "seeds and images"):
        with pytest.raises(GenclsError, match=f"interval over {over}: expected at least two images, got 1"):
            combine([means(np.ones((3, 1)), 10)], [1.0], 1, over)
    with pytest.raises(GenclsError, match="expected over to be images, seeds, or seeds and images, got 'draws'"):
        combine([means(np.ones((3, 5)), 10)], [1.0], 5, "draws")
    with pytest.raises(GenclsError, match="confidence"):
        combine([means(np.ones((3, 5)), 10)], [1.0], 5, "seeds").interval(95)
