import pytest
import torch

from gencls.core import EoT, GenclsError, keyed
from gencls.eval import PGD, AttackModel, ThreatModel
from gencls.eval.attacks.nes import NES, estimate_gradient
from tests.toys import Linear, NoisyLogits, small_cnn

LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)


def estimated(model, images, labels, first=0, **settings):
    model = AttackModel.of(model)
    with keyed(range(first, first + len(images))):
        return estimate_gradient(model, images, labels, model.cross_entropy, **settings)


def exact(model, images, labels):
    model = AttackModel.of(model)
    return model.look(images, labels, model.cross_entropy).gradient


def cosines(found, expected):
    return torch.cosine_similarity(found.flatten(1), expected.flatten(1))


def test_a_batch_of_64_estimates_as_well_as_a_batch_of_1(cnn, digits):
    """Losses are differenced image by image. The cosine of n random directions in d dimensions is about sqrt(n / (n + d))."""
    images, labels = digits
    expected = exact(cnn, images, labels)
    together = cosines(estimated(cnn, images, labels, samples=200, sigma=0.001), expected)
    alone = [estimated(cnn, images[i : i + 1], labels[i : i + 1], i, samples=200, sigma=0.001) for i in range(64)]
    alone = cosines(torch.cat(alone), expected)
    assert abs(together.mean() - alone.mean()) < 0.02
    assert abs(together.mean() - (200 / 264) ** 0.5) < 0.02


def test_the_estimate_is_unbiased_also_at_the_borders():
    """On a linear loss every one of 20,000 pairs is exact but for its own direction: errors of |w| / sqrt(20,000)."""
    weight = torch.randn(2, 16)
    model = Linear(weight, torch.zeros(2)).eval()
    images = torch.full((1, 1, 4, 4), 0.5)
    images[..., 0, :], images[..., 1, :], images[..., 2, :] = 0.0, 1.0, 0.005  # the last at half a deviation
    found = estimate_gradient(
        model,
        images,
        torch.zeros(1, dtype=torch.long),
        lambda s, y: s.mean(dim=1)[:, 1],
        samples=20_000,
        sigma=0.01,
        max_rows=5000,
    )
    error = (found.flatten() - weight[1]).abs()
    assert error.max() < 2 * 4.5 * weight[1].norm() / 20_000**0.5  # twice for the division by a probability of 1/2


@pytest.mark.parametrize("noisy", [False, True])
def test_the_row_limit_changes_nothing(noisy, digits):
    images, labels = digits[0][:5], digits[1][:5]
    model = AttackModel(NoisyLogits(small_cnn(), sigma=0.3), samples=3) if noisy else small_cnn()
    whole, parts = (estimated(model, images, labels, samples=8, max_rows=rows) for rows in (10_000, 30))
    assert cosines(whole, parts).min() > 0.999  # float32 scores, rounded differently, are differenced over 0.002


def test_noise_on_the_scores_cancels_within_a_pair(cnn, digits):
    """Both images of a pair meet the same draws; noise of 0.3 divided by sigma would leave one of 0.1 or so."""
    noisy = AttackModel(NoisyLogits(small_cnn(), sigma=0.3), samples=1)
    images, labels = digits
    found = estimated(noisy, images, labels, samples=200)
    assert cosines(found, exact(cnn, images, labels)).mean() > 0.5


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_nearly_as_strong_as_pgd(threat, cnn, digits):
    images, labels = digits[0], cnn(digits[0]).argmax(1)
    accuracy = {}
    for attack in (PGD(threat, steps=20), NES(threat, steps=20)):
        with keyed(range(64)):
            accuracy[type(attack)] = (cnn(attack(cnn, images, labels)).argmax(1) == labels).double().mean()
    assert accuracy[PGD] < 0.7
    assert accuracy[NES] <= accuracy[PGD] + 3 / 64


def test_works_without_any_gradient(digits):
    class Detached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small_cnn()

        def forward(self, images):
            assert not torch.is_grad_enabled()
            return self.model(images).detach()

    model = Detached().eval()
    images, labels = digits[0], model.model(digits[0]).argmax(1)
    found = NES(LINF, steps=10)(model, images, labels)
    assert (model.model(found).argmax(1) == labels).double().mean() < 0.7


def test_queries_are_counted_on_the_model_under_attack(cnn, digits):
    model = AttackModel(cnn)
    dead = AttackModel(Linear(torch.zeros(4, 64), torch.tensor([1.0, 0, 0, 0])).eval())
    attack = NES(LINF, steps=3, samples=5)
    attack(dead, digits[0][:4], torch.zeros(4, dtype=torch.long))
    assert dead.meter.forwards == 4 * attack.passes[0] == 4 * (3 * 11 + 1)
    assert dead.meter.zero_gradients == dead.meter.gradients == 12  # such a model is reported as flat
    attack(model, *digits)
    assert model.meter.backwards == 0
    assert model.meter.forwards <= 64 * attack.passes[0]


def test_losses_that_are_not_finite_are_named(digits):
    class Broken(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 4), torch.nan)

    with pytest.raises(GenclsError, match="finite"):
        NES(LINF, steps=2)(Broken().eval(), *digits)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"sigma": 0.0}, {"steps": 0}, {"restarts": 0}, {"loss": "hinge"}])
def test_bad_settings(settings):
    with pytest.raises(GenclsError):
        NES(LINF, **settings)


def test_eot_in_chunks_gives_the_same_estimate(digits):
    images, labels = digits[0][:4], digits[1][:4]
    noisy = NoisyLogits(small_cnn(), sigma=0.3)
    whole, chunked = (AttackModel(noisy, samples=6, chunk=chunk) for chunk in (None, 2))
    assert isinstance(whole.eot, EoT)
    assert cosines(estimated(whole, images, labels, samples=8), estimated(chunked, images, labels, samples=8)).min() > 0.999
