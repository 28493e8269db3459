import pickle

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.perceptual import L2, Combined, FeatureDistance, SquaredL2


@pytest.fixture
def percept():
    return FeatureDistance(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3)).double(), ("1", "2"))


@pytest.fixture
def pair():
    return tuple(torch.rand(2, 3, 3, 8, 7, dtype=torch.float64))


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0])
def test_equals_the_sum(pair, percept, weight):
    expected = (pair[0] - pair[1]).square().sum((1, 2, 3)) + weight * percept(*pair)
    torch.testing.assert_close(Combined(SquaredL2(), percept, weight)(*pair), expected, rtol=1e-12, atol=0)


def test_its_embedding_has_both(pair, percept):
    where, pixels, *maps = Combined(SquaredL2(), percept).embed(pair[0])
    assert where.shape == (3, 1, 1, 1)
    assert torch.equal(pixels, pair[0])
    assert all(torch.equal(a, b) for a, b in zip(maps, percept.embed(pair[0]), strict=True))


def test_combined_distances_combine(pair, percept):
    inner = Combined(percept, SquaredL2(), 2.0)
    expected = percept(*pair) + 2 * SquaredL2()(*pair) + 3 * L2()(*pair)
    torch.testing.assert_close(Combined(inner, L2(), 3.0)(*pair), expected, rtol=1e-12, atol=0)


def test_the_network_does_not_run_for_weight_0(pair, percept):
    seen = []
    percept.network.register_forward_pre_hook(lambda *_: seen.append(1))
    Combined(SquaredL2(), percept, 0.0)(*pair)
    assert not seen
    Combined(SquaredL2(), percept)(*pair)
    assert len(seen) == 2


def test_its_weight_stays(percept):
    distance = Combined(SquaredL2(), percept, 2.0)
    with pytest.raises(GenclsError, match=r"Combined: expected its weight to stay 2\.0, got -5; make another Combined"):
        distance.weight = -5
    assert distance.weight == 2.0
    assert pickle.loads(pickle.dumps(Combined(SquaredL2(), L2(), 2.0))).weight == 2.0  # copies are made without a constructor


def test_negative_weight(percept):
    with pytest.raises(GenclsError, match=r"Combined: expected weight >= 0, got -1\.0"):
        Combined(SquaredL2(), percept, -1.0)
