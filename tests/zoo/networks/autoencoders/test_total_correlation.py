"""The parts of the total-correlation penalty against closed forms and against the divergence that they add up to."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gencls.core import GenclsError
from gencls.zoo.networks import CodePosterior, KLDivergence, TotalCorrelation

SAMPLINGS = ("weighted", "stratified")
every_sampling = pytest.mark.parametrize("sampling", SAMPLINGS)


def posterior_of(count, size, dtype=torch.float64):
    return CodePosterior(torch.randn(count, size, dtype=dtype), torch.randn(count, size, dtype=dtype) - 1)


def normals(posterior):
    return Independent(Normal(posterior.mean, (0.5 * posterior.log_variance).exp()), 1)


@every_sampling
def test_the_parts_add_up_to_the_log_ratio(sampling) -> None:
    posterior = posterior_of(9, 4)
    codes = posterior.sample()
    parts = TotalCorrelation(1.0, 60, sampling=sampling).decompose(codes, posterior)
    expected = (normals(posterior).log_prob(codes) - Normal(0.0, 1.0).log_prob(codes).sum(1)).mean()
    torch.testing.assert_close(sum(parts), expected)
    torch.testing.assert_close(TotalCorrelation(1.0, 60, sampling=sampling)(codes, posterior), expected)


@every_sampling
def test_the_expected_sum_is_the_divergence(sampling) -> None:
    posterior = posterior_of(9, 4)
    penalty, rounds = TotalCorrelation(1.0, 60, sampling=sampling), 400
    values = torch.stack([sum(penalty.decompose(codes, posterior)) for codes in (posterior.sample() for _ in range(rounds))])
    expected = KLDivergence()(posterior.mean, posterior)
    assert values.mean().item() == pytest.approx(
        expected.item(), abs=4 * float(values.std()) / rounds**0.5
    )  # 4 standard errors


@every_sampling
def test_only_the_total_correlation_counts_beta_times(sampling) -> None:
    posterior = posterior_of(9, 4)
    codes = posterior.sample()
    parts = TotalCorrelation(1.0, 60, sampling=sampling).decompose(codes, posterior)
    found = [TotalCorrelation(beta, 60, sampling=sampling)(codes, posterior) for beta in (0.0, 3.0)]
    torch.testing.assert_close(found[0], parts[0] + parts[2])
    torch.testing.assert_close(found[1], parts[0] + 3 * parts[1] + parts[2])


def test_the_whole_data_set_gives_the_exact_parts() -> None:
    """Stratified; q(z) and q(z_k) are mixtures of torch."""
    posterior = posterior_of(9, 3)
    codes = posterior.sample()
    deviation = (0.5 * posterior.log_variance).exp()
    equal = Categorical(logits=torch.zeros(9, dtype=torch.float64))
    whole = MixtureSameFamily(equal, normals(posterior)).log_prob(codes)
    each = sum(MixtureSameFamily(equal, Normal(posterior.mean[:, k], deviation[:, k])).log_prob(codes[:, k]) for k in range(3))
    information, correlation, dimensions = TotalCorrelation(2.0, 9, sampling="stratified").decompose(codes, posterior)
    torch.testing.assert_close(information, (normals(posterior).log_prob(codes) - whole).mean())
    torch.testing.assert_close(correlation, (whole - each).mean())
    torch.testing.assert_close(dimensions, (each - Normal(0.0, 1.0).log_prob(codes).sum(1)).mean())


def test_normal_means_have_a_closed_form() -> None:
    """Means from N(0, S) and a common variance v make q(z) = N(0, S + v), whose three parts are known."""
    count, variance = 1500, 0.25
    spread = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    mean = torch.randn(count, 2, dtype=torch.float64) @ torch.linalg.cholesky(spread).T
    posterior = CodePosterior(mean, torch.full_like(mean, math.log(variance)))
    found = TotalCorrelation(1.0, count, sampling="stratified").decompose(posterior.sample(), posterior)
    total = spread + variance * torch.eye(2)
    log_det = total.logdet()
    information = 0.5 * (log_det - 2 * math.log(variance))
    correlation = 0.5 * (total.diagonal().log().sum() - log_det)
    dimensions = 0.5 * (total.diagonal() - total.diagonal().log() - 1).sum()
    # Log ratios of 1500 draws vary by about 1, which is 0.03 in their mean; a mixture of 1500 is close to its limit.
    for value, expected in zip(found, (information, correlation, dimensions), strict=True):
        assert value.item() == pytest.approx(float(expected), abs=0.1)


def test_the_stratified_estimate_of_q_is_unbiased() -> None:
    """The mean of exp over all batches that contain an image is q(z) at its code."""
    size, batch = 6, 3
    posterior = posterior_of(size, 2)
    code = posterior.sample()[0]
    exact = normals(posterior).log_prob(code).exp().mean()
    penalty = TotalCorrelation(1.0, size, sampling="stratified")
    estimates = []
    for others in torch.combinations(torch.arange(1, size), batch - 1):
        rows = torch.cat([torch.tensor([0]), others])
        part = CodePosterior(posterior.mean[rows], posterior.log_variance[rows])
        weights = penalty._log_weights(part.mean)[0]
        estimates.append((normals(part).log_prob(code) + weights).exp().sum())
    torch.testing.assert_close(torch.stack(estimates).mean(), exact)


def test_equal_posteriors_have_neither_information_nor_correlation() -> None:
    """The weighted estimate is off by the constants that the docstring names."""
    size, images = 3, 50
    posterior = CodePosterior(torch.full((8, size), 0.5), torch.full((8, size), -1.0))
    codes = posterior.sample()
    stratified = TotalCorrelation(1.0, images, sampling="stratified").decompose(codes, posterior)
    torch.testing.assert_close(stratified[0], torch.zeros(()), rtol=0, atol=1e-5)  # rounding of sums of 8 logarithms
    torch.testing.assert_close(stratified[1], torch.zeros(()), rtol=0, atol=1e-5)
    weighted = TotalCorrelation(1.0, images).decompose(codes, posterior)
    shift = math.log(images)
    shifts = (shift, (size - 1) * shift, -size * shift)
    for found, exact, by in zip(weighted, stratified, shifts, strict=True):
        assert (found - exact).item() == pytest.approx(by, abs=1e-4)  # rounding of numbers around 10


@every_sampling
def test_gradients_are_finite_differences(sampling) -> None:
    posterior = posterior_of(5, 2)
    inputs = [tensor.detach().requires_grad_() for tensor in (posterior.sample(), *posterior)]
    penalty = TotalCorrelation(3.0, 20, sampling=sampling)
    assert torch.autograd.gradcheck(lambda codes, *parts: penalty(codes, CodePosterior(*parts)), inputs)


def test_bad_settings_and_batches_are_refused() -> None:
    with pytest.raises(GenclsError, match=r"TotalCorrelation: expected beta >= 0 and dataset_size >= 2, got -1.0 and 10"):
        TotalCorrelation(-1.0, 10)
    with pytest.raises(GenclsError, match=r"expected beta >= 0 and dataset_size >= 2, got 1.0 and 1"):
        TotalCorrelation(1.0, 1)
    with pytest.raises(GenclsError, match=r"expected sampling to be one of 'weighted', 'stratified'"):
        TotalCorrelation(1.0, 10, sampling="mws")
    penalty = TotalCorrelation(1.0, 4)
    for count, message in (
        (1, "expected at least 2 codes at once, got 1"),
        (5, r"at most the 4 codes of the data set at once"),
    ):
        posterior = posterior_of(count, 2)
        for call in (penalty, penalty.decompose):
            with pytest.raises(GenclsError, match=message):
                call(posterior.mean, posterior)
    with pytest.raises(GenclsError, match=r"expected the posterior of a variational encoder"):
        penalty.decompose(torch.randn(3, 2), CodePosterior(torch.randn(3, 2)))
