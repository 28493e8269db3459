"""Trainings of the methods that the MLVGM paper compares with: losses against torch.distributions, and runs on a few digits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from gencls.core import GenclsError, TransformedClassifier, seeded
from gencls.defenses import PlainClassifier
from gencls.zoo import load
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.data import ImageData
from gencls.zoo.networks import AVAE, CNN, NDVAE, AVAECritic
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.base import Moment
from gencls.zoo.training.functional import gradient_penalty
from gencls.zoo.training.methods.a_vae import AVAEPreset, AVAETraining
from gencls.zoo.training.methods.nd_vae import NDVAEPreset, NDVAETraining
from gencls.zoo.training.methods.trades import TradesTraining
from gencls.zoo.training.views.adversarial import FastGradient, KLAdversarial, prediction_divergence
from gencls.zoo.training.views.perturbations import Plain
from tests.trainings import logged, resumed

SHARED: dict[str, Any] = {"perturbation": Plain(), "learning_rate": 1e-3}
TINY: dict[str, Any] = {"data": "mnist-embedded", "limit": 48, "measured": 20, "progress": False}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


class Margins(nn.Module):
    """Scores of two classes whose difference is linear in the image."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        margin = ((images - 0.5) * self.weight).flatten(1).sum(1)
        return torch.stack([margin, -margin], dim=1)


# TRADES


def test_divergence_and_its_gradient_against_torch() -> None:
    first, second = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    expected = kl_divergence(Categorical(logits=first), Categorical(logits=second))
    found = prediction_divergence(first, second)
    torch.testing.assert_close(found, expected)
    # d KL[p || q] / d logits of q = q - p
    (gradient,) = torch.autograd.grad(found.sum(), second)
    torch.testing.assert_close(gradient, second.softmax(1) - first.softmax(1))
    assert torch.autograd.gradcheck(prediction_divergence, (first.requires_grad_(), second))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_inner_maximisation_of_a_linear_model(norm: Any) -> None:
    weight = torch.randn(1, 4, 4, dtype=torch.float64)
    network = Margins(weight).train()
    images = torch.full((6, 1, 4, 4), 0.5, dtype=torch.float64)
    attack = KLAdversarial(norm=norm, epsilon=0.2, steps=30, step_size=0.05)
    moved = attack(network, images, torch.zeros(6, dtype=torch.int64), epoch=0.0) - images
    # With equal probabilities at the centre the divergence grows with the margin, to both sides alike.
    direction = 0.2 * (weight / weight.norm() if norm == "l2" else weight.sign())
    side = (moved * weight).flatten(1).sum(1).sign().view(-1, 1, 1, 1)
    # What the random start of length 0.004 has across the direction fades with the steps.
    torch.testing.assert_close(moved, side * direction, rtol=0, atol=1e-4)
    assert network.training
    assert network.weight.grad is None


def test_the_loss_of_trades_and_its_gradient() -> None:
    network = CNN.from_architecture("mnist", num_classes=3, dropout=0.0).eval().double()
    images, labels = torch.rand(4, 1, 28, 28, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    moved = (images + 0.1 * torch.randn_like(images)).clamp(0, 1)
    settings = SHARED | {"perturbation": lambda *args, epoch: moved}
    loss, _ = next(TradesTraining(network, beta=1.5, **settings).steps(images, labels, Moment()))
    natural, adversarial = (Categorical(logits=network(x)) for x in (images, moved))
    expected = -natural.log_prob(labels).mean() + 1.5 * kl_divergence(natural, adversarial).mean()
    torch.testing.assert_close(loss, expected)
    found, truth = (torch.autograd.grad(x, list(network.parameters()), retain_graph=True) for x in (loss, expected))
    for mine, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)
    # Finite differences along a random direction: both predictions move.
    head = network.head.weight
    direction = torch.randn_like(head)
    (gradient,) = torch.autograd.grad(loss, head)
    slope = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            head.add_(step * direction)
            slope.append(next(TradesTraining(network, beta=1.5, **settings).steps(images, labels, Moment()))[0])
            head.sub_(step * direction)
    assert float((slope[0] - slope[1]) / 2e-6) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


# The gradient step


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_fast_gradient_step_on_a_linear_model(norm: Any) -> None:
    weight = torch.randn(1, 4, 4)
    labels = torch.tensor([0, 1] * 20)
    images = torch.full((40, 1, 4, 4), 0.5)
    moved = FastGradient(norm=norm, epsilons=(0.1, 0.2))(Margins(weight), images, labels, epoch=0.0) - images
    away = torch.tensor([-1.0, 1.0] * 20).view(-1, 1, 1, 1) * weight.sign()
    lengths = moved.flatten(1).norm(dim=1) if norm == "l2" else moved.flatten(1).abs().amax(1)
    assert {round(float(length), 4) for length in lengths} == {0.1, 0.2}
    torch.testing.assert_close(moved.sign(), away)


# A-VAE


def test_the_gradient_penalty_of_a_linear_critic() -> None:
    weight = torch.randn(1, 1, 3, 3)

    def critic(images: Tensor) -> Tensor:
        return (images * weight).flatten(1).sum(1)

    found = gradient_penalty(critic, torch.randn(5, 1, 3, 3), torch.randn(5, 1, 3, 3))  # type: ignore[arg-type]
    torch.testing.assert_close(found, (weight.norm() - 1).square())


def small_avae(**settings: float) -> AVAETraining:
    sizes = (4, 4, 4, 4)
    network = AVAE((1, 28, 28), channels=sizes, latent_channels=4, style_dim=6, style_layers=2)
    return AVAETraining(network, AVAECritic(1, sizes), **settings, **SHARED)


def test_the_losses_of_a_vae() -> None:
    module = small_avae(drift=0.1, penalty=3.0)
    network, critic = module.network, module.critic
    images = torch.rand(3, 1, 28, 28)
    real, fake = network.padded(images), torch.randn(3, 1, 32, 32)
    with seeded(1):
        found = module.critic_losses(real, fake)
    with seeded(1):
        penalty = gradient_penalty(critic, real, fake)
    expected = critic(fake).mean() - critic(real).mean(), 0.1 * (critic(real) ** 2).mean(), 3 * penalty
    for value, truth in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, truth)
    with seeded(2):
        losses = module.network_losses(images, real)
    with seeded(2):
        encoded = network.encode(images)
        made = network.realise(encoded, network.noise(encoded))
    _, mean, log_variance = encoded
    prior = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(losses["prior"], prior)
    torch.testing.assert_close(losses["adversarial"], -critic(made).mean())
    torch.testing.assert_close(losses["error"], (made - real).square().mean())


def test_the_latent_is_drawn_from_the_posterior_and_the_image_padded() -> None:
    network = small_avae().network
    images = torch.rand(2, 1, 28, 28)
    padded = network.padded(images)
    assert padded.shape == (2, 1, 32, 32)
    assert (padded[:, :, :2] == -1).all()
    torch.testing.assert_close(network.cropped(padded), images)
    skip, mean, log_variance = network.encode(images)
    assert mean.shape == log_variance.shape == (2, 4, 4, 4)
    noise = network.noise((skip, mean, log_variance))
    assert [part.shape[2] for part in noise] == [4, 4, 8, 16, 32]
    cold = network.realise((skip, mean, log_variance), noise, temperature=0.0)
    shifted = mean + 0.7 * (0.5 * log_variance).exp() * noise[0]
    warm = network.realise((skip, mean, log_variance), noise, temperature=0.7)
    torch.testing.assert_close(warm, network.realise((skip, shifted, log_variance), noise, temperature=0.0))
    assert not torch.allclose(warm, cold)
    assert network(images).shape == images.shape


def test_a_vae_refuses_sizes_that_do_not_fit() -> None:
    shapes: tuple[tuple[int, ...], ...] = ((), (28, 28), (1, 16, 16), (1, 28, 33))
    others: tuple[dict[str, Any], ...] = ({"pool": 4}, {"pool": 3}, {"latent_channels": 3})
    for wrong in (*({"image_shape": shape} for shape in shapes), *others):
        with pytest.raises(GenclsError, match="AVAE: expected numbers >= 1, an even latent_channels, H and W above 16"):
            AVAE(**{"image_shape": (1, 28, 28), **wrong})
    with pytest.raises(GenclsError, match="expected .* of shape \\(N, 1, 28, 28\\), got .* \\(2, 1, 32, 32\\)"):
        AVAE((1, 28, 28))(torch.rand(2, 1, 32, 32))
    with pytest.raises(GenclsError, match="A-VAE: expected weights >= 0, got -1"):
        small_avae(reconstruction=-1.0)


# ND-VAE


def small_ndvae(**settings: Any) -> NDVAETraining:
    network = NDVAE((1, 28, 28), groups=(1, 1), channels=2, latent_channels=2, mixtures=1)
    return NDVAETraining(network, Margins(torch.randn(1, 28, 28)), **SHARED | settings)


def test_the_loss_of_nd_vae_compares_with_the_clean_image() -> None:
    module = small_ndvae(perturbation=FastGradient(norm="l2", epsilons=(1.0,)), sigma=0.2).eval()
    images, labels = torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 0])
    with seeded(1):
        loss, _ = next(module.steps(images, labels, Moment(epochs=10)))
    with seeded(1):
        attacked = module.perturbation(module._classifier[0], images, labels, epoch=0.0)
        noisy = (attacked + 0.2 * torch.randn_like(images)).clamp(0, 1)
        output = module.network.vae(nn.functional.pad(noisy, (2, 2, 2, 2)))
    clean = nn.functional.pad(images, (2, 2, 2, 2))
    expected = 1e-4 * output.kl.sum(1).mean() - output.reconstruction.log_prob(clean).sum((1, 2)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert module._classifier[0].weight.grad is None
    assert {name.split(".")[0] for name in module.state_dict()} == {"network"}


def test_nd_vae_pads_what_cannot_be_halved() -> None:
    assert NDVAE((1, 28, 28), channels=2).margins == (2, 2, 2, 2)
    assert NDVAE((3, 32, 40), channels=2).margins == (0, 0, 0, 0)
    network = NDVAE((1, 29, 28), groups=(1, 1), channels=2, latent_channels=2).eval()
    made = network(torch.rand(2, 1, 29, 28))
    assert made.shape == (2, 1, 29, 28)
    assert made.min() >= 0
    assert made.max() <= 1
    with pytest.raises(GenclsError, match="NDVAE: expected .* of shape \\(N, 1, 29, 28\\), got .* \\(2, 1, 28, 28\\)"):
        network(torch.rand(2, 1, 28, 28))
    with pytest.raises(GenclsError, match="NDVAE: expected floating-point images of shape .*, got torch.uint8 of shape"):
        network(torch.zeros(2, 1, 29, 28, dtype=torch.uint8))
    with pytest.raises(GenclsError, match="NDVAE: expected image_shape \\(C, H, W\\) of numbers >= 1, got \\(28, 28\\)"):
        NDVAE((28, 28))


def test_the_classifier_that_nd_vae_defends_is_copied() -> None:
    classifier = Margins(torch.randn(1, 28, 28)).eval()
    module = NDVAETraining(NDVAE((1, 28, 28), groups=(1, 1), channels=2), classifier, **SHARED)
    module._classifier[0].double()  # as a move to another device
    assert classifier.weight.dtype == torch.float32


def test_bad_settings() -> None:
    with pytest.raises(GenclsError, match="TRADES: expected beta >= 0, got -1"):
        TradesTraining(CNN.from_architecture("mnist"), beta=-1.0, **SHARED)
    with pytest.raises(GenclsError, match="KLAdversarial: expected epsilon, step_size and start_std > 0 and steps >= 1, got"):
        KLAdversarial(norm="l2", epsilon=1.0, steps=0, step_size=0.1)
    with pytest.raises(GenclsError, match="FastGradient: expected at least one epsilon, all > 0, got \\(\\)"):
        FastGradient(norm="l2", epsilons=())
    with pytest.raises(GenclsError, match="ND-VAE: expected sigma >= 0 and warm_up_share in \\(0, 1\\], got 0.1 and 0"):
        small_ndvae(warm_up_share=0)


class Same(NDVAE):
    """Reconstructs nothing: the images as they are."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_measurements_of_a_purifier_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient step of L2 length 0.4 moves each of 64 pixels by 0.05, towards the other side of a linear classifier."""
    weight = torch.randn(1, 8, 8).sign()
    classifier = Margins(weight).eval()
    images = 0.5 + torch.linspace(-0.1, 0.1, 40).view(-1, 1, 1, 1) * weight  # half of them nearer than 0.05
    labels = classifier(images).argmax(1)
    for wrong in (slice(0, 3), slice(37, 40)):  # far from the border
        labels[wrong] = 1 - labels[wrong]
    test = ImageData("mnist-embedded", "test", images, labels, ("left", "right"), torch.arange(40))
    monkeypatch.setattr("gencls.zoo.training.methods.purifiers.load", lambda name: classifier)
    settings = PRESETS["nd-vae-fashion"]
    assert isinstance(settings, NDVAEPreset)
    found = replace(settings, sigma=0.0, length=0.4).measure(Same((1, 8, 8), channels=2), [test], few=40)
    expected = {}
    for kind, right, error in (("clean", 34, 0.0), ("FGSM L2 0.4", 14, 0.0025)):
        for state in ("as they are", "purified (sigma=0.0)"):
            what = f"mnist-embedded test, 40 {kind} images {state}"
            expected[f"accuracy of {settings.classifier}, {what}"] = right / 40
            if (kind, state) != ("clean", "as they are"):
                expected[f"mean squared error to clean images, {what}"] = error
    assert found == pytest.approx(expected)


# Runs


def small(name: str) -> Any:
    """The preset in steps of 16 images and with a small network."""
    settings = replace(PRESETS[name], batch_size=16)
    if isinstance(settings, AVAEPreset):
        return replace(settings, channels=(8, 8, 8, 8), latent_channels=8, style_dim=8)
    if isinstance(settings, NDVAEPreset):
        return replace(settings, groups=(1, 1), channels=2, latent_channels=2, mixtures=1)
    return settings


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("trades-fashion", "nd-vae-fashion")), "a-vae-fashion"]
)
def test_a_run_is_saved_loaded_and_resumed(name: str, tmp_path: Path) -> None:
    settings = small(name)
    whole = train(settings, **TINY, epochs=2, out=tmp_path / "whole")
    card = read_card(whole)
    assert card.command == f"gencls train {name} --data mnist-embedded --epochs 2 --limit 48"
    defense = load(name, weights=whole)
    assert isinstance(defense, PlainClassifier if name.startswith("trades") else TransformedClassifier)
    assert defense(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    if not name.startswith("trades"):
        assert any("20 FGSM L2 1.5 images purified" in key for key in card.metrics)
    found = resumed(settings, **TINY, epochs=2, at=5, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("name", "tag"), [pytest.param("a-vae-fashion", "error", marks=pytest.mark.slow), ("nd-vae-fashion", "loss")]
)
def test_what_is_learned_goes_down(name: str, tag: str, tmp_path: Path) -> None:
    train(small(name), **TINY, epochs=8, out=tmp_path)
    values = logged(tmp_path / name, tag)
    assert sum(values[-3:]) / 3 < 0.9 * values[0]
