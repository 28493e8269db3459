"""Modules and values of many kinds, of which pairs that differ in one thing are made."""

import collections
import dataclasses
import enum
import functools
import types
import warnings
import weakref

import numpy
import torch
from torch import nn


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


def zero(module):
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)
