"""What all penalties on codes keep, and the closed form of the simplest."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from gencls.core import GenclsError
from gencls.zoo.networks import MMD, Adversarial, CodePosterior, CodeRegularizer, KLDivergence, ShapiroWilk, TotalCorrelation

COUNT, SIZE = 12, 3
PENALTIES: dict[str, Callable[[], CodeRegularizer]] = {
    "kl": KLDivergence,
    "mmd": MMD,
    "mmd-unbiased": lambda: MMD(kernel="inverse-multiquadratic", estimator="unbiased"),
    "shapiro-wilk": ShapiroWilk,
    "total-correlation": lambda: TotalCorrelation(4.0, 100),
    "total-correlation-stratified": lambda: TotalCorrelation(4.0, 100, sampling="stratified"),
    "adversarial": lambda: Adversarial(SIZE, hidden=(8, 8)),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


def batch(*, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 1) -> tuple[Tensor, CodePosterior]:
    """Codes that are no draws from the prior, and their posterior."""
    source = torch.Generator().manual_seed(seed)
    mean, log_variance, noise = torch.randn(3, COUNT, SIZE, generator=source, dtype=torch.float64)
    log_variance = log_variance - 2
    codes = mean.exp() + (0.5 * log_variance).exp() * noise
    mean, log_variance, codes = (tensor.to(device, dtype) for tensor in (mean.exp(), log_variance, codes))
    return codes, CodePosterior(mean, log_variance)


def value(penalty: CodeRegularizer, codes: Tensor, posterior: CodePosterior) -> Tensor:
    """The penalty with the same draws from the prior each time."""
    torch.manual_seed(7)
    found: Tensor = penalty(codes, posterior)
    return found


@every_penalty
def test_values_and_gradients_are_those_of_the_other_precision(name: str) -> None:
    penalty = PENALTIES[name]()
    found, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        codes, posterior = batch(dtype=dtype)
        inputs = codes.requires_grad_(), *(part.requires_grad_() for part in posterior if part is not None)
        torch.manual_seed(7)
        noise = torch.randn(COUNT, SIZE).to(dtype)  # torch draws other numbers in float64
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda codes, noise=noise: noise)
            found.append(penalty.to(dtype)(codes, posterior))
        gradients.append(torch.autograd.grad(found[-1], inputs, allow_unused=True, materialize_grads=True))
        assert found[-1].shape == ()
        assert found[-1].dtype == dtype
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0])
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-4, atol=1e-6)  # sums of some hundred float32 numbers
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


@every_penalty
def test_no_value_is_read(name: str) -> None:
    """The device "meta" has no values: reading one is an error there, as it is a wait for the device on a GPU."""
    codes = torch.empty(COUNT, SIZE, device="meta", requires_grad=True)
    penalty = PENALTIES[name]().to("meta")
    found = penalty(codes, CodePosterior(codes, codes))
    assert found.device.type == "meta"
    assert found.shape == ()
    found.backward()
    assert codes.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_penalty
def test_a_gpu_gives_the_same_without_waiting(name: str) -> None:
    penalty = PENALTIES[name]()
    noise = torch.randn(COUNT, SIZE)
    found = []
    for device in ("cpu", "cuda"):
        codes, posterior = batch(device=device)
        penalty, draws = penalty.to(device), noise.to(device)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda codes, draws=draws: draws)
            penalty(codes, posterior)  # the first call makes what libraries keep
            torch.cuda.set_sync_debug_mode("error")
            try:
                found.append(penalty(codes, posterior))
            finally:
                torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found[1].cpu(), found[0], rtol=1e-4, atol=1e-6)  # sums in another order


@every_penalty
def test_batches_side_by_side_are_batches_one_by_one(name: str) -> None:
    """As in a training of several seeds at once, by :func:`torch.func.vmap`."""
    penalty = PENALTIES[name]()
    parts = [batch(seed=seed) for seed in (1, 2)]
    codes = torch.stack([codes for codes, _ in parts])
    posterior = CodePosterior(*map(torch.stack, zip(*(posterior for _, posterior in parts), strict=True)))
    torch.manual_seed(7)
    found = torch.func.vmap(penalty, randomness="same")(codes, posterior)
    expected = torch.stack([value(penalty, *part) for part in parts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # sums in another order


@every_penalty
def test_the_order_of_the_images_does_not_matter(name: str) -> None:
    penalty = PENALTIES[name]()
    codes, posterior = batch()
    order = torch.randperm(COUNT)
    moved = CodePosterior(*(part[order] for part in posterior if part is not None))
    torch.testing.assert_close(value(penalty, codes[order], moved), value(penalty, codes, posterior), rtol=1e-4, atol=1e-6)


@every_penalty
def test_bad_codes_are_refused(name: str) -> None:
    penalty = PENALTIES[name]()
    codes, posterior = batch()
    for bad in (codes[0], codes[None], codes.long(), codes[:, :0]):
        with pytest.raises(GenclsError, match=r"expected floating-point codes of shape \(N, d\)"):
            penalty(bad, posterior)
    with pytest.raises(GenclsError, match=r"got list"):
        penalty(codes.tolist(), posterior)
    with pytest.raises(GenclsError, match=r"expected (at least \d codes?|3 to 5000 codes) at once, got 0"):
        penalty(codes[:0], posterior)
    with pytest.raises(GenclsError, match=rf"posterior of torch.float32 and shape \({COUNT - 1}, {SIZE}\), as the codes; got"):
        penalty(codes[1:], posterior)
    with pytest.raises(GenclsError, match=r"as the codes; got torch.float64"):
        penalty(codes, CodePosterior(codes.double(), codes.double()))
    with pytest.raises(GenclsError, match=r"expected a CodePosterior \(mean, log_variance\), got Tensor"):
        penalty(codes, codes)


@every_penalty
def test_a_penalty_says_whether_it_needs_a_variance(name: str) -> None:
    penalty = PENALTIES[name]()
    codes, posterior = batch()
    deterministic = CodePosterior(codes)
    if not penalty.needs_variance:
        assert torch.equal(value(penalty, codes, deterministic), value(penalty, codes, posterior))
        return
    with pytest.raises(GenclsError, match=r"expected the posterior of a variational encoder"):
        penalty(codes, deterministic)


def test_the_divergence_is_that_of_torch() -> None:
    codes, posterior = batch()
    assert posterior.log_variance is not None
    expected = kl_divergence(Normal(posterior.mean, (0.5 * posterior.log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(KLDivergence()(codes, posterior), expected)
    torch.testing.assert_close(KLDivergence()(codes, CodePosterior(*torch.zeros(2, COUNT, SIZE))), torch.zeros(()))
