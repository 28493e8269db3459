"""Wrappers that would hide a gradient mode of the defense inside are refused, wherever the defense hides."""

import collections
import itertools
import weakref
from functools import lru_cache, partial

import numpy
import pytest
import torch
from torch import nn

from gencls.core import Defense, GenclsError, TransformedClassifier, surrogates_of
from gencls.defenses import Binarize, GaussianNoise, PlainClassifier, RandomizedSmoothing
from gencls.eval import GaussianNoiseAttack, Study, Transfer, diagnose, evaluate
from gencls.eval.adapters import as_module
from tests.strangers.wrappers import (
    GLOBAL,
    LINF,
    MODELS,
    PGD_ATTACK,
    Calls,
    Listed,
    Named,
    Own,
    OwnBayes,
    Twice,
    abs_,
    binary,
    compiled,
    samples,
    traced,
)
from tests.toys import small_cnn


class Box:
    """A plain object."""

    def __init__(self, inner):
        self.inner = inner


class Boxed(nn.Module):
    def __init__(self, box):
        super().__init__()
        self.box = box

    def forward(self, images):
        return self.box.inner(images)


class OfTheClass(nn.Module):
    """The defense is an attribute of the class."""

    inner = binary()

    def forward(self, images):
        return self.inner(images)


class OfTheModule(nn.Module):
    """The defense is a global variable."""

    def forward(self, images):
        return GLOBAL(images)


def helper(images):
    return inner_helper(images)


def inner_helper(images):
    return GLOBAL(images)


DICT, LIST = {"plain": small_cnn(), "defended": GLOBAL}, [GLOBAL]


@lru_cache
def cached_helper():
    return GLOBAL


class Tools:
    """Used as a class, not as an object."""

    inner = GLOBAL

    @staticmethod
    def apply(images):
        return Tools.inner(images)


class WithProperty(nn.Module):
    @property
    def inner(self):
        return GLOBAL

    def forward(self, images):
        return self.inner(images)


class WithStaticMethod(nn.Module):
    @staticmethod
    def inner(images):
        return GLOBAL(images)

    def forward(self, images):
        return self.inner(images)


class WithClassMethod(nn.Module):
    @classmethod
    def inner(cls, images):
        return GLOBAL(images)

    def forward(self, images):
        return self.inner(images)


class Slots:
    """An object without a dict."""

    __slots__ = ("inner",)

    def __init__(self, inner):
        self.inner = inner


class Asks:
    """A plain object whose class, not the object, has the way to the defense."""

    def __call__(self, images):
        return GLOBAL(images)


def imports_late(images):
    from tests.strangers.wrappers import GLOBAL as LATE

    return LATE(images)


def attribute_of_a_function(images):
    return attribute_of_a_function.inner(images)


attribute_of_a_function.inner = GLOBAL


def named(inner):
    values = Named([0])
    values.inner = inner
    return values


KEPT = binary()


def frozen_trace(module):
    return torch.jit.freeze(traced(module))


def local_defense() -> Defense:
    class Local(Defense):
        num_classes = 4

        def __init__(self):
            super().__init__()
            self.network = small_cnn()

        def forward(self, images):
            return self.network((4 * images).round() / 4)

    return Local()


class Clamped(PlainClassifier):
    """The modes are those of the network, the scores are not."""

    def forward(self, images):
        return super().forward((images * 4).round() / 4)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda _, images, scores: scores.round())
    return module


def patched(module: nn.Module) -> nn.Module:
    inner = module[0]
    module.forward = lambda images: inner(images).round()
    return module


def cached():
    @lru_cache
    def loaded(made):
        return made

    loaded(binary())
    return lambda images: loaded(None)(images)


def closure():
    inner = binary()
    return lambda images: inner(images)


REFUSED = {
    "W(bpda)": (lambda: Twice(binary()), "Twice: .* TransformedClassifier .at inner. with bpda"),
    "W(abs)": (lambda: Twice(abs_()), "AnalysisBySynthesis .at inner. with frozen, unrolled"),
    "W(W(bpda))": (lambda: Twice(Twice(binary())), r"at inner\.inner"),
    "W(Binarize)": (lambda: Calls(Binarize()), "Binarize .at function. with bpda"),
    "W(DataParallel(bpda))": (lambda: Twice(nn.DataParallel(binary())), r"at inner\.module"),
    "W(PlainClassifier(bpda))": (lambda: Twice(PlainClassifier(binary(), 4)), "PlainClassifier .at inner. with bpda"),
    "PlainClassifier(W(bpda))": (lambda: PlainClassifier(Twice(binary()), 4), "Twice: "),
    "TransformedClassifier(t, W(bpda))": (lambda: TransformedClassifier(GaussianNoise(0.1), Twice(binary()), 4), "Twice: "),
    "RandomizedSmoothing(W(bpda))": (lambda: RandomizedSmoothing(Twice(binary()), 4, sigma=0.1), "Twice: "),
    "Sequential(W(bpda))": (lambda: nn.Sequential(Twice(binary())), "Twice: "),
    "ModuleList of defenses": (lambda: Listed(nn.ModuleList([abs_(), abs_()])), r"at members\.[01]"),
    "list of defenses": (lambda: Listed([small_cnn(), binary()]), r"at members\.1"),
    "list within a tuple": (lambda: Listed(([binary()],)[0]), r"at members\.0"),
    "dict of defenses": (lambda: Listed({"one": binary()}), r"at members\.one"),
    "closure": (lambda: Calls(closure()), r"at function\.inner"),
    "bound method": (lambda: Calls(binary().forward), "at function"),
    "partial": (lambda: Calls(partial(lambda inner, images: inner(images), binary())), r"at function\.args\.0"),
    "default of a function": (lambda: Calls(lambda images, inner=binary(): inner(images)), r"at function\.defaults"),  # noqa: B008
    "plain object": (lambda: Boxed(Box(binary())), r"at box\.inner"),
    "attribute of the class": (OfTheClass, "at inner"),
    "global variable": (OfTheModule, r"at forward\.GLOBAL"),
    "global helper": (lambda: Calls(helper), r"at function\.inner_helper\.GLOBAL"),
    "global dict": (lambda: Calls(lambda images: DICT["defended"](images)), r"at function\.DICT\.defended"),
    "global list": (lambda: Calls(lambda images: LIST[0](images)), r"at function\.LIST\.0"),
    "global class": (lambda: Calls(lambda images: Tools.apply(images)), r"at function\.Tools\.inner"),
    "variable of a module": (lambda: Calls(lambda images: MODELS.defense(images)), r"at function\.MODELS\.defense"),
    "import in a function": (lambda: Calls(imports_late), "at function"),
    "attribute of a function": (lambda: Calls(attribute_of_a_function), r"at function\.inner"),
    "global cached function": (lambda: Calls(lambda images: cached_helper()(images)), r"at function\.cached_helper.*\.GLOBAL"),
    "cached result": (lambda: Calls(cached()), r"at function"),
    "property": (WithProperty, r"at inner\.GLOBAL"),
    "static method": (WithStaticMethod, r"at inner\.GLOBAL"),
    "class method": (WithClassMethod, r"at inner\.GLOBAL"),
    "object with slots": (lambda: Boxed(Slots(binary())), "at box"),
    "class of an object": (lambda: Calls(Asks()), "at function.__call__.GLOBAL"),
    "weak reference": (lambda: Calls(lambda images, inner=weakref.ref(KEPT): inner()(images)), r"at function\.defaults\.0"),  # noqa: B008
    "deque": (lambda: Listed(collections.deque([binary()])), "at members"),
    "values of a dict": (lambda: Listed({"one": binary()}.values()), "at members"),
    "keys of a dict": (lambda: Listed({binary(): 1.0}), "at members"),
    "attribute of a list": (lambda: Listed(named(binary())), r"at members\.inner"),
    "iterator": (lambda: Listed(iter([binary()])), r"at members"),
    "iterator that repeats": (lambda: Listed(itertools.cycle([binary()])), r"at members"),
    "generator": (lambda: Listed(member for member in [binary()]), r"at members"),
    "array of objects": (lambda: Listed(numpy.array([binary(), None])), r"at members"),
    "traced": (lambda: compiled(traced, binary), "TopLevelTracedModule: .* from the class TransformedClassifier"),
    "traced and frozen": (lambda: compiled(frozen_trace, binary), "from the class TransformedClassifier"),
    "traced W": (lambda: compiled(traced, lambda: Twice(binary())), "from the class TransformedClassifier"),
    "W(traced)": (lambda: Twice(compiled(traced, binary)), "from the class TransformedClassifier"),
    "Sequential(traced)": (lambda: nn.Sequential(compiled(traced, binary)), "from the class TransformedClassifier"),
    "traced, of a user's own": (lambda: compiled(traced, lambda: Own(small_cnn())), "from the class Own"),
    "traced, defined in a function": (lambda: compiled(traced, local_defense), "from the class Local"),
    "scripted": (lambda: compiled(torch.jit.script, lambda: Own(small_cnn())), "from the class Own"),
    "traced by fx": (lambda: compiled(torch.fx.symbolic_trace, binary), "TransformedClassifier: .* from the class Binarize"),
    "traced by fx, W": (
        lambda: compiled(torch.fx.symbolic_trace, lambda: Twice(binary())),
        "from the class TransformedClassifier",
    ),
    "traced by fx, of a user's own": (lambda: compiled(torch.fx.symbolic_trace, local_defense), "from the class Local"),
    "W(traced by fx)": (lambda: Twice(compiled(torch.fx.symbolic_trace, binary)), "from the class Binarize"),
    "forward hook": (lambda: hooked(nn.Sequential(binary())), "Sequential: "),
    "forward of the instance": (lambda: patched(nn.Sequential(binary())), "Sequential: "),
    "Defense without surrogates": (lambda: Own(binary()), "Own: .* with bpda"),
    "Defense with abs inside": (lambda: Own(abs_()), "Own: .* with frozen, unrolled"),
    "BayesClassifier without surrogates": (lambda: OwnBayes(binary()), "OwnBayes: .* with bpda"),
    "other scores than the modes": (lambda: Clamped(binary(), 4), "Clamped: .* with bpda"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_hide_a_mode_is_refused(kind):
    make, message = REFUSED[kind]
    with pytest.raises(GenclsError, match=message):
        surrogates_of(make().eval())


def test_an_empty_cell_and_a_ring_are_no_error():
    def outer():
        def inner(images):
            return later(images)

        module = Calls(inner)
        if torch.is_tensor(module):
            later = small_cnn()  # never
        return module

    module = outer()
    module.ring = {"self": [module]}
    module.ring["ring"] = module.ring
    assert list(surrogates_of(module)) == ["exact"]


@pytest.mark.slow  # torch imports its compiler
@pytest.mark.parametrize("touch", [hooked, lambda module: setattr(module, "forward", torch.round) or module])
def test_torch_compile_is_not_looked_through_where_it_does_more(touch):
    with pytest.raises(GenclsError, match="OptimizedModule: .* with bpda"):
        surrogates_of(touch(torch.compile(binary(), backend="eager")))


@pytest.mark.slow  # torch imports its compiler
def test_an_exported_defense_is_refused():
    with pytest.raises(GenclsError, match="from the class TransformedClassifier"):
        surrogates_of(torch.export.export(binary(), (torch.rand(2, 1, 8, 8),)).module())
    assert list(surrogates_of(torch.export.export(small_cnn(), (torch.rand(2, 1, 8, 8),)).module())) == ["exact"]


def test_every_way_in_refuses_a_wrapper_that_hides_a_mode(tmp_path):
    images, labels = samples()
    foreign = Twice(binary()).eval()
    ways = (
        lambda: evaluate(foreign, {"pgd": PGD_ATTACK}, [(images, labels)]),
        lambda: Study(tmp_path / "study", defenses={"w": foreign}, attacks={"pgd": PGD_ATTACK}, images=images, labels=labels),
        lambda: diagnose(foreign, images, labels, epsilon=0.1),
        lambda: as_module(PlainClassifier(foreign, 4).eval()),
        lambda: Transfer(foreign, PGD_ATTACK)(small_cnn(), images, labels),
        lambda: PlainClassifier(foreign, 4).surrogate(),
    )
    for way in ways:
        with pytest.raises(GenclsError, match="Twice: expected a module that hides no gradient mode"):
            way()
    assert not (tmp_path / "study").exists()
    # An attack that uses no gradient loses none.
    evaluate(foreign, {"noise": GaussianNoiseAttack(LINF, tries=1)}, [(images, labels)])
