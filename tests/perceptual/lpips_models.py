"""The networks of the package lpips, with random weights."""

import copy
import re
import warnings
from functools import lru_cache
from unittest.mock import patch

import torch
from torch import nn

NETS = ("vgg", "alex", "squeeze")


class _Tiny(nn.Linear):
    """Stands for the layers of a classifier, which LPIPS drops: they are most of the network, and take seconds to fill."""

    def __init__(self, *sizes):
        super().__init__(1, 1)


def official(net, *, heads=True):
    """The distance of the package with random trunk weights, and these weights in torchvision's layout."""
    distance = copy.deepcopy(_made(net, heads))
    names = {name: re.sub(r"^slice\d+\.", "features.", name) for name in distance.net.state_dict()}
    return distance, {names[name]: value for name, value in distance.net.state_dict().items()}


@lru_cache
def _made(net, heads):
    with warnings.catch_warnings(), patch.object(nn, "Linear", _Tiny):
        warnings.simplefilter("ignore")  # torchvision's: the package calls it the old way
        import lpips

        torch.manual_seed(0)
        return lpips.LPIPS(net=net, lpips=heads, pnet_rand=True, verbose=False)
