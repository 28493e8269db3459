"""The losses of an adversarial autoencoder's encoder and discriminator against torch's cross-entropy."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from gencls.core import GenclsError
from gencls.zoo.networks import Adversarial, CodePosterior


def made():
    return Adversarial(3, hidden=(8, 8)).double(), torch.randn(6, 3, dtype=torch.float64) + 1


def test_both_losses_are_cross_entropies() -> None:
    """Ones for draws from the prior and zeros for codes; the encoder asks for ones."""
    penalty, codes = made()
    logits = penalty.discriminator(codes)
    expected = binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    torch.testing.assert_close(penalty(codes, CodePosterior(codes)), expected)
    torch.manual_seed(5)
    found = penalty.discriminator_loss(codes)
    torch.manual_seed(5)
    of_prior = penalty.discriminator(torch.randn_like(codes))
    expected = binary_cross_entropy_with_logits(of_prior, torch.ones_like(logits))
    expected = expected + binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    torch.testing.assert_close(found, expected)


def test_each_loss_teaches_one_network() -> None:
    penalty, codes = made()
    codes.requires_grad_()
    weights = list(penalty.parameters())
    of_encoder = torch.autograd.grad(
        penalty(codes, CodePosterior(codes)), [codes, *weights], allow_unused=True, materialize_grads=True
    )
    of_discriminator = torch.autograd.grad(
        penalty.discriminator_loss(codes), [codes, *weights], allow_unused=True, materialize_grads=True
    )
    assert of_encoder[0].abs().sum() > 0
    assert of_discriminator[0].abs().sum() == 0
    for first, second in zip(of_encoder[1:], of_discriminator[1:], strict=True):
        assert first.abs().sum() == 0
        assert second.abs().sum() > 0


def test_gradients_are_finite_differences() -> None:
    penalty, codes = made()
    codes.requires_grad_()
    assert torch.autograd.gradcheck(lambda codes: penalty(codes, CodePosterior(codes)), (codes,))

    def loss(*weights):
        torch.manual_seed(5)
        for parameter, weight in zip(penalty.parameters(), weights, strict=True):
            parameter.data = weight.detach()
        return penalty.discriminator_loss(codes)

    weights = [parameter.detach().clone() for parameter in penalty.parameters()]
    direction = [torch.randn_like(weight) for weight in weights]
    gradients = torch.autograd.grad(loss(*weights), list(penalty.parameters()))
    slope = sum((gradient * part).sum() for gradient, part in zip(gradients, direction, strict=True))
    step = 1e-5
    ahead, behind = (
        loss(*(weight + sign * step * part for weight, part in zip(weights, direction, strict=True))) for sign in (1, -1)
    )
    torch.testing.assert_close((ahead - behind) / (2 * step), slope, rtol=1e-6, atol=1e-8)  # the error is of second order


def test_a_blind_discriminator_is_the_equilibrium() -> None:
    penalty, codes = made()
    for parameter in penalty.discriminator.last.parameters():
        torch.nn.init.zeros_(parameter)
    assert penalty(codes, CodePosterior(codes)).item() == pytest.approx(math.log(2))
    assert penalty.discriminator_loss(codes).item() == pytest.approx(2 * math.log(2))


def test_a_trained_discriminator_pulls_codes_to_the_prior() -> None:
    """Codes far from 0 have a lower encoder's loss when they move towards it."""
    penalty = Adversarial(2, hidden=(16, 16))
    codes = torch.randn(64, 2) * 0.3 + 3
    optimiser = torch.optim.Adam(penalty.parameters(), lr=0.01)
    for _ in range(60):
        loss = penalty.discriminator_loss(codes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.7  # half of 2 log 2, which is chance
    codes.requires_grad_()
    (gradient,) = torch.autograd.grad(penalty(codes, CodePosterior(codes)), codes)
    assert (gradient.mean(0) > 0).all()  # a descent moves the codes down, to 0


def test_the_losses_stay_finite_for_a_discriminator_that_is_sure() -> None:
    penalty, codes = made()
    with torch.no_grad():
        penalty.discriminator.last.bias.fill_(-1e4)
    assert penalty(codes, CodePosterior(codes)).item() == pytest.approx(1e4, rel=0.01)
    assert penalty.discriminator_loss(codes).isfinite()


def test_bad_sizes_are_refused() -> None:
    for settings in ({"code_size": 0}, {"code_size": 3, "hidden": (8, 0)}):
        with pytest.raises(GenclsError, match=r"Adversarial: expected sizes >= 1, got code_size"):
            Adversarial(**settings)
    penalty, codes = made()
    with pytest.raises(GenclsError, match=r"Adversarial: expected codes of shape \(N, 3\), as the discriminator takes, got"):
        penalty(codes[:, :2], CodePosterior(codes[:, :2]))
    with pytest.raises(GenclsError, match=r"as the discriminator takes"):
        penalty.discriminator_loss(codes[:, :2])
