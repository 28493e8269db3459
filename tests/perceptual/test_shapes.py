"""Embeddings that do not fit each other are refused; `tests/contracts/test_distances.py` asks every distance."""

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.perceptual import Combined, FeatureDistance, SquaredL2
from gencls.perceptual.shapes import check_one_shape


def features():
    return FeatureDistance(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()), ("0", "1"))


def maps(*leading, side=6, parts=1):
    return tuple(torch.rand(*leading, 1, side, side) for _ in range(parts))


@pytest.mark.parametrize("side", [1, 5])
def test_maps_of_two_sizes(side):
    words = rf"^FeatureDistance: expected maps of one shape \(c, h, w\) to compare, got \(1, 6, 6\) and \(1, {side}, {side}\)$"
    with pytest.raises(GenclsError, match=words):
        features().compare(maps(3, parts=2), maps(3, side=side, parts=2))


def test_another_number_of_maps():
    with pytest.raises(GenclsError, match="^FeatureDistance: expected as many maps of both sides to compare, got 2 and 1$"):
        features().compare(maps(3, parts=2), maps(3))
    alone, both = Combined(SquaredL2(), features(), 0.0), Combined(SquaredL2(), features())
    with pytest.raises(GenclsError, match="^FeatureDistance: expected as many maps of both sides to compare, got 2 and 0$"):
        both.compare(both.embed(*maps(3)), alone.embed(*maps(3)))


@pytest.mark.parametrize(("one", "other"), [((3,), (3,)), ((3, 1), (3, 4)), ((1,), (3,)), ((3,), (2, 3)), ((), (3,))])
def test_what_broadcasts_is_compared(one, other):
    first, second = maps(*one), maps(*other)
    check_one_shape(SquaredL2(), first, second, "images (C, H, W)")
    assert SquaredL2().compare(first, second).shape == torch.broadcast_shapes(one, other)
