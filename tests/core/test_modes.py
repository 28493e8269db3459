"""Which layers matter when a network in training mode is asked, and which do not."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.core.modules.modes import check_mode_is_settled


class Noisy(nn.Module):
    """A layer of one's own that asks for the mode, in a function of its own."""

    def forward(self, images):
        return self.changed(images)

    def changed(self, images):
        return images + (torch.randn_like(images) if self.training else 0)


class Toy(nn.Module):
    """A layer of one's own with numbers, the same in both modes; it sets its mode, as a wrapper does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.training = bool(torch.nn.Identity().training)

    def train(self, mode=True):
        assert self.training in (True, False)
        return super().train(mode)

    def forward(self, images):
        return self.weight * images


class DropPath(nn.Module):
    """It draws random numbers without asking."""

    def forward(self, images):
        return images * torch.rand(len(images), 1, 1, 1).round()


MATTERS = {
    "batch norm": nn.BatchNorm2d(2),
    "instance norm with statistics": nn.InstanceNorm2d(2, track_running_stats=True),
    "dropout": nn.Dropout(0.5),
    "randomised leaky ReLU": nn.RReLU(),
    "dropped paths by name": DropPath(),
    "spectral norm": nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)),
    "spectral norm, old style": nn.utils.spectral_norm(nn.Linear(2, 2)),
    "a layer that asks": Noisy(),
}

SETTLED = {
    "no layer of torch": Toy(),
    "layers without modes": nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.ReLU(), nn.Flatten()),
    "batch norm without statistics": nn.BatchNorm2d(2, track_running_stats=False),
    "instance norm without statistics": nn.InstanceNorm2d(2),
    "dropout of nothing": nn.Dropout(0.0),
}


@pytest.mark.parametrize("part", MATTERS.values(), ids=MATTERS)
def test_a_layer_to_which_the_mode_matters(part):
    network = nn.Sequential(nn.Identity(), part)
    with pytest.raises(
        GenclsError, match=r"asker: expected networks in eval mode, got training mode of 1.*; call .eval\(\) first"
    ):
        check_mode_is_settled(network.train(), name="asker")
    check_mode_is_settled(network.eval(), name="asker")


@pytest.mark.parametrize("part", SETTLED.values(), ids=SETTLED)
def test_a_layer_to_which_the_mode_does_not_matter(part):
    check_mode_is_settled(nn.Sequential(nn.Identity(), part).train(), name="asker")


def test_the_module_itself_is_named():
    with pytest.raises(GenclsError, match=r"got training mode of the whole \(Noisy\)"):
        check_mode_is_settled(Noisy(), name="asker")
