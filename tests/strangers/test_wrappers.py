"""Wrappers around a defense: its gradient modes are passed on or the wrapper is refused, but never lost."""

import collections
import itertools
import logging
import types
import warnings
import weakref
from functools import lru_cache, partial

import numpy
import pytest
import torch
from torch import nn

from gencls.core import (
    BPDA,
    BayesClassifier,
    Defense,
    EoT,
    GenclsError,
    Transform,
    TransformedClassifier,
    declared,
    forward_draws,
    keyed,
    seeded,
    surrogates_of,
)
from gencls.defenses import (
    ABS,
    AVAEPurification,
    Binarize,
    ClassFactors,
    GaussianNoise,
    PlainClassifier,
    RandomizedSmoothing,
    VariationalSmoothing,
)
from gencls.eval import PGD, GaussianNoiseAttack, Study, ThreatModel, Transfer, diagnose, evaluate, gradient_modes
from gencls.eval.adapters import as_module
from tests.contracts.defenses import DEFENSES
from tests.toys import NoisyRows, SigmoidDecoders, small_cnn

LINF = ThreatModel("linf", 0.2)
PGD_ATTACK = PGD(LINF, steps=5, random_start=False)


def binary() -> Defense:
    """A defense whose exact gradient is zero: only its BPDA mode breaks it."""
    return TransformedClassifier(Binarize(), small_cnn(), 4).eval()


def abs_() -> Defense:
    return ABS(SigmoidDecoders(), starts=16, steps=2).eval()


def noisy() -> Defense:
    return TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval()


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


GLOBAL = binary()


class OfTheModule(nn.Module):
    """The defense is a global variable."""

    def forward(self, images):
        return GLOBAL(images)


def helper(images):
    return inner_helper(images)


def inner_helper(images):
    return GLOBAL(images)


MODELS = types.ModuleType("models_of_a_stranger")
MODELS.defense, MODELS.network = GLOBAL, small_cnn()
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


class Named(list):
    """A list with an attribute."""


def imports_late(images):
    from tests.strangers.test_wrappers import GLOBAL as LATE

    return LATE(images)


def attribute_of_a_function(images):
    return attribute_of_a_function.inner(images)


attribute_of_a_function.inner = GLOBAL


def named(inner):
    values = Named([0])
    values.inner = inner
    return values


KEPT = binary()
"""What weak references refer to."""


def compiled(how, make):
    """By ``torch.jit``, which warns of its age and of what it cannot see, or ``torch.fx``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return how(make().eval())


def traced(module):
    return torch.jit.trace(module, torch.rand(2, 1, 8, 8))


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


SHIFT, TABLE, TENSORS, LOGGER = 0.1, {"scale": 2.0, "names": ["a"]}, [torch.ones(1), torch.zeros(1)], logging.getLogger("mine")


def scale(images):
    LOGGER.debug("%s", numpy.float64(1))
    return nn.functional.relu(images * TABLE["scale"]) + SHIFT + sum(TENSORS)


class Helped(nn.Module):
    """A plain network whose forward pass names much that is global."""

    def __init__(self):
        super().__init__()
        self.network = small_cnn()
        self.queue = collections.deque([torch.ones(1)])

    @property
    def shift(self):
        return SHIFT

    @staticmethod
    def scaled(images):
        return scale(images)

    def forward(self, images):
        return self.network(self.scaled(images) + self.shift)


class NamesOurs(nn.Module):
    """Names functions and classes of ours, and what makes a defense, but no defense."""

    def __init__(self):
        super().__init__()
        self.network = small_cnn()

    def forward(self, images):
        if isinstance(self.network, TransformedClassifier):
            return surrogates_of(ABS(SigmoidDecoders()))["frozen"](images)
        with seeded(0):
            return self.network(images)


class Registered(nn.Module):
    """Reads a registry that holds a defense around this very network, which it cannot ask without asking itself."""

    registry: list = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.network = small_cnn()
        self.registry[:] = [PlainClassifier(self, 4)]

    def forward(self, images):
        assert self.registry
        return self.network(images)


def namesake():
    class PlainClassifier(nn.Module):
        """A stranger's network, by chance of the name of a defense."""

        def __init__(self):
            super().__init__()
            self.network = small_cnn()

        def forward(self, images):
            return self.network(images)

    return PlainClassifier()


# kind -> smallest module -> modes that an attack must see
PASSED_ON = {
    "PlainClassifier(abs)": (lambda: PlainClassifier(abs_(), 4), ["frozen", "unrolled"]),
    "PlainClassifier(bpda)": (lambda: PlainClassifier(binary(), 4), ["bpda"]),
    "PlainClassifier(PlainClassifier(bpda))": (lambda: PlainClassifier(PlainClassifier(binary(), 4), 4), ["bpda"]),
    "TransformedClassifier(t, PlainClassifier(abs))": (
        lambda: TransformedClassifier(Binarize(), PlainClassifier(abs_(), 4), 4),
        ["bpda+frozen", "bpda+unrolled"],
    ),
    "TransformedClassifier(t, Sequential(bpda))": (
        lambda: TransformedClassifier(GaussianNoise(0.1), nn.Sequential(binary()), 4),
        ["bpda"],
    ),
    "TransformedClassifier(t, DataParallel(abs))": (
        lambda: TransformedClassifier(GaussianNoise(0.1), nn.DataParallel(abs_()), 4),
        ["frozen", "unrolled"],
    ),
    "RandomizedSmoothing(PlainClassifier(bpda))": (
        lambda: RandomizedSmoothing(PlainClassifier(binary(), 4), 4, sigma=0.1, draws=4),
        ["bpda+bpda"],
    ),
    "RandomizedSmoothing(Sequential(bpda)), soft": (
        lambda: RandomizedSmoothing(nn.Sequential(binary()), 4, sigma=0.1, draws=4, votes="soft"),
        ["bpda"],
    ),
    "ClassFactors(linf smoothing)": (
        lambda: ClassFactors(VariationalSmoothing(small_cnn(), 4, radius=0.05), [1.0] * 4),
        ["frozen", "unrolled-bpda"],
    ),
    "ClassFactors(warm abs)": (
        lambda: ClassFactors(ABS(SigmoidDecoders(), starts=16, steps=2, warm_steps=1), [1.0] * 4),
        ["warm", "unrolled"],
    ),
    "EoT(bpda)": (lambda: EoT(binary(), 2), ["bpda"]),
    "EoT(Sequential(bpda))": (lambda: EoT(nn.Sequential(binary()), 2), ["bpda"]),
    "BPDA itself": (lambda: BPDA(binary(), small_cnn()), ["bpda"]),
    "Sequential(bpda)": (lambda: nn.Sequential(binary()), ["bpda"]),
    "Sequential(Sequential(bpda))": (lambda: nn.Sequential(nn.Sequential(binary())), ["bpda"]),
    "Sequential(normalise, bpda)": (lambda: nn.Sequential(nn.Identity(), binary()), ["bpda"]),
    "Sequential(bpda, temperature)": (lambda: nn.Sequential(binary(), nn.Identity()), ["bpda"]),
    "Sequential(transform, network)": (lambda: nn.Sequential(Binarize(), small_cnn()), ["bpda"]),
    "Sequential(two transforms, abs)": (
        lambda: nn.Sequential(AVAEPurification(NoisyRows(), realisations=2), Binarize(), abs_()),
        ["bpda+frozen", "bpda+unrolled", "bpda+bpda+frozen", "bpda+bpda+unrolled"],
    ),
    "DataParallel(bpda)": (lambda: nn.DataParallel(binary()), ["bpda"]),
    "DataParallel(Sequential(abs))": (lambda: nn.DataParallel(nn.Sequential(abs_())), ["frozen", "unrolled"]),
    "helpers, constants and tables": (lambda: Helped(), ["exact"]),
    "a network that names what is ours": (lambda: NamesOurs(), ["exact"]),
    "a network of a registry of defenses": (lambda: Registered(), ["exact"]),
    "a network beside a defense in a module": (lambda: Calls(lambda images: MODELS.network(images)), ["exact"]),
    "traced network": (lambda: compiled(traced, small_cnn), ["exact"]),
    "scripted network": (lambda: compiled(torch.jit.script, small_cnn), ["exact"]),
    "network traced by fx": (lambda: compiled(torch.fx.symbolic_trace, Helped), ["exact"]),
    "network traced by fx, named as a defense": (lambda: compiled(torch.fx.symbolic_trace, namesake), ["exact"]),
    "bpda around a traced network": (
        lambda: TransformedClassifier(Binarize(), compiled(traced, small_cnn), 4),
        ["bpda"],
    ),
    "an ensemble of networks": (lambda: Listed([small_cnn(seed=0), small_cnn(seed=1)]), ["exact"]),
    "a wrapper of an exact defense": (lambda: Twice(noisy()), ["exact"]),
    "a defense that holds an exact one": (lambda: Own(noisy()), ["exact"]),
    "a classifier of Bayes that holds abs": (lambda: OwnBayes(abs_()), ["frozen", "unrolled"]),
}

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


@pytest.mark.parametrize("kind", PASSED_ON)
def test_modes_are_passed_on(kind):
    make, expected = PASSED_ON[kind]
    module = make().eval()
    assert list(surrogates_of(module)) == expected == list(gradient_modes(module, PGD_ATTACK))
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with keyed(range(3)):
        scores = module(images)
    for surrogate in surrogates_of(module).values():
        attacked = images.clone().requires_grad_()
        with keyed(range(3)):
            found = surrogate.eval()(attacked)
        torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-4)
        assert torch.autograd.grad(found[:, 0].sum(), attacked)[0].abs().amax() > 0


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


@pytest.mark.parametrize("name", DEFENSES)
def test_no_defense_of_ours_is_refused_or_loses_a_mode(name):
    defense = DEFENSES[name](seed=0).eval()
    assert list(surrogates_of(defense)) == list(defense.surrogates())
    assert declared(defense, "stochastic") is defense.stochastic
    wrapped = PlainClassifier(defense, 4)
    assert list(surrogates_of(wrapped)) == list(defense.surrogates())
    assert wrapped.stochastic is defense.stochastic
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with keyed([1, 2]):
        expected = forward_draws(defense, images, 3)
    with keyed([1, 2]):
        assert torch.equal(forward_draws(wrapped, images, 3), expected)


def test_a_defense_that_declares_its_own_modes_is_believed():
    class Knows(Own):
        def surrogates(self):
            return {name: Twice(module) for name, module in surrogates_of(self.inner).items()}

    assert list(surrogates_of(Knows(abs_()))) == ["frozen", "unrolled"]


def test_torch_compile_is_looked_through():
    compiled = torch.compile(binary(), backend="eager")
    assert list(surrogates_of(compiled)) == ["bpda"]
    assert list(surrogates_of(PlainClassifier(compiled, 4))) == ["bpda"]
    plain = torch.compile(small_cnn(), backend="eager")
    assert surrogates_of(plain)["exact"] is plain


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


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Sequential(noisy()), True),
        (lambda: nn.DataParallel(noisy()), True),
        (lambda: Twice(noisy()), True),
        (lambda: Listed([binary(), noisy()]), True),
        (lambda: PlainClassifier(nn.Sequential(noisy()), 4), True),
        (lambda: TransformedClassifier(Binarize(), nn.Sequential(noisy()), 4), True),
        (lambda: EoT(noisy(), 2), True),
        (lambda: Own(noisy()), True),
        (lambda: Own(nn.Sequential(Twice(noisy()))), True),
        (lambda: Own(binary()), False),
        (lambda: nn.Sequential(binary()), False),
        (small_cnn, False),
    ],
)
def test_randomness_of_what_is_inside_is_declared(make, expected):
    assert declared(make(), "stochastic") is expected


def test_a_defense_that_says_that_it_is_deterministic_is_believed():
    class Fixed(Own):
        stochastic = False

        def forward(self, images):
            with seeded(0):
                return self.inner(images)

    assert not declared(Fixed(noisy()), "stochastic")
    silent = Own(noisy())
    silent.stochastic = False
    assert not declared(silent, "stochastic")
    found = {size: len(as_module(Own(noisy()).eval(), samples=size).scores.eot.per_draw(samples()[0])[0]) for size in (None, 3)}
    assert found == {None: 16, 3: 3}  # one draw of a random defense would have been a weak attack


class Steps(Transform):
    """Rounds to three values; the gradient exists, and is zero almost everywhere."""

    def forward(self, images):
        return (2 * images).detach().round() / 2 + 0 * images

    def surrogates(self):
        return {"bpda": BPDA(self, nn.Identity())}


def stepped() -> Defense:
    return TransformedClassifier(Steps(), small_cnn(), 4).eval()


def samples(defense=binary):
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return images, defense()(images).argmax(1)


def wrapped(defense=binary) -> list[nn.Module]:
    return [PlainClassifier(defense(), 4), nn.Sequential(nn.Identity(), defense()), nn.DataParallel(defense())]


@pytest.mark.parametrize("defense", [binary, stepped])
def test_a_wrapped_defense_reads_what_the_defense_reads(defense):
    """What rounds in steps read 100 % behind a wrapper and 0 % without it; where the fault was found, 89 and 5 %."""

    def accuracy(module):
        return evaluate(module, {"pgd": PGD_ATTACK}, [samples(defense)]).summary()["robust_accuracy"][0]

    truth = accuracy(defense())
    assert truth < 0.5
    assert [accuracy(module.eval()) for module in wrapped(defense)] == [truth] * 3


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


def test_a_transfer_from_a_wrapper_uses_the_mode_inside():
    images, labels = samples()
    expected = Transfer(binary(), PGD_ATTACK)(small_cnn(), images, labels)
    for module in wrapped():
        assert torch.equal(Transfer(module.eval(), PGD_ATTACK)(small_cnn(), images, labels), expected)


def test_variational_smoothing_needs_an_exact_gradient():
    """Its classes look for their noise by it, so that no surrogate of the classifier can stand in."""
    with pytest.raises(GenclsError, match="whose only gradient mode is exact.*got TransformedClassifier with bpda"):
        VariationalSmoothing(binary(), 4, radius=0.1)
    assert VariationalSmoothing(PlainClassifier(small_cnn(), 4), 4, radius=0.1).surrogates()


@pytest.mark.parametrize("name", ["none", "all"])
def test_modes_have_no_name_that_means_something_else(name):
    class Named(Own):
        def surrogates(self):
            return {name: self}

    with pytest.raises(GenclsError, match=f"expected another name for the gradient mode '{name}'"):
        evaluate(Named(small_cnn()).eval(), {"pgd": PGD_ATTACK}, [samples()])


def test_a_transform_may_hold_a_transform():
    class Pair(Transform):
        def __init__(self):
            super().__init__()
            self.first = Binarize()

        def forward(self, images):
            return 1 - self.first(images)

    with pytest.raises(GenclsError, match="Pair: .*Binarize .at first. with bpda"):
        surrogates_of(TransformedClassifier(Pair(), small_cnn(), 4))
