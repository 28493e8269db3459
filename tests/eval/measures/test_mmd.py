import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.eval.measures.fid import kernel_distance
from gencls.eval.measures.mmd import mean_similarity, unbiased_mmd
from gencls.eval.measures.statistics import bootstrap_counts


def features(count, shift=0.0):
    return torch.randn(count, 5, dtype=torch.float64) + shift


def test_equals_torchmetrics_on_sets_of_one_size():
    real, made = features(30), features(30, 0.4)
    expected, _ = kernel_distance(nn.Identity().eval(), real, made, subsets=1, subset_size=30)
    assert float(unbiased_mmd(real, made)) == pytest.approx(expected, rel=1e-6)


def test_unequal_sets_by_hand():
    real, made = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    within_real = (1 + 1 + 27) / 3  # (fg + 1)^3 of the pairs 0, 1; 0, 2; 1, 2
    across = (1 + 8 + 27 + 1 + 0 - 1) / 6
    assert mean_similarity(real) == pytest.approx(within_real)
    assert float(unbiased_mmd(real, made)) == pytest.approx(within_real + 0 - 2 * across)
    assert float(unbiased_mmd(real, made, real_similarity=1.0)) == pytest.approx(1 - 2 * across)


def test_many_rows_come_in_chunks():
    real = features(2300)
    kernel = (real @ real.T / 5 + 1) ** 3
    assert mean_similarity(real) == pytest.approx(float(kernel.sum() - kernel.trace()) / (2300 * 2299))


def test_no_bias_for_few_images():
    """Sets of 4 and of 40 from the distribution of the real ones: 0 within four standard errors."""
    real = features(2000)
    for count in (4, 40):
        found = torch.stack([unbiased_mmd(real, features(count), real_similarity=mean_similarity(real)) for _ in range(60)])
        assert abs(float(found.mean())) < 4 * float(found.std()) / 60**0.5 + 0.01


def test_counts_choose_images_and_copies_do_not_meet():
    real, made = features(20), features(6, 0.3)
    counts = torch.tensor([[1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2], [0, 1, 0, 1, 1, 0], [6, 0, 0, 0, 0, 0]])
    found = unbiased_mmd(real, made, counts=counts)
    whole, part = unbiased_mmd(real, made), unbiased_mmd(real, made[[1, 3, 4]])
    torch.testing.assert_close(found[:3], torch.stack([whole, whole, part]))
    assert found[3].isnan()


def test_resamples_spread_as_new_samples_do():
    """The bootstrap's standard deviation is that over new sets of the same distribution, roughly, and it adds no bias."""
    real, sets = features(500), [features(40, 0.5) for _ in range(80)]
    values = torch.stack([unbiased_mmd(real, one) for one in sets])
    counts = torch.from_numpy(bootstrap_counts(40, resamples=200))
    resampled = torch.stack([unbiased_mmd(real, one, counts=counts) for one in sets[:20]])
    assert float(resampled.std(1).mean()) == pytest.approx(float(values.std()), rel=0.35)
    assert abs(float((resampled.mean(1) - values[:20]).mean())) < 0.25 * float(values.std())


def test_wrong_sets():
    real, made = features(4), features(3)
    expected = r"unbiased_mmd: expected made to be finite real features \(N, d\), N >= 2 and d >= 1, got torch.* of shape "
    for wrong, shown in ((made[:1], r"\(1, 5\)$"), (made[:, :0], r"\(3, 0\)$"), (made.to(torch.complex64), r"\(3, 5\)$")):
        with pytest.raises(GenclsError, match=expected + shown):
            unbiased_mmd(real, wrong)
    for wrong in (real / 0, real * 1e46):
        with pytest.raises(GenclsError, match="expected real to be .*, got .* with NaN, infinite or larger numbers"):
            unbiased_mmd(wrong, made)
    with pytest.raises(GenclsError, match="expected as many features of real as of made, got 5 and 4"):
        unbiased_mmd(real, made[:, :4])
    for counts in (torch.ones(2, 4), -torch.ones(2, 3), torch.full((1, 3), torch.nan), torch.ones(1, 3, dtype=torch.complex64)):
        with pytest.raises(GenclsError, match=r"unbiased_mmd: expected finite counts \(B, 3\) >= 0, got torch"):
            unbiased_mmd(real, made, counts=counts)
    with pytest.raises(GenclsError, match="mean_similarity: expected features to be finite"):
        mean_similarity(real[0])


def test_large_numbers_and_graphs(recwarn):
    real, made = features(4).requires_grad_(), features(3)
    assert not unbiased_mmd(real, made).requires_grad
    assert mean_similarity(real) == mean_similarity(real.detach())
    assert not recwarn
    assert unbiased_mmd(real * 1e45 / real.abs().max(), made).isfinite()
