"""FAB against the closed forms of linear classifiers."""

import pytest
import torch

from gencls.eval import ThreatModel
from gencls.eval.attacks.fab import FAB
from tests.contracts.linear import linear_problem, margins, minimal_distance, run, shapes_and_counts
from tests.toys import Linear

THREATS = {"linf": ThreatModel("linf", 0.1), "l2": ThreatModel("l2", 0.25)}

both_norms = pytest.mark.parametrize("norm", THREATS)
every_number_of_classes = pytest.mark.parametrize("classes", [2, 3, 4, pytest.param(10, marks=pytest.mark.slow)])


@shapes_and_counts
@both_norms
@every_number_of_classes
@pytest.mark.parametrize("targets", [9, 0])
def test_fab_is_optimal(targets, classes, norm, shape, count):
    model, images, labels = linear_problem(classes, shape, count)
    found = run(FAB(ThreatModel(norm), steps=20, restarts=1, targets=targets), model, images, labels)
    ratio = ThreatModel(norm).distance(images, found) / minimal_distance(model, images, labels, norm)
    assert (margins(model, found, labels).amin(1) < 1e-6).all()
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.05).all()


@both_norms
def test_fab_keeps_to_the_box(norm):
    """Two classes on two pixels, the first of which is at its border: only the second one can move."""
    model = Linear(torch.tensor([[0.0, 0.0], [-1.0, 1.0]]), torch.tensor([0.0, -0.6])).eval()
    images = torch.tensor([[[[0.0, 0.4]]]])
    found = run(FAB(ThreatModel(norm), steps=20, restarts=1), model, images, torch.tensor([0]))
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 0.6]]]]), rtol=0, atol=2e-3)


@both_norms
def test_fab_with_an_epsilon(norm):
    """Samples whose boundary is in the ball are broken there; the others keep their image."""
    model, images, labels = linear_problem(4, (1, 5, 7), 64)
    distance = minimal_distance(model, images, labels, norm)
    threat = ThreatModel(norm, distance.median().item())
    found = run(FAB(threat, steps=20, restarts=1), model, images, labels)
    broken = margins(model, found, labels).amin(1) < 0
    assert broken[distance < 0.95 * threat.epsilon].all()
    assert threat.allows(threat.distance(images, found)).all()
    assert torch.equal(found[~broken], images[~broken])


def test_later_restarts_of_fab_are_not_worse(cnn, digits):
    labels = cnn(digits[0]).argmax(1)
    threat = ThreatModel("l2")
    one, three = (
        threat.distance(digits[0], run(FAB(threat, steps=10, restarts=restarts), cnn, digits[0], labels)) for restarts in (1, 3)
    )
    assert (three <= one).all()
    assert (three < 0.9999 * one).any()
