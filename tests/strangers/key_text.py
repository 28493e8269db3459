"""The code of a network as text, edits of it that count and edits that do not."""

import linecache

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
