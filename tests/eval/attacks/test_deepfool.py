"""DeepFool at the borders of [0, 1], and the norms it knows."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.eval import DeepFool, ThreatModel
from tests.contracts.linear import run
from tests.toys import Linear


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_that_would_leave_the_range_do_not_count(norm):
    """Two of four pixels are black and would have to get darker: the others cross the boundary alone."""
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0])
    model = Linear(torch.stack([weights, -weights]), torch.tensor([-1.0, 1.0])).eval()
    images = torch.tensor([0.9, 0.6, 0.0, 0.0]).view(1, 1, 2, 2)
    found = run(DeepFool(ThreatModel(norm)), model, images, torch.tensor([0]))
    free = weights[:2]
    expected = (2.1 - 1.0) / (free.sum() if norm == "linf" else free.norm())
    assert model(found).argmax(1).item() == 1
    assert ThreatModel(norm).distance(images, found).item() == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("norm", ["l1", "l0"])
def test_norms_that_it_does_not_know(norm):
    with pytest.raises(GenclsError, match="DeepFool: expected a ThreatModel with a norm among linf, l2, got ThreatModel"):
        DeepFool(ThreatModel(norm))
