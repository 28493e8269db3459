"""FGSM against the closed forms of linear classifiers."""

import pytest
import torch

from gencls.eval import FGSM, ThreatModel
from tests.contracts.linear import SHAPES, linear_problem, margins, optimal_margin, run

SIZES = {"linf": 0.1, "l2": 0.1, "l1": 1.3, "l0": 3}

every_norm = pytest.mark.parametrize("norm", SIZES)


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
@every_norm
def test_fgsm_is_optimal_for_two_classes(norm, shape, count):
    model, images, labels = linear_problem(2, shape, count)
    found = run(FGSM(ThreatModel(norm, SIZES[norm])), model, images, labels)
    best = optimal_margin(model, images, labels, norm, SIZES[norm])
    reached = margins(model, found, labels).amin(1)
    if norm == "l0":  # entries are chosen by a square, in which their slopes outweigh their room by ten to one
        clean = margins(model, images, labels).amin(1)
        assert ((reached - best) / (clean - best) < 0.05).all()
    else:
        torch.testing.assert_close(reached, best, rtol=1e-4, atol=1e-4)
