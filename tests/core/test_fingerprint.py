from functools import partial, wraps

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional

from gencls.core import fingerprint
from gencls.defenses import ABS
from gencls.zoo.networks import GroupedDecoders
from gencls.zoo.networks.abs.grouped_decoders import DecoderStage
from tests.toys import SigmoidDecoders, small_cnn


class Holder(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value


def scaled(factor):
    return lambda x: x * factor


def defaulted(factor):
    def function(x, *, by=factor):
        return x * by

    return function


def recursive(x):
    def inner(x):
        return inner(x - 1) if x else x

    return inner


PAIRS = {
    "number": (1, 2),
    "array scalar": (numpy.float32(0.1), numpy.float32(0.9)),
    "array": (numpy.zeros(2), numpy.ones(2)),
    "tensor": (torch.zeros(2), torch.ones(2)),
    "tensors by name": ({"a": torch.zeros(2)}, {"a": torch.ones(2)}),
    "list": ([1, torch.zeros(1)], [1, torch.ones(1)]),
    "function": (functional.relu, torch.tanh),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "closure": (scaled(2), scaled(3)),
    "default": (defaulted(2), defaulted(3)),
    "partial": (partial(torch.clamp, min=0), partial(torch.clamp, min=1)),
    "function that closes over itself": (recursive(1), scaled(1)),
    "set": ({"a", "b"}, {"a", "c"}),
    "dtype": (torch.float32, torch.float64),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_other_settings_other_key(kind):
    one, other = PAIRS[kind]
    assert fingerprint(Holder(one)) == fingerprint(Holder(one))
    assert fingerprint(Holder(one)) != fingerprint(Holder(other))


def test_a_function_that_bears_the_name_of_another():
    @wraps(functional.relu)
    def mine(x, inplace=False):
        return 3 * x

    assert fingerprint(Holder(mine)) != fingerprint(Holder(functional.relu))


def test_weights_and_mode():
    assert fingerprint(small_cnn(seed=0)) == fingerprint(small_cnn(seed=0))
    assert fingerprint(small_cnn(seed=0)) != fingerprint(small_cnn(seed=0).train())
    assert fingerprint(small_cnn(seed=0)) != fingerprint(small_cnn(seed=1))


def test_use_does_not_change_it():
    defense = ABS(SigmoidDecoders(), starts=8, steps=1).eval()
    before = fingerprint(defense)
    defense(torch.rand(2, 1, 8, 8))
    assert fingerprint(defense) == before


def grouped(activation):
    torch.manual_seed(0)
    stages = [[DecoderStage(nn.ConvTranspose2d(3, 1, 4), None, activation)] for _ in range(2)]
    return GroupedDecoders(stages)


def test_decoders_with_other_activations():
    assert fingerprint(grouped("relu")) != fingerprint(grouped("sigmoid"))
