"""Wrappers as people write them around a defense, and the parts that they are made of."""

import types
import warnings

import torch
from torch import nn

from gencls.core import BayesClassifier, Defense, TransformedClassifier
from gencls.defenses import ABS, Binarize
from gencls.eval import PGD, ThreatModel
from tests.toys import SigmoidDecoders, small_cnn

LINF = ThreatModel("linf", 0.2)
PGD_ATTACK = PGD(LINF, steps=5, random_start=False)


def binary() -> Defense:
    """A defense whose exact gradient is zero: only its BPDA mode breaks it."""
    return TransformedClassifier(Binarize(), small_cnn(), 4).eval()


def abs_() -> Defense:
    return ABS(SigmoidDecoders(), starts=16, steps=2).eval()


class Twice(nn.Module):
    """The wrapper of a user who knows nothing of gradient modes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return 2 * self.inner(images)


class Listed(nn.Module):
    """An ensemble whose members stand in something that is no module."""

    def __init__(self, members):
        super().__init__()
        self.members = members

    def forward(self, images):
        members = self.members.values() if isinstance(self.members, dict) else self.members
        return torch.stack([member(images) for member in members]).mean(0)


class Calls(nn.Module):
    """Calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


GLOBAL = binary()


MODELS = types.ModuleType("models_of_a_stranger")
MODELS.defense, MODELS.network = GLOBAL, small_cnn()


class Named(list):
    """A list with an attribute."""


def compiled(how, make):
    """By ``torch.jit``, which warns of its age and of what it cannot see, or ``torch.fx``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return how(make().eval())


def traced(module):
    return torch.jit.trace(module, torch.rand(2, 1, 8, 8))


class Own(Defense):
    """A defense of a user's own that holds another one and says nothing of gradients."""

    num_classes = 4

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return 2 * self.inner(images)


class OwnBayes(BayesClassifier[torch.Tensor]):
    """Frozen and unrolled by inheritance, which the part inside does not have."""

    num_classes = 4

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def infer(self, images):
        return images

    def log_joint(self, images, q):
        return self.inner(images)


def samples(defense=binary):
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return images, defense()(images).argmax(1)
