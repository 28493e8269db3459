"""Settings of another type, and what they did before they were refused."""

from dataclasses import replace
from math import inf, nan

import numpy
import pytest
import torch
from torch import nn

from gencls.core import EoT, GenclsError, TransformedClassifier, checked, minimize
from gencls.defenses import Ball, GaussianNoise, PlainClassifier, VariationalSmoothing, alpha_schedule
from gencls.defenses.synthesis.elimination import Elimination
from gencls.eval import APGD, DDN, FAB, NES, PGD, CarliniWagner, DeepFool, Protocol, Square, ThreatModel
from gencls.eval.attacks.thesis_set import ThesisBudget
from gencls.eval.doctor.patient import EFFORTS
from gencls.zoo.training.views.adversarial import Adversarial
from tests.toys import small_cnn

L2, BALL = ThreatModel("l2"), ThreatModel("linf", 0.1)

# what is built, and the message
REFUSED = {
    "100 % robust, as no comparison with NaN holds": (
        lambda: CarliniWagner(L2, confidence=nan),
        "CarliniWagner: expected confidence to be a finite number, got nan (float)",
    ),
    "100 % robust, as every step is NaN": (
        lambda: DeepFool(L2, overshoot=nan),
        "DeepFool: expected overshoot to be a finite number, got nan (float)",
    ),
    "one step": (lambda: PGD(BALL, steps=True), "PGD: expected steps to be an int, got True (bool)"),
    "an error of range() under way": (lambda: PGD(BALL, steps=2.0), "PGD: expected steps to be an int, got 2.0 (float)"),
    "a ball of radius 1": (
        lambda: ThreatModel("linf", True),
        "ThreatModel: expected epsilon to be a finite number or None, got True",
    ),
    "targeted": (
        lambda: ThreatModel("linf", 0.1, targeted="no"),
        "ThreatModel: expected targeted to be True or False, got 'no' (str)",
    ),
    "no step at all": (
        lambda: PGD(BALL, step_size=nan),
        "PGD: expected step_size to be a finite number or None, got nan (float)",
    ),
    "no threat model": (lambda: PGD("linf"), "PGD: expected threat to be a Threat, got 'linf' (str)"),
    "DDN, NaN steps": (lambda: DDN(L2, steps=nan), "DDN: expected steps to be an int, got nan (float)"),
    "DDN, NaN": (lambda: DDN(L2, first_norm=nan), "DDN: expected first_norm to be a finite number, got nan (float)"),
    "a word": (lambda: APGD(BALL, restarts="3"), "APGD: expected restarts to be an int, got '3' (str)"),
    "an infinite rate": (
        lambda: CarliniWagner(L2, learning_rate=inf),
        "CarliniWagner: expected learning_rate to be a finite number, got inf (float)",
    ),
    "FAB without targets": (lambda: FAB(L2, targets=None), "FAB: expected targets to be an int, got None (NoneType)"),
    "an infinite deviation": (lambda: NES(BALL, sigma=inf), "NES: expected sigma to be a finite number, got inf (float)"),
    "NaN of the pixels": (lambda: Square(BALL, share=nan), "Square: expected share to be a finite number, got nan (float)"),
    "half a draw": (lambda: Protocol(eot_samples=1.5), "Protocol: expected eot_samples to be an int, got 1.5 (float)"),
    "a seed that is a word": (lambda: Protocol(seed="0"), "Protocol: expected seed to be an int, got '0' (str)"),
    "NaN MiB": (lambda: Protocol(memory=nan), "Protocol: expected memory to be a finite number or None, got nan (float)"),
    "an unknown reduction": (
        lambda: Protocol(reduce="mean"),
        "Protocol: expected reduce to be one of 'logits', 'probs', 'loss', got 'mean' (str)",
    ),
    "a budget of the thesis": (lambda: ThesisBudget(pgd_steps=2.0), "ThesisBudget: expected pgd_steps to be an int, got 2.0"),
    "an effort": (lambda: replace(EFFORTS[0], steps=True), "Effort: expected steps to be an int, got True (bool)"),
    "an effort of no image": (lambda: replace(EFFORTS[0], images=0), "Effort: expected numbers >= 1, got {'images': 0"),
    "a class leaves at no step": (
        lambda: Elimination(((1, nan),)),
        "expected rounds to be a sequence, each item a sequence (an int, a finite number), got ((1, nan),) (tuple)",
    ),
    "no projection": (lambda: Ball(inf), "Ball: expected radius to be a finite number, got inf (float)"),
    "a noise of size 1": (lambda: GaussianNoise(True), "GaussianNoise: expected sigma to be a finite number, got True (bool)"),
    "0 levels": (lambda: alpha_schedule("linear", True), "alpha_schedule: expected num_levels to be an int, got True (bool)"),
    "hard votes": (
        lambda: VariationalSmoothing(small_cnn(), 4, radius=0.1, hard="no"),
        "VariationalSmoothing: expected hard to be True or False, got 'no' (str)",
    ),
    "stochastic": (
        lambda: PlainClassifier(small_cnn(), 4, stochastic="no"),
        "PlainClassifier: expected stochastic to be True or False, got 'no' (str)",
    ),
    "one class": (lambda: TransformedClassifier(GaussianNoise(0.1), small_cnn(), 1), "expected num_classes >= 2, got 1"),
    "classes by a float": (lambda: PlainClassifier(small_cnn(), 4.0), "expected num_classes to be an int, got 4.0 (float)"),
    "one draw": (lambda: EoT(small_cnn(), True), "EoT: expected samples to be an int, got True (bool)"),
    "a descent of NaN": (
        lambda: minimize(lambda z: z[0].sum(), (torch.ones(1),), steps=1, lr=nan),
        "minimize: expected lr to be a finite number, got nan (float)",
    ),
    "a training without perturbation": (
        lambda: Adversarial("linf", nan, steps=1, step_size=0.1, warmup_epochs=0.0),
        "Adversarial: expected epsilon to be a finite number, got nan (float)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    build, message = REFUSED[kind]
    with pytest.raises(GenclsError) as caught:
        build()
    assert message in str(caught.value)


# what is built, and the same in Python's own numbers: one repr, so one key of a study's cells
EQUAL = {
    "numpy's int": (lambda: PGD(BALL, steps=numpy.int64(7)), lambda: PGD(BALL, steps=7)),
    "numpy's float": (lambda: ThreatModel("l2", numpy.float64(0.5)), lambda: ThreatModel("l2", 0.5)),
    "float32": (lambda: ThreatModel("l2", numpy.float32(0.1)), lambda: ThreatModel("l2", float(numpy.float32(0.1)))),
    "an int for a float": (lambda: ThreatModel("l2", 1), lambda: ThreatModel("l2", 1.0)),
    "a list for a tuple": (lambda: Elimination([[1, 1]]), lambda: Elimination(((1, 1.0),))),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_settings_are_written_alike(kind):
    given, expected = (build() for build in EQUAL[kind])
    assert repr(given) == repr(expected)
    assert given == expected


def test_objects_of_other_classes_are_trusted():
    """A compiled module is no Transform, and a user's function no nn.Module."""

    class Compiled(nn.Module):
        stochastic = batch_dependent = shares_draws = False

        def forward(self, images):
            return images

    images = torch.rand(2, 1, 8, 8)
    network = small_cnn()
    assert torch.equal(TransformedClassifier(Compiled(), network, 4)(images), network(images))


def test_a_users_function_keeps_its_signature_and_may_use_any_annotation():
    @checked
    def scale(images: "torch.Tensor", by: float = 1.0, *more: int, key: "list[str] | None" = None, **rest: float) -> "nowhere":  # noqa: F821
        """Multiply."""
        return images * by, more, key, rest

    assert scale.__doc__ == "Multiply."
    assert "by: float = 1.0" in str(__import__("inspect").signature(scale))
    scaled, *others = scale(torch.ones(1), 2, "three", key=[], other="four")
    assert scaled.item() == 2.0
    assert others == [("three",), [], {"other": "four"}]
    with pytest.raises(GenclsError, match="scale: expected by to be a finite number, got 'two'"):
        scale(torch.ones(1), "two")


@pytest.mark.parametrize("given", [{"sources": 1}, {}], ids=["misspelt", "missing"])
def test_python_refuses_a_call_in_its_own_words(given):
    class Plain:
        def __init__(self, source):
            pass

    class Checked:
        @checked
        def __init__(self, source):
            pass

    said = []
    for kind in (Plain, Checked):
        with pytest.raises(TypeError) as refused:
            kind(**given)
        said.append(str(refused.value).replace(kind.__name__, "It"))
    assert "It.__init__()" in said[0]
    assert said[0] == said[1]
