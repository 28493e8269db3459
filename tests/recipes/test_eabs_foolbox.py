"""Foolbox's claims beside verified accuracy, on a defense whose distances are known."""

import pytest
import torch
from torch import Tensor

from gencls.core import Defense
from gencls.zoo import ImageData
from recipes.eabs import foolbox as eabs_foolbox


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
    images = torch.full((5, 1, 4, 4), 0.5)
    images[:, 0, 0] += torch.tensor([0.4, 0.3, 0.1, -0.1, -0.4]).view(-1, 1)  # the last but one has the wrong label
    data = ImageData("toy", "test", images, torch.tensor([1, 1, 1, 1, 0]), ("low", "high"), torch.arange(5))
    monkeypatch.setattr(eabs_foolbox, "EPSILON", 0.5)
    table = eabs_foolbox.compare(FirstPixels().eval(), data, judge=1)
    assert list(table.index) == ["PGD", "PGD, calibrated, steps of ε / 40", "DeepFool", "DDN"]
    assert (table == "60 [23, 88]").all(axis=None)
    monkeypatch.setattr(eabs_foolbox, "EPSILON", 0.7)
    table = eabs_foolbox.compare(FirstPixels().eval(), data, judge=1)
    # From a random start 40 steps of epsilon / 40 do not get across the ball, whatever the scores.
    for row, expected in zip(table.index, ((60, 60, 40), (60, 60, 60), (40, 40, 40), (40, 40, 40)), strict=True):
        assert tuple(int(cell.split()[0]) for cell in table.loc[row]) == expected, row
