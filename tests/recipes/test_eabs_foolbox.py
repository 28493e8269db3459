"""Foolbox's claims beside verified accuracy, on a defense whose distances are known."""

import pytest
import torch
from torch import Tensor

from gencls.core import Defense
from gencls.zoo import ImageData
from recipes import eabs_foolbox


class FirstPixels(Defense):
    """Two classes: the mean of the first row against a half; the surrogate named frozen is exact."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        row = images[:, 0, 0].mean(dim=1)
        return 50 * torch.stack([0.5 - row, row - 0.5], dim=1)

    def surrogates(self):
        return {"frozen": self}


@pytest.mark.filterwarnings("ignore")  # foolbox's own
def test_accuracy_in_a_ball_of_known_size(monkeypatch):
    # Four pixels, each v away from 0.5: the distance to the decision is 2 v.
    images = torch.full((4, 1, 4, 4), 0.5)
    images[:, 0, 0] += torch.tensor([0.4, 0.1, -0.1, -0.4]).view(-1, 1)
    data = ImageData("toy", "test", images, torch.tensor([1, 1, 0, 0]), ("low", "high"), torch.arange(4))
    monkeypatch.setattr(eabs_foolbox, "EPSILON", 0.5)
    table = eabs_foolbox.compare(FirstPixels().eval(), data, judge=1)
    assert list(table.index) == ["PGD", "DeepFool", "DDN"]
    assert (table == 50.0).all(axis=None)
