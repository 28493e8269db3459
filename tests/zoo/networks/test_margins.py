"""Margins around images, where they lie and that they come off again."""

import torch
from torch.nn.functional import pad

from gencls.zoo.networks.parts.margins import central_margins, crop


def test_images_lie_in_the_middle_and_come_out_again() -> None:
    images = torch.rand(2, 3, 5, 4)
    margins = central_margins((5, 4), (8, 8))
    assert margins == (2, 2, 1, 2)
    padded = pad(images, margins, value=-1.0)
    assert padded.shape == (2, 3, 8, 8)
    assert torch.equal(padded[:, :, 1:6, 2:6], images)
    assert (padded == -1).sum() == 2 * 3 * (64 - 20)
    assert torch.equal(crop(padded, margins), images)
    assert torch.equal(crop(images, central_margins((5, 4), (5, 4))), images)
