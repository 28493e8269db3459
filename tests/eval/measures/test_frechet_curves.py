"""The Frechet distance along attack strengths, against the distance of two sets."""

import numpy as np
import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.eval.measures.fid import frechet_distance
from gencls.eval.measures.frechet_curves import FrechetCurve
from gencls.eval.measures.statistics import bootstrap_counts

FLAT = nn.Identity().eval()


def features(count: int = 40, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features before and after attacks of three strengths, float64."""
    before = torch.randn(count, size, dtype=torch.float64) @ torch.randn(size, size, dtype=torch.float64) + 5
    return before, torch.stack([before + strength * torch.randn_like(before) for strength in (0.0, 0.5, 2.0)])


def test_heights_equal_the_distance_of_two_sets() -> None:
    before, after = features()
    curve = FrechetCurve((0.0, 0.5, 2.0), before, after, "FID")
    assert curve.heights == pytest.approx([frechet_distance(FLAT, before, one) for one in after], rel=1e-6, abs=1e-6)
    assert (curve.count, curve.larger_is_better) == (40, False)


def test_fewer_images_than_features() -> None:
    before, after = features(count=6, size=9)
    curve = FrechetCurve((0.0, 0.5, 2.0), before, after, "FID")
    # Zero eigenvalues come out as roundings of 1e-15 of the largest, whose roots are 3e-8 of its root.
    assert curve.heights == pytest.approx([frechet_distance(FLAT, before, one) for one in after], rel=1e-5, abs=1e-5)


def test_resamples_equal_the_distance_of_repeated_rows() -> None:
    before, after = features()
    counts = bootstrap_counts(40, resamples=3)
    found = FrechetCurve((0.0, 0.5, 2.0), before, after, "FID").resampled(counts)
    for row, distances in zip(counts, found, strict=True):
        times = torch.from_numpy(row.astype(np.int64))
        expected = [
            frechet_distance(FLAT, before.repeat_interleave(times, 0), one.repeat_interleave(times, 0)) for one in after
        ]
        assert distances == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = features()
    curve, counts = FrechetCurve((0.0, 0.5, 2.0), before, after, "FID"), bootstrap_counts(40, resamples=5)
    whole = curve.resampled(counts)
    monkeypatch.setattr("gencls.eval.measures.frechet_curves._BLOCK", 1)
    np.testing.assert_allclose(curve.resampled(counts), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.ones((4, 2)), np.ones((2, 5, 2)), r"features \(2, N, d\), one set for each epsilon, got \(4, 2\) and \(2, 5, 2\)"),
        (np.ones((4, 2)), np.ones((3, 4, 2)), r"got \(4, 2\) and \(3, 4, 2\)"),
        (np.ones((4, 2, 2)), np.ones((2, 4, 4)), r"got \(4, 2, 2\) and \(2, 4, 4\)"),
        (np.ones((1, 2)), np.ones((2, 1, 2)), "N >= 2"),
        (np.full((4, 2), np.nan), np.ones((2, 4, 2)), "reference features: expected finite numbers"),
        (np.ones((4, 2)), np.full((2, 4, 2), np.inf), "expected finite features"),
    ],
)
def test_bad_features_are_refused(before: np.ndarray, after: np.ndarray, message: str) -> None:
    with pytest.raises(GenclsError, match=message):
        FrechetCurve((0.0, 1.0), before, after, "FID")


def test_epsilons_are_checked() -> None:
    with pytest.raises(GenclsError, match="that grow"):
        FrechetCurve((1.0, 0.0), np.ones((4, 2)), np.ones((2, 4, 2)), "FID")
