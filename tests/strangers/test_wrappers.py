"""Wrappers around a defense: its gradient modes are passed on or the wrapper is refused, but never lost."""

import collections
import logging

import numpy
import pytest
import torch
from torch import nn

from gencls.core import (
    BPDA,
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
from gencls.eval import Transfer, evaluate, gradient_modes
from gencls.eval.adapters import as_module
from tests.contracts.defenses import DEFENSES
from tests.strangers.wrappers import (
    MODELS,
    PGD_ATTACK,
    Calls,
    Listed,
    Own,
    OwnBayes,
    Twice,
    abs_,
    binary,
    compiled,
    samples,
    traced,
)
from tests.toys import NoisyRows, SigmoidDecoders, small_cnn


def noisy() -> Defense:
    return TransformedClassifier(GaussianNoise(0.1), small_cnn(), 4).eval()


"""What weak references refer to."""


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
