"""The statistics of the recipe of GAN inversion: intervals, distances of sets, and claims, on toy records."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
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
from recipes.gan_inversion.inversions import Inversion
from recipes.gan_inversion.runs import Run
from recipes.gan_inversion.settings import BUDGETS, DISTANCES, PROFILES
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
        value = theirs(first, second).statistic
        assert (ours.value, ours.low, ours.high) == pytest.approx((value, min(resampled), max(resampled)))
    assert found.count == found.turned.count == 4
    assert not intervals.correlation(first, [1.0] * 4).known
    assert not intervals.correlation([1.0, 2.0], [1.0, 3.0]).known
    alone = intervals.correlation(first, second)
    assert alone.known
    assert alone.verdict == "–"


def test_a_corrected_interval_is_moved_as_far_as_the_resamples_lie_to_one_side():
    """Of normal values whose mean is moved by b the corrected interval is that of a mean moved by -b."""
    normal = NormalDist()
    shares = (np.arange(20_000) + 0.5) / 20_000
    resampled = np.array([normal.inv_cdf(share) for share in shares]) - 0.5
    found = Estimate.corrected(0.0, [*resampled, math.nan])
    assert (found.value, found.low, found.high) == pytest.approx((0.0, 0.5 - 1.96, 0.5 + 1.96), abs=0.01)
    assert math.isnan(Estimate.corrected(0.0, [math.nan]).low)
    tied = Estimate.corrected(1.0, [0.0] * 50 + [1.0] * 100 + [2.0] * 50)
    assert (tied.low, tied.high) == (0.0, 2.0)


def test_a_noisy_correlation_is_not_biased_a_second_time():
    """Each image adds noise to 18 settings. The percentiles of the resamples lie too near to 0."""
    source = np.random.default_rng(0)
    rate = source.standard_normal(18)
    images = [values + 10 * source.standard_normal((100, 18)).T for values in (rate[:, None], rate[:, None])]
    values, resampled = zip(*map(intervals.means, images), strict=True)
    found = intervals.correlation(*values, resampled).pearson
    middle = np.median([pearsonr(resampled[0][:, b], resampled[1][:, b]).statistic for b in range(200)])
    assert middle < found.value - 0.1
    assert found.low < found.value < found.high
    assert (found.low + found.high) / 2 > middle + 0.1


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


def test_predicted_seconds_grow_with_the_square_of_the_images():
    assert domains.seconds_of(200) < 60
    assert domains.seconds_of(10_000) == pytest.approx(25 + 400 + 1000)


def test_classes_of_one_image_have_no_distance():
    found = domains.measured(
        torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1]), lambda k: torch.randn(2, 2)
    )
    assert (found["kernel_in"], found["frechet_out"], found["resampled_in"]) == (None, None, [])


def test_table_3_3_has_intervals_the_floor_and_marks_of_bias(tmp_path, monkeypatch):
    (found,) = with_errors(tmp_path, (20,))
    kept = {"kernel_in": 0.001, "kernel_out": 0.003, "frechet_in": 10.0, "frechet_out": 15.0}
    kept |= {"resampled_in": [None, 0.002] + [0.0, 0.002] * 999, "resampled_out": [0.002, 0.004] * 1000}
    kept |= {"images": 2.0, "others": 18.0, "targets": 100.0, "features": 576}
    inversion = Inversion(method="enc-d", weight=10.0, distance="plain", steps=100)
    monkeypatch.setattr(domain_tables, "_known", lambda run: {inversion: (found, kept)})
    undefined = dict.fromkeys(("kernel_in", "frechet_in", "frechet_out"))
    monkeypatch.setattr(domain_tables, "input_distances", lambda run: SimpleNamespace(current=kept | undefined))
    table = domain_tables.domain_table(SimpleNamespace(profile=SimpleNamespace(judge="cnn")))
    inputs, _, row = table.rows
    assert inputs.head == "the images themselves"
    assert {cell.text for cell in inputs.cells} == {"–"}
    words = [cell.text for cell in row.cells]
    assert words[:3] == ["1 [0, 2]", "3 [2, 4]", "2 [2, 2]"]
    assert words[3:6] == ["10.0 (70.56)", "15.0 (78.89)", "5.0 (8.33)"]
    assert words[6].endswith("(42.5)")
    assert table.columns[4] == "FID (n ≤ d: biased) in domain"
    assert not any("Correlation" in note for note in table.notes)  # of one setting
    kept["images"] = 600.0
    assert domain_tables.domain_table(SimpleNamespace(profile=SimpleNamespace(judge="cnn"))).columns[4] == "FID in domain"


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


def test_a_significant_opposite_makes_a_claim_hold_on_average_only(tmp_path):
    """Two pairs differ in 25 of 30 images, one in 10 the other way, which McNemar's test does not take for chance."""
    all_right, few, more = with_errors(tmp_path, (30, 5, 15))
    pairs = [(all_right, few), (all_right, few), (few, more)]
    for pair, verdict in ((pairs, "holds on average"), ([one[::-1] for one in pairs], "does not hold on average")):
        row = claims.Claim("said", pair, claims.FEWER_ERRORS).row
        assert row.cells[1].ours == verdict


def as_printed(inversion):
    """A result of 500 images with the error rate and the distance that the thesis prints, as far as it prints them."""
    setting = inversion.method, inversion.weight
    if inversion.percept_weight == 10:
        error, distance = printed.DISTANCES.get(inversion.distance, 50.0), 0.0
    elif inversion.steps != 100:
        error, distance, _ = printed.STEPS[inversion.steps]
    elif inversion.distance == "plain":
        error, _, distance = printed.INVERSION[setting]
    else:
        error, distance = printed.ROBUST[setting][0], 0.0
    images = torch.arange(500)
    percept = distance + images % 2
    return SimpleNamespace(
        right=images >= 5 * error, percept=percept, in_domain=lambda values: values, out_of_domain=lambda values: -values
    )


@pytest.fixture
def printed_run(monkeypatch):
    """A run whose results are those that the thesis prints."""
    for module in (claims, domain_tables):
        monkeypatch.setattr(module, "finished", lambda run, chosen: {one: as_printed(one) for one in chosen})
    profile = PROFILES["fashion"]
    chosen = tuple(name for name in DISTANCES if name != "pixels")
    return Run(
        profile=profile, budget=BUDGETS["reduced"], out=Path("none"), data=[None] * 500, command="as told", chosen=chosen
    )


def test_the_thesis_bears_its_claims_out(printed_run):
    """What we measure on its numbers is what its column says, and positive."""
    made = {claim.text: claim for claim in claims.claims(printed_run)}
    by_thesis = {text: claim for text, claim in made.items() if claim.theirs}
    for claim in by_thesis.values():
        theirs = np.mean([second - first for first, second in claim.theirs])
        assert theirs > 0, claim.text
        if len(claim.theirs) == len(claim.pairs):
            assert claim.estimate.value == pytest.approx(theirs, abs=0.3), claim.text
    assert [len(claim.pairs) for claim in made.values()] == [12, 12, 6, 6, 6, 9, 9] * 2 + [3, 3, 18] + [1] * 5
    # It prints no distances under Robust-Corruptions, and no E-LPIPS, transformed plain or contrastive features.
    assert len(by_thesis) == 7 + 5 + 3 + 2
    assert "E-LPIPS errs less than LPIPS, shift-tolerant: Table 3.5" in made  # LPIPS is not at hand


def test_the_claim_about_elpips_says_how_little_of_d_it_is(tmp_path, monkeypatch):
    """Of LPIPS 10 of 200 are perceptual, of E-LPIPS 10 of 400; without one of them there is no claim and no caveat."""
    found = {
        name: record(tmp_path / name, [[0.0, 1.0]] * 2, [0, 0], percept=[[1.0, 9.0]] * 2, pixel=[[pixel, 9.0]] * 2)
        for name, pixel in (("lpips", 190.0), ("e-lpips", 390.0))
    }
    monkeypatch.setattr(claims, "finished", lambda run, chosen: {one: found[one.distance] for one in chosen})
    (tmp_path / "vgg16.pth").touch()
    run = Run(
        profile=PROFILES["fashion"],
        budget=BUDGETS["reduced"],
        out=tmp_path,
        data=[None] * 2,
        command="as told",
        weights=tmp_path,
        chosen=("lpips", "e-lpips"),
    )
    (note,) = claims._of_shares(run)
    assert note.startswith("E-LPIPS and LPIPS average over places, while D sums pixels: 2.5 % and 5 % of D are perceptual")
    assert "“E-LPIPS errs less than LPIPS” says little" in note
    assert "E-LPIPS errs less than LPIPS: Table 3.5" in {claim.text for claim in claims._of_distances(run) if claim.pairs}
    assert not [*claims._of_shares(replace(run, chosen=("e-lpips",)))]


def test_correlations_have_the_sign_of_their_claims(printed_run, monkeypatch):
    monkeypatch.setattr(claims, "domain_correlations", lambda run: {})
    rows = {row.head: [cell.ours for cell in row.cells] for row in claims._correlated(printed_run)}
    inside, outside = (f"reconstructions closer {side} domain go with more errors: plain features" for side in ("in", "out of"))
    assert rows.keys() == {inside, outside}  # all distances under Robust-Corruptions are equal here
    assert rows[inside][-1] == "Pearson +0.73, Spearman +0.80"
    assert rows[inside][0].startswith("Pearson +0.73 [")
    assert rows[inside][0].endswith("; 18 settings")
    assert rows[outside][0].startswith("Pearson -0.73 [")  # ours lie out of domain on the other side of 0


def test_gaps_are_correlated_over_the_settings_that_have_one(tmp_path, monkeypatch):
    """Errors of 5, 15 and 25 of 30 images, and gaps that rise with them; the fourth setting has no class of two images."""
    kept = [{"kernel_in": 1.0, "kernel_out": 1.0 + gap, "frechet_in": 2.0, "frechet_out": 2.0 - gap} for gap in (1, 2, 4)]
    source = np.random.default_rng(0)
    for one in kept:
        one["resampled_in"] = [None] * 100 + [1.0] * 1900
        one["resampled_out"] = (one["kernel_out"] + source.standard_normal(2000)).tolist()
    kept.append({"kernel_in": None})
    found = with_errors(tmp_path, (25, 15, 5, 1))
    weights = (0.1, 1.0, 10.0, 100.0)
    settings = [Inversion(method="enc", weight=weight, distance="plain", steps=100) for weight in weights]
    monkeypatch.setattr(domain_tables, "_known", lambda run: dict(zip(settings, zip(found, kept, strict=True), strict=True)))
    made = domain_tables.domain_correlations(None)
    expected = pearsonr([5, 15, 25], [1, 2, 4]).statistic
    assert (made["KID"].pearson.value, made["FID"].pearson.value) == pytest.approx((expected, -expected))
    assert made["KID"].spearman.value == 1.0
    assert made["KID"].count == 3
    assert -1 <= made["KID"].pearson.low < made["KID"].pearson.high <= 1
    assert math.isnan(made["FID"].pearson.low)
    (note,) = domain_tables._correlations(None)
    assert "over 3 settings" in note


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
