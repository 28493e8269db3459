"""Defenses that others wrote, and what the doctor must say of each: masked ones are named, healthy ones pass."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from gencls import zoo
from gencls.core import seeded
from gencls.eval.doctor import EFFORTS, Effort, diagnose
from tests.strangers.defenses import BatchNormOfTheBatch, OneOfFive
from tests.toys import small_cnn

EFFORT = Effort("test", images=10, probes=10, directions=2, steps=4, few_steps=1, far_steps=8, queries=10, tries=1, smoothing=1)
EPSILON = 0.1


class Stranger(nn.Module):
    """A network with something in front of it or behind it, as it comes: no declaration but ``stochastic``."""

    def __init__(self, network, front=None, behind=None):
        super().__init__()
        self.network, self.front, self.behind = network, front or nn.Identity(), behind or nn.Identity()
        self.eval()

    def forward(self, images):
        return self.behind(self.network(self.front(images)))


class Winners(nn.Module):
    """k-winners-take-all (Xiao et al. 2020, arXiv:1905.10510): all but the largest activations of a layer become zero."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, values):
        flat = values.flatten(1)
        least = flat.topk(int(self.share * flat.shape[1]), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(values)


class Ensemble(nn.Module):
    """The mean of the scores of several networks."""

    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.eval()

    def forward(self, images):
        return torch.stack([network(images) for network in self.networks]).mean(dim=0)


class OneForEachRow(Ensemble):
    """Asks for each image one of the networks, by chance, and says so."""

    stochastic = True

    def forward(self, images):
        scores = torch.stack([network(images) for network in self.networks])
        return scores[torch.randint(len(self.networks), (len(images),)), torch.arange(len(images))]


class StraightThrough(torch.autograd.Function):
    """The values of a function and the gradient of the identity."""

    @staticmethod
    def forward(context, values, function):
        return function(values)

    @staticmethod
    def backward(context, gradient):
        return gradient, None


def straight_through(function):
    return lambda values: StraightThrough.apply(values, function)


def grid(images):
    return (8 * images).round() / 8


def ranks(scores):
    return scores.argsort(dim=1).argsort(dim=1).to(scores.dtype)


def digits_cnn(**parts):
    return Stranger(zoo.load("cnn-mnist"), **parts)


def with_activation(activation):
    network = copy.deepcopy(zoo.load("cnn-mnist"))
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(module, name, activation())
    return network.eval()


def reparametrised(network, how):
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            how(module)
    return network.eval()


def relatives(kind):
    """Five networks that differ a little."""
    networks = [small_cnn() for _ in range(5)]
    with torch.no_grad(), seeded(0):
        for parameter in nn.ModuleList(networks).parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    return kind(networks)


@pytest.fixture(scope="module")
def digits():
    """Embedded test digits."""
    data = zoo.load_data("mnist-embedded", "test", limit=EFFORT.images)
    return data.images, data.labels


@pytest.fixture(scope="module")
def squares():
    """Random images of 8 x 8 pixels."""
    return torch.rand(EFFORT.images, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def examine(defense, images, labels, **settings):
    return diagnose(defense, images, labels, **{"epsilon": EPSILON, "effort": EFFORT, **settings})


MASKED = {
    # kind: (defense, check -> (status, words of the finding))
    "scores in half precision": (
        lambda: digits_cnn(behind=torch.Tensor.half),
        {"offset and scale": ("fail", "divide the scores")},
    ),
    "ranks": (lambda: digits_cnn(behind=ranks), {"gradient": ("fail", "no gradient mode has a finite gradient")}),
    "ranks, straight-through": (
        lambda: digits_cnn(behind=straight_through(ranks)),
        {"finite differences": ("fail", "straight-through")},
    ),
    "saturated sigmoid in front": (
        lambda: digits_cnn(front=lambda images: torch.sigmoid(1e4 * (images - 0.5))),
        {"zero gradients": ("fail", "exactly zero")},
    ),
    "softmax at temperature 1e-3": (
        lambda: digits_cnn(behind=lambda scores: (scores / 1e-3).softmax(dim=1)),
        {"clean scores": ("note", "probabilities"), "zero gradients": ("fail", "exactly zero")},
    ),
    "grid": (lambda: digits_cnn(front=grid), {"zero gradients": ("fail", "exactly zero")}),
    "grid, straight-through": (
        lambda: digits_cnn(front=straight_through(grid)),
        {"finite differences": ("fail", "straight-through")},
    ),
    "winners, dense jumps": (
        lambda: with_activation(lambda: Winners(0.2)),
        {"finite differences": ("fail", "the scores jump")},
    ),
    "winners, jumps that the smallest step avoids": (
        lambda: with_activation(lambda: Winners(0.1)),
        {"finite differences": ("note", "at one step size only: 0.0001 (exact)")},
    ),
}


@pytest.mark.parametrize("kind", MASKED)
def test_a_masked_defense_is_named(kind, digits):
    build, expected = MASKED[kind]
    found = {check.name: check for check in examine(build(), *digits).checks}
    for name, (status, words) in expected.items():
        assert found[name].status == status, found[name]
        assert words in found[name].finding


HEALTHY = {
    # kind: (defense, checks that may be notes besides "effort")
    "weight norm": (lambda: reparametrised(zoo.load("cnn-mnist"), nn.utils.parametrizations.weight_norm), set()),
    "GELU": (lambda: with_activation(nn.GELU), set()),
    "ensemble": (lambda: Ensemble([zoo.load("cnn-mnist"), zoo.load("trades-mnist")]), set()),
    "adv-l2-mnist": (lambda: zoo.load("adv-l2-mnist"), set()),
    "trades-mnist": (lambda: zoo.load("trades-mnist"), set()),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_healthy_defense_passes(kind, digits):
    build, notes = HEALTHY[kind]
    diagnosis = examine(build(), *digits)
    assert diagnosis.named("fail") == ()
    assert {*diagnosis.named("note")} <= {"effort"} | notes


SMALL = {
    "spectral norm": (lambda: reparametrised(small_cnn(), nn.utils.parametrizations.spectral_norm), set()),
    "one of five for each row, declared": (lambda: relatives(OneForEachRow), {"claimed against verified", "EoT"}),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_healthy_defense_passes(kind, squares):
    build, notes = SMALL[kind]
    defense = build()
    with torch.no_grad(), seeded(0):
        labels = torch.stack([defense(squares) for _ in range(64)]).mean(dim=0).argmax(dim=1)
    diagnosis = examine(defense, squares, labels, eot_samples=8)
    assert diagnosis.named("fail") == ()
    assert {*diagnosis.named("note")} <= {"effort"} | notes


def test_gradients_that_lead_nowhere_unless_smoothed_are_named():
    # Trained in Linf, attacked in L2: half of what plain gradients leave falls to smoothed ones.
    data = zoo.load_data("mnist-embedded", "test", limit=20)
    effort = replace(EFFORT, images=20, steps=15, smoothing=2)
    diagnosis = examine(zoo.load("adv-linf-mnist"), data.images, data.labels, epsilon=1.5, norm="l2", effort=effort)
    assert diagnosis.named("fail") == ("smoothed gradients",)
    (found,) = (check for check in diagnosis.checks if check.name == "smoothed gradients")
    assert "use default-l2, which has smoothed gradients" in found.finding


def test_one_of_five_for_each_call_is_found_with_every_seed(squares):
    defense = relatives(OneOfFive)
    labels = relatives(Ensemble)(squares).argmax(dim=1)
    found = [examine(defense, squares, labels, seed=seed).named("fail") for seed in range(20)]
    assert ["randomness" in names for names in found] == [True] * 20


def test_batch_statistics_are_named(digits):
    diagnosis = examine(BatchNormOfTheBatch(zoo.load("cnn-mnist")), *digits)
    assert diagnosis.named("fail") == ("rest of the batch",)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*MASKED, *HEALTHY])
def test_verdicts_at_a_large_effort(kind):
    data = zoo.load_data("mnist-embedded", "test", limit=50)
    build, _ = {**MASKED, **HEALTHY}[kind]
    diagnosis = diagnose(build(), data.images, data.labels, epsilon=EPSILON, effort=EFFORTS[1])
    found = {check.name: check.status for check in diagnosis.checks}
    if kind in HEALTHY:
        assert diagnosis.named("fail") == ()
    else:
        assert all(found[name] == status for name, (status, _) in MASKED[kind][1].items())
