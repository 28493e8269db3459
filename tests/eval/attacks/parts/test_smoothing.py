"""Gradients of a loss averaged over noise: against closed forms, and independent of batches, chunks and restarts."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, keyed
from gencls.eval import APGD, DDN, FMN, PGD, AttackModel, ThreatModel
from gencls.eval.attacks.parts.smoothing import smoothed_gradient, smoothed_look
from gencls.eval.scores.margins import margin
from tests.toys import Linear, NoisyLogits, small_cnn

L2 = ThreatModel("l2", 0.5)
ZERO = torch.zeros(1, dtype=torch.long)


def second(scores, labels):
    """A loss: the score of class 1."""
    return scores.mean(dim=1)[:, 1]


class Quadratic(nn.Module):
    """Scores 0 and a . x^2 + b . x; without clipping the gradient of the mean over noise is 2 a x + b."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, images):
        flat = images.flatten(1)
        score = flat.square() @ self.a + flat @ self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


def smoothed(model, images, labels, *, first=0, loss=None, **settings):
    model = AttackModel.of(model)
    with keyed(range(first, first + len(images))):
        return smoothed_gradient(model, images, labels, loss or model.cross_entropy, **settings)


def test_the_gradient_of_a_quadratic_loss_is_that_of_its_mean_over_noise():
    """The error of a mean of n draws is 2 |a| sigma / sqrt(n) per pixel."""
    a, b = torch.randn(16), torch.randn(16)
    images = 0.4 + 0.2 * torch.rand(1, 1, 4, 4)
    found = smoothed(Quadratic(a, b), images, ZERO, loss=second, sigma=0.05, count=10_000).flatten()
    assert ((found - (2 * a * images.flatten() + b)).abs() <= 4.5 * 2 * a.abs() * 0.05 / 100 + 1e-4).all()


def test_noise_turns_a_kink_into_a_slope():
    """|x - 1/2| has the gradient -1 or 1; its mean over noise has erf((x - 1/2) / (sigma sqrt 2))."""

    class Kink(nn.Module):
        def forward(self, images):
            score = (images.flatten(1) - 0.5).abs().sum(dim=1)
            return torch.stack([torch.zeros_like(score), score], dim=1)

    images = torch.tensor([0.4, 0.48, 0.5, 0.55]).view(1, 1, 2, 2)
    found = smoothed(Kink(), images, ZERO, loss=second, sigma=0.05, count=20_000).flatten()
    expected = torch.erf((images.flatten() - 0.5) / (0.05 * 2**0.5))
    assert (found - expected).abs().max() < 4.5 / 20_000**0.5


def test_pixels_at_the_border_count_where_the_noise_leaves_them_in_the_range():
    """The loss's slope times the probability that a noisy pixel is not clipped: 1/2 at the border."""
    weight = torch.randn(2, 16)
    images = torch.full((1, 1, 4, 4), 0.5)
    images[..., 0, :], images[..., 1, :], images[..., 2, :] = 0.0, 1.0, 0.01  # the last at one deviation
    found = smoothed(Linear(weight, torch.zeros(2)), images, ZERO, loss=second, sigma=0.01, count=20_000).view(4, 4)
    shares = torch.tensor([0.5, 0.5, 0.8413, 1.0])
    assert (found / weight[1].view(4, 4) - shares[:, None]).abs().max() < 4.5 * 0.5 / 20_000**0.5


def test_finite_differences_of_the_smoothed_loss(digits):
    """With common random numbers the mean loss over the same noise is a function of the image alone."""
    cnn, images, labels = small_cnn().double(), digits[0][:2].double() * 0.4 + 0.3, digits[1][:2]
    model, seen = AttackModel(cnn, common_draws=True), []

    def loss(scores, labels):
        seen.append(-margin(scores.mean(dim=1), labels).detach())
        return -margin(scores.mean(dim=1), labels)

    def mean(at):
        seen.clear()
        gradient = smoothed(model, at, labels, loss=loss, sigma=0.02, count=8)
        return torch.stack(seen).mean(dim=0), gradient

    direction = torch.randn_like(images)
    _, gradient = mean(images)
    slope = (mean(images + 1e-6 * direction)[0] - mean(images - 1e-6 * direction)[0]) / 2e-6
    torch.testing.assert_close((gradient * direction).flatten(1).sum(dim=1), slope, rtol=1e-5, atol=1e-7)


def test_without_noise_it_is_the_plain_look(cnn, digits):
    model = AttackModel.of(cnn)
    plain = model.look(*digits, model.cross_entropy)
    found = smoothed_look(model, *digits, model.cross_entropy, sigma=0.0, count=4)
    assert torch.equal(found.gradient, plain.gradient)


def test_success_and_margin_are_those_of_the_image_without_noise(cnn, digits):
    model = AttackModel.of(cnn)
    plain = model.look(*digits)
    found = smoothed_look(model, *digits, model.cross_entropy, sigma=0.3, count=4)
    assert torch.equal(found.success, plain.success)
    assert torch.equal(found.margin, plain.margin)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("max_rows", [None, 5, 17, 1])
def test_neither_batch_nor_chunks_change_the_gradient(noisy, max_rows, digits):
    images, labels = digits[0][:5], digits[1][:5]
    network = NoisyLogits(small_cnn(), sigma=0.3) if noisy else small_cnn()
    samples = 3 if noisy else 1
    whole = smoothed(AttackModel(network, samples=samples), images, labels, sigma=0.1, count=7)
    model = AttackModel(network, samples=samples, max_rows=max_rows)
    parts = torch.cat([smoothed(model, images[i : i + 1], labels[i : i + 1], first=i, sigma=0.1, count=7) for i in range(5)])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(smoothed(model, images, labels, sigma=0.1, count=7), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("samples", "count", "rows"), [(1, 4, 4), (3, 4, 4), (6, 4, 6)])
def test_a_random_defense_draws_once_per_noisy_image(samples, count, rows, digits):
    images, labels = digits[0][:2], digits[1][:2]
    model = AttackModel(NoisyLogits(small_cnn(), sigma=0.3), samples=samples)
    smoothed(model, images, labels, sigma=0.1, count=count)
    assert (model.meter.forwards, model.meter.backwards) == (2 * rows, 2 * rows)
    assert model.meter.gradients == 2


def test_no_pass_holds_more_rows_than_fit(digits):
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.most = small_cnn(), 0

        def forward(self, images):
            self.most = max(self.most, len(images))
            return self.network(images)

    network = Counted().eval()
    smoothed(AttackModel(network, max_rows=20), digits[0][:4], digits[1][:4], sigma=0.1, count=16)
    assert network.most == 20


def test_common_draws_repeat_their_noise(digits):
    images, labels = digits[0][:3], digits[1][:3]
    model = AttackModel(NoisyLogits(small_cnn(), sigma=0.3), samples=2, common_draws=True)
    fresh = AttackModel(small_cnn())
    with keyed(range(3)):
        one, two = (smoothed_gradient(model, images, labels, second, sigma=0.1) for _ in range(2))
        other = [smoothed_gradient(fresh, images, labels, second, sigma=0.1) for _ in range(2)]
    assert torch.equal(one, two)
    assert not torch.equal(*other)


def test_a_detached_defense_is_refused(digits):
    class Detached(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :4].detach()

    with pytest.raises(GenclsError, match="expected scores with a gradient"):
        smoothed(Detached(), *digits, sigma=0.1)


def test_gradients_that_are_not_finite_are_refused(digits):
    class Rooted(nn.Module):
        def forward(self, images):
            return (0.0 * images).flatten(1)[:, :4].sqrt()

    with pytest.raises(GenclsError, match="finite gradients, got NaN or infinity for 64 of 64 images"):
        smoothed(Rooted(), *digits, sigma=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: PGD(L2, **settings),
        lambda **settings: APGD(L2, **settings),
        lambda **settings: DDN(ThreatModel("l2"), **settings),
        lambda **settings: FMN(ThreatModel("linf"), **settings),
    ],
    ids=["PGD", "APGD", "DDN", "FMN"],
)
@pytest.mark.parametrize(
    "settings", [{"smoothing": ()}, {"smoothing": (-0.1,)}, {"smoothing": (float("nan"),)}, {"smoothing_draws": 0}]
)
def test_settings_that_mean_nothing_are_refused(make, settings):
    with pytest.raises(
        GenclsError,
        match=r"expected (standard deviations >= 0 in smoothing, at least one, and smoothing_draws >= 1|smoothing to be)",
    ):
        make(**settings)


@pytest.mark.parametrize("noisy", [False, True])
def test_restarts_that_share_the_batch_change_nothing(noisy, digits):
    """With room for one row at a time no start shares the batch with another."""
    images, labels = digits[0][:3], digits[1][:3]
    attack = PGD(L2, steps=4, restarts=2, loss="margin", smoothing=(0.0, 0.1, 0.2), smoothing_draws=3)
    network = NoisyLogits(small_cnn(), sigma=0.2) if noisy else small_cnn()

    def found(max_rows):
        with keyed(range(3)):
            return attack(AttackModel(network, samples=2 if noisy else 1, max_rows=max_rows), images, labels)

    torch.testing.assert_close(found(None), found(1), rtol=0, atol=1e-4)


def test_each_deviation_has_starts_of_its_own(cnn, digits):
    """What one of them finds does not depend on the others; the best of all counts."""
    images, labels = digits[0], cnn(digits[0]).argmax(1)
    margins = []
    for smoothing in ((0.0,), (0.2,), (0.0, 0.2)):
        with keyed(range(64)):
            attack = PGD(ThreatModel("l2", 0.1), steps=3, loss="margin", smoothing=smoothing, smoothing_draws=2)
            margins.append(AttackModel.of(cnn).look(attack(cnn, images, labels), labels).margin)
    assert (margins[2] <= margins[0] + 1e-6).all()
    assert (margins[2] < margins[0]).any()


def test_passes_count_the_noisy_images():
    assert PGD(L2, steps=10, restarts=2).passes == (2, 20)
    assert PGD(L2, steps=10, restarts=2, smoothing=(0.0, 0.1), smoothing_draws=4).passes == (2 * (10 + 2), 2 * 10 * 5)
    assert DDN(ThreatModel("l2"), steps=22, smoothing=(0.1,), smoothing_draws=4).passes == (10 + 8, 40 + 10)
