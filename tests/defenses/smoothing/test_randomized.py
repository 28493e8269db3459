"""Randomized smoothing beside scipy, beside linear classifiers whose smoothed distance is known, and beside full runs."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from gencls.core import TransformedClassifier, keyed
from gencls.defenses import Binarize, RandomizedSmoothing
from gencls.defenses.smoothing.confidence import majority_p_value
from tests.toys import Linear, small_cnn

IMAGE = torch.full((1, 1, 2, 2), 0.5)


class Scripted(nn.Module):
    """Decides what a list says, whatever it is shown; ``asked`` counts the rows."""

    def __init__(self, decisions, num_classes):
        super().__init__()
        self.scores = nn.functional.one_hot(torch.as_tensor(decisions), num_classes).float()
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        return self.scores[self.asked - len(images) : self.asked]


class Kept(nn.Module):
    """Keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return images.flatten(1)[:, :2]


def votes(*counts):
    """So many decisions for each class, shuffled."""
    decisions = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return decisions[torch.randperm(len(decisions))]


def scripted(decisions, num_classes=3, **settings):
    return RandomizedSmoothing(Scripted(decisions, num_classes), num_classes, sigma=0.25, **settings).eval()


def linear(direction, *, scale=1.0, **settings):
    """Two classes, the plane <w, x> = <w, 1/2> between them; class 1 on the side of w."""
    weight = scale * torch.stack([-direction, direction]) / 2
    offset = -weight.sum(1) / 2
    return RandomizedSmoothing(Linear(weight, offset), 2, **{"sigma": 0.25, **settings}).eval()


def along(direction, distances):
    """Images (N, 1, 2, 2) at signed distances from that plane, all within [0, 1]."""
    unit = direction / direction.norm()
    return (0.5 + distances.unsqueeze(1) * unit).view(-1, 1, 2, 2)


DIRECTION = torch.tensor([1.0, -2.0, 0.5, 3.0])


# Against scipy, on fixed counts


@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-9])
@pytest.mark.parametrize(("n", "counts"), [(100, (80, 15, 5)), (100, (100, 0, 0)), (1000, (531, 400, 69)), (1000, (3, 996, 1))])
def test_certificates_are_those_of_scipy(n, counts, alpha):
    best = int(np.argmax(counts))
    first = [best] * 10
    found = scripted([*first, *votes(*counts).tolist()]).certify(IMAGE, n0=10, n=n, alpha=alpha)
    test = stats.binomtest(counts[best], n, alternative="greater")
    expected = test.proportion_ci(confidence_level=1 - alpha, method="exact").low  # searched, not a quantile of Beta
    assert found.candidates.item() == best
    if expected <= 0.5:
        assert found.labels.item() == -1
        assert found.radii.item() == 0
        return
    assert found.counts.item() == counts[best]
    assert found.lower.item() == pytest.approx(expected, rel=1e-6)  # scipy's search stops at 1e-12, 1 - 1e-9 has few digits
    assert found.lower.item() == pytest.approx(stats.beta.ppf(alpha, counts[best], n - counts[best] + 1), rel=1e-12)
    assert found.labels.item() == best
    assert found.radii.item() == pytest.approx(0.25 * stats.norm.ppf(found.lower.item()), rel=1e-9)


def test_the_first_draws_only_choose_the_class():
    found = scripted([0, 1, 1, *[0] * 60, *[1] * 40]).certify(IMAGE, n0=3, n=100, alpha=0.01)
    assert found.candidates.item() == 1
    assert found.labels.item() == -1


@pytest.mark.parametrize("alpha", [0.2, 0.01])
@pytest.mark.parametrize("counts", [(60, 40, 0), (40, 60, 0), (25, 38, 37), (50, 50, 0), (80, 15, 5), (64, 36, 0)])
def test_predictions_are_those_of_scipy(counts, alpha):
    found = scripted(votes(*counts)).predict(IMAGE, n=100, alpha=alpha)
    second, first = sorted(counts)[-2:]
    rejects = stats.binomtest(first, first + second, 0.5).pvalue <= alpha
    assert found.item() == (int(np.argmax(counts)) if rejects else -1)


def test_the_p_value_is_scipys():
    for first in (1, 5, 40):
        for second in range(first + 1):
            expected = stats.binomtest(first, first + second, 0.5).pvalue
            assert majority_p_value(first, second) == pytest.approx(expected, rel=1e-10)
    assert majority_p_value(3, 5) == 1


# Ending early


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_predictions_that_end_early_are_those_of_all_draws(chunk):
    asked = []
    for shares in ([0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.9, 0.05, 0.05]):
        for _ in range(25):
            decisions = torch.multinomial(torch.tensor(shares), 200, replacement=True)
            second, first = decisions.bincount(minlength=3).sort().values.tolist()[1:]
            expected = int(decisions.mode().values) if stats.binomtest(first, first + second).pvalue <= 0.05 else -1
            smoothed = scripted(decisions)
            assert smoothed.predict(IMAGE, n=200, alpha=0.05, chunk=chunk).item() == expected
            asked.append(smoothed.classifier.asked)
    assert max(asked) <= 200
    assert np.mean(asked) < 185


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 7, 64])
@pytest.mark.parametrize("soft", [False, True])
def test_certificates_that_end_early_are_those_of_all_draws(chunk, soft):
    early = 0
    for share in (0.3, 0.5, 0.6, 0.75, 0.95):
        for _ in range(20):
            decisions = [0] * 5 + (torch.rand(300) > share).long().tolist()
            settings = {"n0": 5, "n": 300, "alpha": 0.05}
            make = [scripted(decisions, 2, votes="soft" if soft else "hard") for _ in range(2)]
            for one in make:
                one.classifier.scores = one.classifier.scores * 30  # probabilities of 0 and 1 up to 1e-13
            expected, found = make[0].certify(IMAGE, chunk=1000, **settings), make[1].certify(IMAGE, chunk=chunk, **settings)
            assert expected.draws.item() == 300
            assert found.labels.item() == expected.labels.item()
            assert found.radii.item() == pytest.approx(expected.radii.item(), rel=1e-9)
            if found.draws.item() < 300:
                early += 1
                assert expected.lower.item() <= 0.5
                assert found.lower.item() == 0
    assert early > 20


# Against known distances


@pytest.mark.parametrize(("kind", "scale"), [("hard", 1.0), ("soft", 50.0)])
def test_radii_never_exceed_the_true_distance(kind, scale):
    """The smoothed linear classifier decides by the same plane. Expected failures: 1,000 times 1e-6."""
    found, true = [], []
    for _ in range(4):
        direction = torch.randn(4)
        distances = torch.rand(250) * 0.8 - 0.4
        images = along(direction, distances).clamp(0, 1)
        smoothed = linear(direction, scale=scale / float(direction.norm()), sigma=0.2, votes=kind)
        certificate = smoothed.certify(images, n0=50, n=500, alpha=1e-6)
        exact = (images.flatten(1) - 0.5) @ (direction / direction.norm())
        certified = certificate.labels >= 0
        assert torch.equal(certificate.labels[certified], (exact[certified] > 0).long())
        found.append(certificate.radii)
        true.append(exact.abs())
    found, true = torch.cat(found), torch.cat(true)
    assert len(found) == 1000
    assert (found > 0).sum() > 500
    assert (found <= true).all()


def test_the_radius_is_tight():
    """p_A = Phi(1): the bound is 3.1 standard deviations of 0.0012 below, which makes 1.5 % of the radius."""
    image = along(DIRECTION, torch.tensor([0.25]))
    found = linear(DIRECTION).certify(image, n=100_000)
    assert found.labels.item() == 1
    assert 0.95 * 0.25 < found.radii.item() <= 0.25


def test_soft_votes_bound_the_expected_probability():
    """E[sigmoid(s (d + sigma e))] by quadrature."""
    for distance in (0.1, 0.3):
        found = linear(DIRECTION, scale=8 / float(DIRECTION.norm()), votes="soft").certify(
            along(DIRECTION, torch.tensor([distance])), n=20_000
        )
        expected, _ = integrate.quad(
            lambda e, d=distance: stats.norm.pdf(e) / (1 + math.exp(-8 * (d + 0.25 * e))), -10, 10, epsabs=1e-12
        )
        assert found.bound == "empirical Bernstein"
        assert found.counts.item() / 20_000 == pytest.approx(expected, abs=0.006)  # 4 standard deviations of at most 0.2 / 141
        assert 0.97 * expected < found.lower.item() < expected
        assert found.radii.item() == pytest.approx(0.25 * stats.norm.ppf(found.lower.item()), rel=1e-9)
        assert found.radii.item() < distance


def test_certificates_fail_as_rarely_as_alpha_says():
    """2,000 certificates of one image: failures are binomial with a probability of at most alpha."""
    count, alpha, distance = 2000, 0.1, 0.1
    images = along(DIRECTION, torch.full((count,), distance))
    found = linear(DIRECTION).certify(images, n0=1000, n=100, alpha=alpha)
    rate = float((found.radii > distance).double().mean())
    assert rate <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / count)
    assert rate > alpha / 2  # the bound is nearly exact, so a wrong one would be seen


def test_predictions_are_wrong_as_rarely_as_alpha_says():
    count, alpha = 2000, 0.2
    predicted = linear(DIRECTION).predict(along(DIRECTION, torch.full((count,), 0.005)), n=60, alpha=alpha)
    wrong = float((predicted == 0).double().mean())
    assert 0 < wrong <= alpha
    assert 0.5 < float((predicted == -1).double().mean()) < 1


# Noise


@pytest.mark.parametrize("chunk", [1, 90, 300, 700, 10_000])
def test_nothing_depends_on_batch_and_chunk_with_keyed_streams(chunk):
    smoothed = RandomizedSmoothing(small_cnn(), 4, sigma=0.3)
    images = torch.rand(6, 1, 8, 8)
    settings = {"n0": 20, "n": 300, "alpha": 0.01}
    with keyed(range(6)):
        expected = smoothed.certify(images, chunk=6 * 300, **settings)
    with keyed(range(6)):
        labels = smoothed.predict(images, n=300, alpha=0.01, chunk=6 * 300)
    with keyed(range(6)):
        together = smoothed.certify(images, chunk=chunk, **settings)
    assert (expected.labels >= 0).any()
    assert (expected.labels < 0).any()
    assert torch.equal(together.labels, expected.labels)
    assert torch.equal(together.radii, expected.radii)
    whole = together.draws == 300
    assert torch.equal(together.counts[whole], expected.counts[whole])
    for i in range(6):
        with keyed([i]):
            assert smoothed.predict(images[i : i + 1], n=300, alpha=0.01, chunk=chunk).item() == labels[i].item()
        with keyed([i]):
            assert smoothed.certify(images[i : i + 1], chunk=chunk, **settings).radii.item() == expected.radii[i].item()


def test_noise_has_the_standard_deviation_sigma_and_is_drawn_anew_and_not_clamped():
    network = Kept().eval()
    smoothed = RandomizedSmoothing(network, 2, sigma=0.5, draws=500)
    images = torch.rand(2, 1, 8, 8)
    smoothed(images)
    smoothed(images)
    smoothed.certify(images, n0=30, n=100, chunk=40)
    passes = network.seen
    noise = torch.cat(passes[:2]).view(2, 2, 500, 1, 8, 8) - images.unsqueeze(1)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.01)  # 128,000 numbers: 4 standard deviations are 0.008 of it
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.006)
    assert float(passes[0].min()) < 0
    assert float(passes[0].max()) > 1
    rows = torch.cat(passes).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows) > 2000


def test_two_runs_differ_and_seeds_repeat():
    smoothed = RandomizedSmoothing(small_cnn(), 4, sigma=0.5)
    images = torch.rand(8, 1, 8, 8)
    first, second = (smoothed.certify(images, n=200, alpha=0.01).counts for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    first = smoothed.certify(images, n=200, alpha=0.01).counts
    torch.manual_seed(3)
    assert torch.equal(first, smoothed.certify(images, n=200, alpha=0.01).counts)


# Scores and gradients


def test_hard_votes_are_fractions_and_soft_votes_mean_probabilities():
    images = torch.rand(5, 1, 8, 8)
    network = small_cnn()
    with keyed(range(5)):
        noise = 0.3 * torch.randn(5 * 20, 1, 8, 8)
    expected = network(images.repeat_interleave(20, dim=0) + noise)
    with keyed(range(5)):
        hard = RandomizedSmoothing(network, 4, sigma=0.3, draws=20)(images)
    with keyed(range(5)):
        soft = RandomizedSmoothing(network, 4, sigma=0.3, draws=20, votes="soft")(images)
    counts = nn.functional.one_hot(expected.argmax(1), 4).view(5, 20, 4).sum(1)
    torch.testing.assert_close(hard, counts / 20)
    torch.testing.assert_close(soft, expected.softmax(1).view(5, 20, 4).mean(1), rtol=1e-5, atol=1e-6)
    assert not hard.requires_grad


def test_the_gradient_of_hard_votes_is_that_of_soft_ones():
    """The soft gradient against finite differences in float64; the hard defense's after the draws that it has made."""
    network = small_cnn().double()
    soft, hard = (RandomizedSmoothing(network, 4, sigma=0.2, draws=8, votes=kind) for kind in ("soft", "hard"))
    assert list(soft.surrogates()) == ["exact"]
    assert list(hard.surrogates()) == ["bpda"]
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    weights, direction, step = torch.linspace(-1, 2, 4).double(), torch.randn_like(x), 1e-6

    def value(module, images):
        with keyed(range(3)):
            return (module(images) * weights).sum(1)

    attacked = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(soft, attacked).sum(), attacked)
    expected = (value(soft, x + step * direction) - value(soft, x - step * direction)).detach() / (2 * step)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), expected, rtol=1e-4, atol=1e-6)
    with keyed(range(3)):
        found = (hard.surrogate()(attacked) * weights).sum()
        (through,) = torch.autograd.grad(found, attacked)
    with keyed(range(3)):
        hard(x)  # the draws of the value
        (expected,) = torch.autograd.grad((soft(attacked) * weights).sum(), attacked)
    torch.testing.assert_close(through, expected)


def test_modes_of_the_classifier_are_kept():
    binarized = TransformedClassifier(Binarize(), small_cnn(), 4)
    images = torch.rand(3, 1, 8, 8)
    for kind, names in (("hard", ["bpda+bpda"]), ("soft", ["bpda"])):
        smoothed = RandomizedSmoothing(binarized, 4, sigma=0.2, draws=8, votes=kind)
        assert list(smoothed.surrogates()) == names
        attacked = images.clone().requires_grad_()
        with keyed(range(3)):
            found = smoothed.surrogate()(attacked)
        with keyed(range(3)):
            torch.testing.assert_close(found, smoothed(images))
        assert torch.autograd.grad(found[:, 0].sum(), attacked)[0].abs().max() > 0
