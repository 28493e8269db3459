"""What the results of a module depend on: which changes show in its contents, and which leave them."""

import copy

import pytest
import torch
from torch import nn

from gencls.core.memory import store_channels_last
from gencls.core.modules.contents import contents


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(4, 5), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.1)).eval()


def exchanged(tensor):
    """Write two rows into each other's places: no norm and no sum of all numbers changes."""
    tensor.data.copy_(tensor.data[[1, 0, *range(2, len(tensor))]])


CHANGES = {
    "a write": lambda net: net[1].weight.detach().mul_(1.1),
    "a write through data": lambda net: net[1].weight.data.copy_(1.1 * net[1].weight),
    "a single number through data": lambda net: net[1].weight.data[3, 2, 1, 0].add_(1e-4),
    "rows exchanged through data": lambda net: exchanged(net[0].weight),
    "a bias of zeros through data": lambda net: net[2].bias.data[4:5].add_(1e-6),
    "a buffer through data": lambda net: net[2].running_mean.data.add_(0.5),
    "whole numbers through data": lambda net: net[2].num_batches_tracked.data.add_(1),
    "other weights": lambda net: net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}),
    "assigned weights": lambda net: net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True),
    "another type": lambda net: net.double(),
    "another order in memory": store_channels_last,
    "training mode": lambda net: net.train(),
    "training mode of a part": lambda net: net[3].train(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_shows(change):
    net = network()
    before = contents(net)
    assert contents(net) == before
    change(net)
    assert contents(net) != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_a_write_through_data_shows_in_other_types(dtype):
    tensor = torch.randn(3, 4, 5).to(dtype)
    before = contents(tensor)
    tensor.data.mul_(1.1)
    assert contents(tensor) != before


def test_use_leaves_the_contents():
    net = network()
    before = contents(net)
    with torch.inference_mode():
        assert contents(net) == before
    net[2](net[1](torch.randn(1, 5, 8, 8))).sum().backward()
    torch.rand(3)
    assert contents(net) == before
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contents(net) != before  # results would have another type


def test_neither_nan_nor_random_numbers_disturb():
    mask = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    state = torch.get_rng_state()
    assert contents(mask) == contents(mask)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_copy_lies_elsewhere():
    net = network()
    assert contents(copy.deepcopy(net)) != contents(net)


def test_parts_without_numbers_in_a_row_are_left_out():
    sparse = torch.eye(3).to_sparse()
    assert contents(nn.Identity(), sparse) == contents(nn.Identity())
