"""Pairs of modules that differ in exactly one thing; python -m tests.strangers.key_pairs prints the key of each first one."""

import argparse
import collections
import decimal
import functools
import json
import pathlib
import random
import re
import sys
import types

import numpy
import torch
from torch import nn
from torch.nn.utils import parametrizations

from gencls.core import key_of
from tests.strangers.key_parts import (
    Colour,
    Compose,
    FrozenRecord,
    Holder,
    Level,
    Marked,
    Named,
    Plain,
    Point,
    Record,
    Slots,
    Text,
    attribute,
    buffer,
    closing_over,
    compressed,
    empty_cell,
    generator,
    held,
    hooked,
    in_part,
    itself,
    linear,
    marked,
    nested,
    pair,
    quantised,
    quantised_by_channel,
    referred,
    scaled,
    scripted,
    set_up,
    shifted,
    sparse,
    twice,
    with_forward,
    wrapped,
    zero,
)
from tests.strangers.key_text import EDITS, TEXT, bare, edited, written

VALUES = {
    "number": (lambda: 1, lambda: 2),
    "int or float": (lambda: 1, lambda: 1.0),
    "int or bool": (lambda: 1, lambda: True),
    "sign of zero": (lambda: 0.0, lambda: -0.0),
    "NaN": (lambda: float("nan"), lambda: float("inf")),
    "very large int": (lambda: 10**6000, lambda: 10**6000 + 1),
    "complex": (lambda: 1 + 2j, lambda: 1 - 2j),
    "string": (lambda: "a", lambda: "b"),
    "string of another kind": (lambda: "a", lambda: Text("a")),
    "half a character": (lambda: "\ud800", lambda: "\ud801"),
    "bytes": (lambda: b"a", lambda: b"b"),
    "bytearray": (lambda: bytearray(b"a"), lambda: bytearray(b"b")),
    "None or nothing": (lambda: None, lambda: ()),
    "ellipsis": (lambda: [...], lambda: [NotImplemented]),
    "list": (lambda: [1, [2]], lambda: [1, [3]]),
    "list or tuple": (lambda: [1], lambda: (1,)),
    "order of a list": (lambda: [1, 2], lambda: [2, 1]),
    "where a list ends": (lambda: [[1], 2], lambda: [[1, 2]]),
    "dict": (lambda: {"a": 1}, lambda: {"a": 2}),
    "kind of a key": (lambda: {1: "a"}, lambda: {"1": "a"}),
    "order of a dict": (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    "OrderedDict": (lambda: collections.OrderedDict(a=1, b=2), lambda: collections.OrderedDict(b=2, a=1)),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), lambda: collections.defaultdict(set, a=[1])),
    "deque": (lambda: collections.deque([1], 2), lambda: collections.deque([1], 3)),
    "Counter": (lambda: collections.Counter("aab"), lambda: collections.Counter("abb")),
    "set": (lambda: {"a", "b", "c", 1, (2,)}, lambda: {"a", "b", "d", 1, (2,)}),
    "frozenset": (lambda: frozenset("abc"), lambda: frozenset("abd")),
    "set of tensors' names": (lambda: {("a", frozenset("bc")), "d"}, lambda: {("a", frozenset("be")), "d"}),
    "range": (lambda: range(3), lambda: range(4)),
    "slice": (lambda: slice(0, 2), lambda: slice(0, 3)),
    "enum": (lambda: Colour.RED, lambda: Colour.BLUE),
    "enum of numbers": (lambda: Level.LOW, lambda: Level.HIGH),
    "enum or number": (lambda: Level.LOW, lambda: 1),
    "namespace": (lambda: argparse.Namespace(a=1), lambda: argparse.Namespace(a=2)),
    "simple namespace": (lambda: types.SimpleNamespace(a=1), lambda: types.SimpleNamespace(a=2)),
    "object": (lambda: Plain(1), lambda: Plain(2)),
    "object with slots": (lambda: Slots(1), lambda: Slots(2)),
    "dataclass": (lambda: Record(1.0), lambda: Record(2.0)),
    "frozen dataclass": (lambda: FrozenRecord(1.0), lambda: FrozenRecord(2.0)),
    "named tuple": (lambda: Point(1, 2), lambda: Point(1, 3)),
    "named tuple or tuple": (lambda: Point(1, 2), lambda: (1, 2)),
    "attribute of a list": (lambda: Named([1], "a"), lambda: Named([1], "b")),
    "Compose": (lambda: Compose([closing_over(1)]), lambda: Compose([closing_over(2)])),
    "pattern": (lambda: re.compile("a"), lambda: re.compile("a", re.IGNORECASE)),
    "path": (lambda: pathlib.Path("a"), lambda: pathlib.Path("b")),
    "decimal": (lambda: decimal.Decimal("0.1"), lambda: decimal.Decimal("0.10")),
    "proxy": (lambda: types.MappingProxyType({"a": 1}), lambda: types.MappingProxyType({"a": 2})),
    "type": (lambda: int, lambda: float),
    "generic type": (lambda: list[int], lambda: list[float]),
    "what holds itself": (itself, lambda: {"itself": {}}),
    "numpy scalar": (lambda: numpy.float32(0.1), lambda: numpy.float32(0.2)),
    "numpy scalar or float": (lambda: numpy.float64(0.1), lambda: 0.1),
    "array": (lambda: numpy.zeros(2), lambda: numpy.ones(2)),
    "type of an array": (lambda: numpy.zeros(2, "f4"), lambda: numpy.zeros(2, "i4")),
    "shape of an array": (lambda: numpy.zeros((2, 1)), lambda: numpy.zeros((1, 2))),
    "array of objects": (lambda: numpy.array([{"a": 1}]), lambda: numpy.array([{"a": 2}])),
    "masked array": (lambda: numpy.ma.array([1, 2], mask=[0, 1]), lambda: numpy.ma.array([1, 2], mask=[0, 0])),
    "numpy generator": pair(functools.partial(generator, "numpy"), 0, 1),
    "torch generator": pair(functools.partial(generator, "torch"), 0, 1),
    "Python generator of random numbers": pair(random.Random, 0, 1),
    "dtype": (lambda: torch.float32, lambda: torch.float64),
    "memory format": (lambda: torch.contiguous_format, lambda: torch.channels_last),
    "tensor": (lambda: torch.zeros(2), lambda: torch.ones(2)),
    "one bit of a tensor": (lambda: torch.tensor([1.0]), lambda: torch.tensor([1.0]).nextafter(torch.tensor(2.0))),
    "zero in a tensor": (lambda: torch.tensor(0.0), lambda: torch.tensor(-0.0)),
    "shape of a tensor": (lambda: torch.zeros(2, 1), lambda: torch.zeros(1, 2)),
    "empty tensor": (lambda: torch.zeros(0, 1), lambda: torch.zeros(0, 2)),
    "dtype of a tensor": (lambda: torch.zeros(2), lambda: torch.zeros(2, dtype=torch.int32)),
    "view": (lambda: torch.arange(6)[::2], lambda: torch.arange(6)[1::2]),
    "transposed": (lambda: torch.arange(4).view(2, 2), lambda: torch.arange(4).view(2, 2).T),
    "bool tensor": (lambda: torch.tensor([True]), lambda: torch.tensor([False])),
    "bfloat16": (lambda: torch.zeros(2).bfloat16(), lambda: torch.ones(2).bfloat16()),
    "float8": (lambda: torch.zeros(2).to(torch.float8_e4m3fn), lambda: torch.ones(2).to(torch.float8_e4m3fn)),
    "complex tensor": (lambda: torch.tensor([1j]), lambda: torch.tensor([1j]).conj()),
    "sparse tensor": pair(sparse, 1.0, 2.0),
    "sparse rows": pair(compressed, 1.0, 2.0),
    "quantised tensor": pair(quantised, 0.1, 0.2),
    "quantised by channel": pair(quantised_by_channel, 0.1, 0.2),
    "nested tensor": pair(nested, 1.0, 2.0),
    "meta tensor": (lambda: torch.empty(2, device="meta"), lambda: torch.empty(3, device="meta")),
    "kind of tensor": (lambda: torch.zeros(2), lambda: torch.zeros(2).as_subclass(Marked)),
    "attribute of a tensor": pair(marked, 1, 2),
    "parameter that waits": (
        lambda: nn.UninitializedParameter(dtype=torch.float32),
        lambda: nn.UninitializedParameter(dtype=torch.float64),
    ),
    "function": (lambda: nn.functional.relu, lambda: torch.tanh),
    "built-in function": (lambda: torch.relu, lambda: torch.tanh),
    "method of an object": (lambda: Plain(1).method, lambda: Plain(2).method),
    "built-in method": (lambda: [1].append, lambda: [2].append),
    "lambda": (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
    "closure": pair(closing_over, 1, 2),
    "callable in a closure": (lambda: closing_over(closing_over(1)), lambda: closing_over(closing_over(2))),
    "partial": (lambda: functools.partial(torch.clamp, min=0), lambda: functools.partial(torch.clamp, min=1)),
    "callable in a partial": (
        lambda: functools.partial(map, closing_over(1)),
        lambda: functools.partial(map, closing_over(2)),
    ),
    "default": (lambda: lambda x, by=(1,)[0]: x * by, lambda: lambda x, by=(1, 2)[1]: x * by),
    "empty cell": (empty_cell, lambda: closing_over(0)),
    "cached function": (
        lambda: functools.lru_cache(closing_over(1)),
        lambda: functools.lru_cache(closing_over(2)),
    ),
    "module in a list": (lambda: [linear(0)], lambda: [linear(1)]),
    "module in a dict": (lambda: {"a": linear(0)}, lambda: {"a": linear(1)}),
    "module in an object": (lambda: Plain(linear(0)), lambda: Plain(linear(1))),
    "module in a closure": (lambda: closing_over(linear(0)), lambda: closing_over(linear(1))),
    "method of a module": (lambda: linear(0).forward, lambda: linear(1).forward),
    "module in a set": (lambda: {linear(0), linear(2)}, lambda: {linear(1), linear(2)}),
    "list that is shared": (lambda: [[0]] * 2, lambda: [[0], [0]]),
}

MODULES = {
    "parameter": pair(linear, 0, 1),
    "buffer": pair(buffer, 0.0, 1.0),
    "buffer that is not saved": (lambda: buffer(0.0, persistent=False), lambda: buffer(1.0, persistent=False)),
    "private attribute": (lambda: attribute("_value", 0), lambda: attribute("_value", 1)),
    "name of an attribute": (lambda: attribute("a", 0), lambda: attribute("b", 0)),
    "class of a layer": (lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.ReLU6())),
    "setting of a layer": (lambda: nn.Sequential(nn.Dropout(0.1)), lambda: nn.Sequential(nn.Dropout(0.2))),
    "order of layers": (lambda: nn.Sequential(nn.ReLU(), nn.Tanh()), lambda: nn.Sequential(nn.Tanh(), nn.ReLU())),
    "one layer twice or two that are equal": pair(twice, True, False),
    "layer that is None": (lambda: attribute("layer", None), lambda: set_up(Holder(0), lambda m: m.add_module("layer", None))),
    "training mode of a part": pair(in_part, False, True),
    "forward hook": (
        lambda: hooked("register_forward_hook", scaled),
        lambda: hooked("register_forward_hook", shifted),
    ),
    "no hook": (linear, lambda: hooked("register_forward_hook", shifted)),
    "hook before forward": (
        lambda: hooked("register_forward_pre_hook", lambda module, inputs: (inputs[0] + 1,)),
        lambda: hooked("register_forward_pre_hook", lambda module, inputs: (inputs[0] + 2,)),
    ),
    "hook with keywords": (
        lambda: hooked("register_forward_pre_hook", closing_over(1)),
        lambda: hooked("register_forward_pre_hook", closing_over(1), with_kwargs=True),
    ),
    "backward hook": (
        lambda: hooked("register_full_backward_hook", lambda module, inputs, outputs: (0 * inputs[0],)),
        lambda: hooked("register_full_backward_hook", lambda module, inputs, outputs: (1 * inputs[0],)),
    ),
    "hook of a part": (
        lambda: nn.Sequential(hooked("register_forward_hook", scaled)),
        lambda: nn.Sequential(linear()),
    ),
    "hook that holds a module": (
        lambda: hooked("register_forward_hook", closing_over(linear(1))),
        lambda: hooked("register_forward_hook", closing_over(linear(2))),
    ),
    "forward of an instance": pair(with_forward, 1, 2),
    "weight norm": (linear, lambda: parametrizations.weight_norm(linear())),
    "what is parametrized": (
        lambda: parametrizations.weight_norm(linear(0)),
        lambda: parametrizations.weight_norm(linear(1)),
    ),
    "weak reference": pair(referred, 1, 2),
    "behind DataParallel": pair(functools.partial(wrapped, nn.DataParallel), 0, 1),
    "hook on DataParallel": (
        lambda: nn.DataParallel(linear()),
        lambda: set_up(nn.DataParallel(linear()), lambda m: m.register_forward_hook(scaled)),
    ),
    "other hook on DataParallel": (
        lambda: set_up(nn.DataParallel(linear()), lambda m: m.register_forward_hook(scaled)),
        lambda: set_up(nn.DataParallel(linear()), lambda m: m.register_forward_hook(shifted)),
    ),
    "hook before DataParallel": (
        lambda: nn.DataParallel(linear()),
        lambda: set_up(nn.DataParallel(linear()), lambda m: m.register_forward_pre_hook(closing_over(1))),
    ),
    "forward of an instance of DataParallel": (
        lambda: set_up(nn.DataParallel(linear()), lambda m: setattr(m, "forward", closing_over(1))),
        lambda: set_up(nn.DataParallel(linear()), lambda m: setattr(m, "forward", closing_over(2))),
    ),
    "forward of DataParallel or of an instance": (
        lambda: nn.DataParallel(linear()),
        lambda: set_up(nn.DataParallel(linear()), lambda m: setattr(m, "forward", closing_over(1))),
    ),
    "lazy layer": (lambda: nn.LazyLinear(2), lambda: nn.LazyLinear(3)),
    "traced": (
        lambda: torch.fx.symbolic_trace(nn.Sequential(linear(0), nn.ReLU())),
        lambda: torch.fx.symbolic_trace(nn.Sequential(linear(0), nn.Tanh())),
    ),
    "script": pair(scripted, nn.ReLU(), nn.Tanh()),
    "recurrent": (lambda: nn.Sequential(nn.GRU(2, 2)).apply(zero), lambda: nn.Sequential(nn.GRU(2, 2, 2)).apply(zero)),
}


def all_pairs():
    """Name -> the functions that make the two modules."""
    pairs = {f"value: {kind}": held(*both) for kind, both in VALUES.items()}
    pairs |= {f"module: {kind}": both for kind, both in MODULES.items()}
    for kind, edit in EDITS.items():
        pairs[f"code: {kind}"] = pair(written, TEXT, edited(*edit))
        pairs[f"code without source: {kind}"] = pair(bare, TEXT, edited(*edit))
    return pairs


def main():
    keys = {kind: key_of(one(), kind).whole for kind, (one, _) in all_pairs().items()}
    json.dump(keys, sys.stdout)


if __name__ == "__main__":
    main()
