"""PGD against the closed forms of linear classifiers, its restarts, and random defenses."""

import pytest
import torch

from gencls.eval import PGD, AttackModel, ThreatModel
from tests.contracts.linear import SHAPES, linear_problem, margins, optimal_margin, run, shapes_and_counts, shortfall
from tests.toys import NoisyLogits

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@shapes_and_counts
@pytest.mark.parametrize(
    ("norm", "epsilon", "slack"), [("linf", 0.1, 1e-4), ("l2", 0.25, 0.01), ("l1", 1.3, 0.01), ("l0", 3, 0.05)]
)
@pytest.mark.parametrize("classes", [2, 10])
def test_pgd_is_optimal(classes, norm, epsilon, slack, shape, count):
    """With a start against each other class. In L2, steps of epsilon / 4 turn a random start to within a percent.

    In L1 steps of one size jump between entries; in L0 entries are chosen by a square, in which slopes outweigh room.
    """
    model, images, labels = linear_problem(classes, shape, count)
    step_size = {"l1": None, "l0": 10.0}.get(norm, epsilon / 4)
    settings = {"steps": 40, "step_size": step_size, "restarts": classes - 1, "loss": "multi-targeted"}
    found = run(PGD(ThreatModel(norm, epsilon), **settings, to_the_end=True), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, epsilon)
    assert missing.max() <= slack
    found = run(PGD(ThreatModel(norm, epsilon), **settings), model, images, labels)
    reachable = best < -slack
    assert (margins(model, found, labels).amin(1)[reachable] < 0).all()  # stops there: broken is all it asks for
    missing, _ = shortfall(model, images, labels, found, norm, epsilon)
    assert (missing[best > 0] <= slack).all()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("shape", SHAPES)
@both_norms
def test_targeted_pgd_is_optimal_for_two_classes(loss, norm, shape):
    """The target is the other class; among several, raising one against all others has no closed form."""
    model, images, labels = linear_problem(2, shape, 16)
    epsilon = {"linf": 0.1, "l2": 0.25}[norm]
    settings = PGD(ThreatModel(norm, epsilon, targeted=True), steps=40, step_size=epsilon / 4, loss=loss, to_the_end=True)
    found = run(settings, model, images, 1 - labels)
    missing, _ = shortfall(model, images, labels, found, norm, epsilon)
    assert missing.max() <= 0.01


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@both_norms
def test_cross_entropy_pgd_breaks_what_can_clearly_be_broken(norm, shape, count):
    """The cross-entropy is no function of the margin: once wrong, it lowers the label further instead of raising one class."""
    model, images, labels = linear_problem(10, shape, count)
    epsilon = {"linf": 0.1, "l2": 0.25}[norm]
    found = run(PGD(ThreatModel(norm, epsilon), steps=40), model, images, labels)
    missing, best = shortfall(model, images, labels, found, norm, epsilon)
    assert (margins(model, found, labels).amin(1)[best < -0.3] < 0).all()
    assert (missing[best > 0] <= 0.2).all()


def test_a_later_restart_that_succeeds_counts():
    """Among several classes a wrong decision may have a smaller cross-entropy than a right one."""

    class Lookup(torch.nn.Module):
        """Pixel below 0.3: right, with large loss (all classes tied). Above: wrong by a little, with small loss."""

        def forward(self, images):
            tied = torch.tensor([0.001] + 4 * [0.0] + 5 * [-20.0])
            wrong = torch.tensor([0.0, 0.001] + 8 * [-12.0])
            return torch.where((images[:, 0, 0, :1] < 0.3), tied, wrong) + 0.0 * images[:, 0, 0, :1]

    images, labels = torch.full((1, 1, 1, 1), 0.2), torch.tensor([0])
    threat = ThreatModel("linf", 0.2)
    ends = {run(PGD(threat, steps=1), Lookup().eval(), images, labels, first=i).item() < 0.3 for i in range(8)}
    assert ends == {True, False}  # a single start may fail
    assert run(PGD(threat, steps=1, restarts=20), Lookup().eval(), images, labels).item() > 0.3


def test_eot_of_a_noisy_model_follows_the_mean_gradient():
    """With noise on the scores a single draw misleads; many draws reach the optimum of the classifier behind."""
    model, images, labels = linear_problem(2, (1, 5, 7), 32)
    noisy = NoisyLogits(model, sigma=1.0, num_classes=2)
    threat = ThreatModel("l2", 0.25)
    found = run(PGD(threat, steps=40, to_the_end=True), AttackModel(noisy, samples=16), images, labels)
    best = optimal_margin(model, images, labels, "l2", 0.25)
    clean = margins(model, images, labels).amin(1)
    assert ((margins(model, found, labels).amin(1) - best) <= 0.05 * (clean - best)).all()
