"""DDN, targeted, against the closed form of linear classifiers."""

import pytest

from gencls.eval import DDN, ThreatModel
from tests.contracts.linear import SHAPES, linear_problem, minimal_distance, run


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_optimal_for_two_classes_when_targeted(shape):
    model, images, labels = linear_problem(2, shape, 16)
    attack = DDN(ThreatModel("l2", targeted=True))
    found = run(attack, model, images, 1 - labels)
    assert (attack.threat.distance(images, found) <= 1.05 * minimal_distance(model, images, labels, "l2")).all()
