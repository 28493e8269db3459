"""The statistics of the recipe of GAN inversion: intervals, distances of sets, and claims, on toy records."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from gencls.eval.measures.fid import frechet_distance
from gencls.eval.measures.mmd import unbiased_mmd
from gencls.eval.measures.statistics import bootstrap_band
from recipes.gan_inversion import claims, domain_tables, domains, intervals, printed
from recipes.gan_inversion.intervals import Estimate
from tests.inversion_records import record

# --- intervals


def test_an_estimate_says_its_interval_and_its_verdict():
    assert Estimate(2.0, 1.0, 3.0).text() == "+2.0 [+1.0, +3.0]"
    assert Estimate(2.0, math.nan, math.nan).text(".2f") == "2.00"
    assert Estimate(math.nan, math.nan, math.nan).text() == "–"
    verdicts = [Estimate(1.0, low, high).verdict for low, high in ((0.1, 2), (0.0, 2), (-2, -0.1), (math.nan, math.nan))]
    assert verdicts == ["holds", "open", "does not hold", "–"]
    assert Estimate(2.0, 1.0, 4.0).turned == Estimate(-2.0, -4.0, -1.0)


def test_the_interval_of_a_mean_is_the_bootstraps():
    values = torch.randn(25).double().numpy()
    low, high = bootstrap_band(values, lambda sample: sample.mean(axis=1, keepdims=True))
    found = intervals.mean_estimate(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low[0], high[0]))


def test_correlations_are_scipys():
    first, second = [1.0, 3.0, 2.0, 5.0], [2.0, 4.0, 4.5, 9.0]
    again = np.stack([first, second[::-1], [1.0, 1.0, 2.0, 3.0]]).T, np.stack([second, first, second]).T
    found = intervals.correlation(first, second, again)
    for ours, theirs in ((found.pearson, pearsonr), (found.spearman, spearmanr)):
        resampled = [theirs(one, two).statistic for one, two in zip(again[0].T, again[1].T, strict=True)]
        assert (ours.value, ours.low, ours.high) == pytest.approx(
            (theirs(first, second).statistic, min(resampled), max(resampled))
        )
    assert not intervals.correlation(first, [1.0] * 4).known
    assert not intervals.correlation([1.0, 2.0], [1.0, 3.0]).known
    alone = intervals.correlation(first, second)
    assert alone.known
    assert alone.verdict == "–"


def test_the_peak_between_ends_and_reference():
    assert intervals.excess([1.0, 4.0, 3.0], 6.0) == pytest.approx(0.5)
    plain, robust = (printed.INTERPOLATION[name] for name in ("plain", "corruptions"))
    peaks = [intervals.excess(one["mean"], one["reference"][0]) for one in (plain, robust)]
    assert peaks == pytest.approx([(442.8 - 328.75) / (378.9 - 328.75), (493.1 - 354.8) / (464.6 - 354.8)])
    assert intervals.excess([7.0, 8.0, 7.0], 6.0) == math.inf


def test_the_peaks_of_resamples():
    """Images of two kinds, whose lines are far apart: a resample with i of the first has a known excess."""
    lines, outside = [[0.0, 2.0, 0.0]] * 3 + [[0.0, 4.0, 0.0]] * 3, [4.0] * 6
    value, resampled = intervals.excesses(lines, outside)
    assert value == pytest.approx(0.75)
    share = intervals.resamples(6)[:, :3].sum(1) / 6
    np.testing.assert_allclose(resampled, (2 * share + 4 * (1 - share)) / 4)


# --- distances of sets


def test_sets_in_and_out_of_domain():
    labels = torch.tensor([0, 1, 1, 0, 2, 2, 2, 1, 2])
    own, others, groups = domains.domain_sets(labels, 0)
    assert own.tolist() == [0, 3]
    assert others.tolist() == [1, 2, 4, 5, 6, 7, 8]
    assert [group.tolist() for group in groups] == [[1, 2], [4, 5], [6, 7]]  # of two each, and at most three
    own, _, groups = domains.domain_sets(labels, 1)
    assert [group.tolist() for group in groups] == [[0, 3, 4], [5, 6, 8]]


def test_distances_of_sets_are_means_over_classes():
    source = torch.Generator().manual_seed(0)
    real, real_labels = torch.randn(80, 3, generator=source), torch.arange(80) % 2
    labels = torch.arange(12) % 2
    made = torch.randn(2, 12, 3, generator=source) + torch.tensor([0.0, 2.0]).view(2, 1, 1)
    found = domains.measured(real, real_labels, labels, lambda k: made[k])

    def frechet(real, made):
        return frechet_distance(torch.nn.Flatten().eval(), real, made)

    for side in ("in", "out"):
        sets = [(real[real_labels == k], made[k, (labels == k) == (side == "in")]) for k in (0, 1)]
        for name, distance in (("frechet", frechet), ("kernel", unbiased_mmd)):
            expected = float(sum(distance(*one) for one in sets)) / 2
            assert found[f"{name}_{side}"] == pytest.approx(expected, rel=1e-4)
        assert np.mean(found[f"resampled_{side}"]) == pytest.approx(found[f"kernel_{side}"], rel=0.2)
    assert [found[name] for name in ("images", "others", "targets", "features", "real")] == [6, 6, 40, 3, 80]
    again = domains.measured(real, real_labels, labels, lambda k: made[k], found["similarities"])
    assert again == found
    gap = domain_tables.distance_gaps([found])[0]
    assert gap.tolist() == [out - inside for out, inside in zip(found["resampled_out"], found["resampled_in"], strict=True)]


def test_classes_of_one_image_have_no_distance():
    found = domains.measured(
        torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1]), lambda k: torch.randn(2, 2)
    )
    assert (found["kernel_in"], found["frechet_out"], found["resampled_in"]) == (None, None, [])


# --- claims


def with_errors(folder, numbers, total=30):
    """Results of which the first images are right, by their numbers."""
    rows = [[[0.0, 1.0] if i < number else [1.0, 0.0] for i in range(total)] for number in numbers]
    return [record(folder / f"{number}", losses, [0] * total) for number, losses in zip(numbers, rows, strict=True)]


def test_claims_count_pairs_and_significant_ones(tmp_path):
    """29 of 30 against 10 of 30 is sure; 2 against 1 is not; the third goes the other way, surely."""
    numbers = with_errors(tmp_path, (29, 10, 2, 1))
    pairs = [(numbers[0], numbers[1]), (numbers[2], numbers[3]), (numbers[1], numbers[0])]
    row = claims.Claim("said", pairs, claims.FEWER_ERRORS, [(1.0, 2.0), (2.0, 1.0)]).row
    assert [cell.ours for cell in row.cells[1:]] == ["open", "2 of 3", "0", "1", "1", "+0.0 points; 1 of 2"]
    tied = claims.Claim("said", [(numbers[0], numbers[0]), (numbers[2], numbers[3])], claims.FEWER_ERRORS).row
    assert [cell.ours for cell in tied.cells][2:4] == ["1 of 2", "1"]


def test_claims_say_the_mean_difference_over_pairs_and_images(tmp_path):
    """One pair differs in 19 of 30 images, the other in 1: a third of all on average, by image 0, 50 or 100 points."""
    many, few, two, one = with_errors(tmp_path, (29, 10, 2, 1))
    claim = claims.Claim("said", [(many, few), (two, one)], claims.FEWER_ERRORS)
    by_image = [50.0 * ((10 <= i < 29) + (i == 1)) for i in range(30)]
    assert claim.estimate == intervals.mean_estimate(by_image)
    assert claim.estimate.value == pytest.approx(100 / 3)
    assert claim.row.cells[0].ours.startswith("+33.3 [+2")
    assert claim.row.cells[0].ours.endswith("] points")
    assert claim.row.cells[1].ours == "holds"
    turned = claims.Claim("said", [(few, many), (one, two)], claims.FEWER_ERRORS)
    assert turned.row.cells[1].ours == "does not hold"


def test_the_closer_reconstruction_is_ahead(tmp_path):
    near = record(tmp_path / "near", [[float(i), 9.0] for i in range(12)], [0] * 12)
    far = record(tmp_path / "far", [[i + 1.0 + i / 100, 9.0] for i in range(12)], [0] * 12)
    ahead, p = claims.CLOSER.test(near, far)
    assert ahead == pytest.approx(6.5)  # the mean of the ranks 1 to 12
    assert p == pytest.approx(2 / 2**12)  # all signs agree
    assert claims.CLOSER.test(near, near) == (0.0, 1.0)
    assert claims.Claim("said", [(near, far)], claims.CLOSER).estimate.value == pytest.approx(1.055)


def test_the_ends_overfit_one_distance_more_than_the_other(monkeypatch):
    resampled = {"plain": np.array([1.5, 2.0, 2.5]), "corruptions": np.array([1.0, 1.1, 1.2])}
    found = {name: (Estimate.of(values[1], values), values) for name, values in resampled.items()}
    monkeypatch.setattr(claims, "peaks", lambda run: found)
    run = SimpleNamespace(profile=SimpleNamespace(main=("plain", "corruptions")))
    (row,) = claims._overfitted(run)
    words = [cell.ours for cell in row.cells]
    assert words[0] == "+0.90 [+0.50, +1.30] of the way: 2.00 [1.50, 2.50] against 1.10 [1.00, 1.20]"
    assert words[1] == "holds"
    assert words[-1] == "+1.01 of the way: 2.27 against 1.26"
    monkeypatch.setattr(claims, "peaks", lambda run: {"plain": found["plain"]})
    assert not [*claims._overfitted(run)]


def test_printed_gaps_go_with_printed_errors():
    errors = [printed.INVERSION[setting][0] for setting in printed.FRECHET]
    gaps = [values[2] for values in printed.FRECHET.values()]
    assert domain_tables.printed_correlation().pearson.value == pytest.approx(pearsonr(errors, gaps).statistic)
