"""Pairs of modules that differ in exactly one thing; python -m tests.strangers.key_pairs prints the key of each first one."""

import argparse
import collections
import dataclasses
import decimal
import enum
import functools
import json
import linecache
import pathlib
import random
import re
import sys
import types
import warnings
import weakref

import numpy
import torch
from torch import nn
from torch.nn.utils import parametrizations

from gencls.core import key_of


class Holder(nn.Module):
    """Anything as an attribute."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        return images


class Plain:
    def __init__(self, value):
        self.value = value

    def method(self, images):
        return images * self.value


class Slots:
    __slots__ = ("_value",)

    def __init__(self, value):
        self._value = value


class Named(list):
    def __init__(self, values, name):
        super().__init__(values)
        self.name = name


class Text(str):
    """A string of another kind."""


class Marked(torch.Tensor):
    """A tensor of another kind."""


@dataclasses.dataclass
class Record:
    value: float
    other: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenRecord:
    value: float


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


Point = collections.namedtuple("Point", "x y")


class Compose:
    """As torchvision's."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, images):
        for step in self.steps:
            images = step(images)
        return images


class Late(nn.Module):
    """Computes once what it needs often."""

    @functools.cached_property
    def table(self):
        return torch.arange(4)

    def forward(self, images):
        return images + self.table.sum()


def linear(seed=0, out=2):
    source = torch.Generator().manual_seed(seed)
    layer = nn.Linear(3, out)
    layer.weight.data = torch.randn(out, 3, generator=source)
    layer.bias.data.zero_()
    return layer


def closing_over(value):
    return lambda images: images * value


def set_up(module, change):
    """A module after a change that is made to it."""
    change(module)
    return module


def attribute(name, value):
    module = Holder(0)
    setattr(module, name, value)
    return module


def buffer(value, persistent=True):
    module = Holder(0)
    module.register_buffer("kept", torch.tensor(value), persistent=persistent)
    return module


def in_part(flag):
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    torch.manual_seed(0)
    nn.init.zeros_(module[0].weight)
    nn.init.zeros_(module[0].bias)
    module[1].train(flag)
    return module


def hooked(register, hook, **settings):
    module = linear()
    getattr(module, register)(hook, **settings)
    return module


def scaled(module, inputs, output):
    return 2 * output


def shifted(module, inputs, output):
    return 1 + output


def wrapped(original, seed):
    return original(nn.Sequential(linear(seed)))


def itself():
    value = {}
    value["itself"] = value
    return value


def twice(shared):
    first = linear()
    return nn.Sequential(first, first if shared else linear())


def with_forward(factor):
    module = linear()
    module.forward = types.MethodType(lambda self, images, by=factor: by * self.weight.sum() * images, module)
    return module


def quietly(make):
    """Torch warns that some kinds of tensors are young, and others old."""

    @functools.wraps(make)
    def made(value):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(value)

    return made


@quietly
def quantised(scale):
    return torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), scale, 0, torch.quint8)


@quietly
def quantised_by_channel(scale):
    return torch.quantize_per_channel(torch.ones(2, 2), torch.tensor([scale, 1.0]), torch.zeros(2), 0, torch.qint8)


def sparse(value):
    return torch.sparse_coo_tensor([[0, 1]], [1.0, value], (3,), check_invariants=False)


@quietly
def compressed(value):
    return torch.tensor([[1.0, 0.0], [0.0, value]]).to_sparse_csr()


@quietly
def scripted(layer):
    return torch.jit.script(nn.Sequential(nn.Conv2d(1, 1, 1), layer).apply(zero).eval())


@quietly
def nested(value):
    return torch.nested.nested_tensor([torch.zeros(2), torch.full((3,), value)])


def marked(value):
    tensor = torch.zeros(2).as_subclass(Marked)
    tensor.mark = value
    return tensor


def generator(kind, seed):
    return torch.Generator().manual_seed(seed) if kind == "torch" else numpy.random.default_rng(seed)


def empty_cell():
    if False:
        value = 0
    return lambda: value  # noqa: F821


def referred(value):
    held = Plain(value)
    return Holder([held, weakref.ref(held)])


def pair(make, one, other):
    return (lambda: make(one), lambda: make(other))


def held(one, other):
    """A pair of modules that hold one of two values, which are made anew each time."""
    return (lambda: Holder(one()), lambda: Holder(other()))


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


def zero(module):
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


TEXT = '''
import functools, math
import torch
from torch import nn
from torch.nn import functional as F

SCALE = 2.0
TABLE = {"shift": 1.0}
LEVELS = {"low", "high", "middle"}


def helper(x):
    return inner(x) + 1


def inner(x):
    return x * SCALE


def unrelated(x):
    return x


@functools.lru_cache
def cached(level):
    return 7 * level


@functools.singledispatch
def dispatched(x):
    return x


@dispatched.register
def _(x: int):
    return x + 30


def factory(by):
    def made(x):
        return x * by + 40
    return made


MADE = factory(50)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.sign()

    @staticmethod
    def backward(context, gradient):
        return gradient * 60


class Base(nn.Module):
    strength = 3

    def prepared(self, x):
        return x - 4


class Part:
    def __call__(self, x):
        return x + 70


class Net(Base):
    """A network."""

    limit = 5
    activation = staticmethod(F.relu)
    squash = lambda self, x: x / 80

    def __init__(self):
        super().__init__()
        self.part = Part()

    @property
    def shift(self):
        return TABLE["shift"] + 6

    @staticmethod
    def clipped(x):
        return x.clamp(-90, 90)

    @classmethod
    def bounded(cls, x):
        return x.clamp(max=cls.limit + 100)

    @torch.no_grad()
    def measured(self, x):
        return x.mean() + 110

    def looped(self, x, times=2, *, power=3):
        def again(y):
            return y + 8
        return sum(again(x) for _ in range(times)) ** power

    def forward(self, images):
        x = helper(self.prepared(images)) + self.shift + cached(1) + dispatched(2) + MADE(3)
        x = self.part(self.squash(self.clipped(self.bounded(x)))) + self.measured(x) + self.looped(x)
        x = (lambda y: y + 9)(x)
        return self.activation(Sign.apply(x)) * math.pi + len([level for level in LEVELS if level in {"low", "high"}])
'''

EDITS = {
    "forward": ('level in {"low", "high"}', 'level in {"low", "middle"}'),
    "method of a base class": ("x - 4", "x - 5"),
    "attribute of a base class": ("strength = 3", "strength = 4"),
    "attribute of a class": ("limit = 5", "limit = 6"),
    "base class": ("class Net(Base)", "class Net(nn.Sequential)"),
    "helper": ("inner(x) + 1", "inner(x) + 2"),
    "helper's constant": ("SCALE = 2.0", "SCALE = 3.0"),
    "helper of a helper": ("x * SCALE", "x / SCALE"),
    "table": ('"shift": 1.0', '"shift": 2.0'),
    "set": ('"middle"}\n', '"medium"}\n'),
    "property": ('["shift"] + 6', '["shift"] + 7'),
    "default": ("times=2", "times=3"),
    "keyword default": ("power=3", "power=4"),
    "function within": ("y + 8", "y + 9"),
    "lambda within": ("y + 9)(x)", "y - 9)(x)"),
    "lambda of a class": ("x / 80", "x / 81"),
    "static method": ("clamp(-90, 90)", "clamp(-91, 91)"),
    "class method": ("cls.limit + 100", "cls.limit - 100"),
    "decorated method": ("x.mean() + 110", "x.mean() + 111"),
    "decorator": ("@torch.no_grad()", "@torch.enable_grad()"),
    "function of a library": ("staticmethod(F.relu)", "staticmethod(F.gelu)"),
    "cached function": ("7 * level", "8 * level"),
    "dispatched function": ("x + 30", "x + 31"),
    "function that was made": ("x * by + 40", "x * by + 41"),
    "what it was made with": ("factory(50)", "factory(51)"),
    "backward": ("gradient * 60", "gradient * 61"),
    "class of an attribute": ("x + 70", "x + 71"),
    "constructor": ("self.part = Part()", "self.part = Part(); self.extra = 1"),
}

HARMLESS = {
    "comment": ("def helper(x):", "def helper(x):  # a comment"),
    "docstring": ('"""A network."""', '"""The network."""'),
    "layout": ("return inner(x) + 1", "return (\n        inner(x)\n        + 1\n    )"),
    "lines before": ("SCALE = 2.0", "\n\n\nSCALE = 2.0"),
    "function that nobody calls": ("def unrelated(x):\n    return x", "def unrelated(x):\n    return -x"),
    "another function": ("def unrelated(x):", "def new(x):\n    return x\n\n\ndef unrelated(x):"),
    "import that nobody needs": ("import functools, math", "import functools, math, json"),
}

_written = 0


def written(text, *, source=True, module="cell"):
    """The network that a text defines, as from a cell of a notebook; without source as from exec."""
    global _written
    _written += 1
    name = f"<cell {_written}>" if source else "<string>"
    if source:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {} if module is None else {"__name__": module}
    exec(compile(text, name, "exec"), space)
    return space["Net"]().eval()


def bare(text):
    """From exec, in which classes call themselves built-in."""
    return written(text, source=False, module=None)


def edited(old, new):
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


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
