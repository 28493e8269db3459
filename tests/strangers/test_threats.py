"""Threats and attacks of users' own, whose answers are not what was meant: one error, which names the method."""

import math
import random
import re
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gencls.core import GenclsError
from gencls.core.streams.seeds import reseed
from gencls.eval import FGSM, PGD, Protocol, Study, ThreatModel, diagnose, evaluate, gradient_modes, judge, run_cell
from gencls.eval.threats import protocol
from gencls.eval.threats.answers import check_threat
from gencls.eval.threats.protocol import Threat, ThreatKind, kinds, made, register
from tests.eval.threats.test_protocol import Walk, Weighted
from tests.toys import small_cnn

HONEST = Weighted(epsilon=0.5)


def _nan(threat, *given):
    return torch.full_like(given[0], torch.nan)


WRONG = {
    "a step for both images": ("step", lambda self, *g: HONEST.step(*g)[:1, :, :1], "got shape (1, 1, 1, 8) in float32"),
    "a step in float64": ("step", lambda self, *g: HONEST.step(*g).double(), "got shape (2, 1, 8, 8) in float64"),
    "a list": ("step", lambda self, *g: HONEST.step(*g).tolist(), "got list"),
    "a step of one size": ("step", lambda self, gradient, size, images: size * gradient, "got RuntimeError from the method"),
    "a step by 0 / 0": ("step", lambda self, gradient, size, images: gradient / gradient.norm(), "128 of the values NaN"),
    "NaN steps": ("step", _nan, "got shape (2, 1, 8, 8) in float32, 128 of the values NaN or infinite"),
    "distances cut": ("distance", lambda self, *g: HONEST.distance(*g).long(), "got shape (2,) in int64: [0, 0]"),
    "one distance": ("distance", lambda self, *g: HONEST.distance(*g).max(), "got shape () in float64"),
    "a distance in a list": ("distance", lambda self, *g: HONEST.distance(*g).max()[None], "got shape (1,) in float64"),
    "columns": ("distance", lambda self, *g: HONEST.distance(*g)[:, None], "got shape (2, 1) in float64"),
    "complex": ("distance", lambda self, *g: HONEST.distance(*g) + 1j, "got shape (2,) in complex128"),
    "a float": ("distance", lambda self, *g: 0.25, "got 0.25"),
    "numpy": ("distance", lambda self, *g: HONEST.distance(*g).numpy(), "got ndarray"),
    "NaN distances": ("distance", lambda self, *g: HONEST.distance(*g) / 0 * 0, "got shape (2,) in float64: [nan, nan]"),
    "similarity": ("distance", lambda self, *g: -HONEST.distance(*g) - 1, "got shape (2,) in float64: [-1.0, -1.0]"),
    "a word": ("largest", lambda self, shape: "wide", "a finite number > 0, got 'wide'"),
    "NaN": ("largest", lambda self, shape: math.nan, "a finite number > 0, got nan"),
    "a start in place": ("start", lambda self, clean: clean.mul_(0.5), "got one changed"),
    "a projection in place": ("project", lambda self, images, clean: images.copy_(clean), "got one changed"),
    "a distance in place": ("distance", lambda self, clean, other: HONEST.distance(clean, other.sub_(0.1)), "got one changed"),
    "one start": ("start", lambda self, clean: clean[:1], "got shape (1, 1, 8, 8) in float32"),
    "a start in numpy": ("start", lambda self, clean: clean.numpy(), "got ndarray"),
    "a NaN projection": ("project", _nan, "got shape (2, 1, 8, 8) in float32, 128 of the values NaN or infinite"),
    "no projection": ("project", lambda self, *g: None, "got None"),
}


@pytest.fixture
def samples():
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, small_cnn()(images).argmax(1)


def own(method, answer, epsilon=0.5):
    return dataclass(frozen=True)(type("Own", (Weighted,), {method: answer, "__annotations__": {}}))(epsilon=epsilon)


def entrances(threat, samples, folder):
    """Each boundary at which a threat comes in."""
    cnn, attack = small_cnn(), PGD(threat, steps=2)
    yield lambda: evaluate(cnn, {"own": attack}, [samples])
    yield lambda: Study(folder, defenses={"c": cnn}, attacks={"own": attack}, images=samples[0], labels=samples[1])
    yield lambda: run_cell(cnn, attack, "exact", *samples, Protocol())
    yield lambda: diagnose(cnn, *samples, threat=threat)
    yield lambda: judge(cnn, samples[0], samples[0], threat, count=1)


@pytest.mark.parametrize("name", WRONG)
def test_what_a_threat_answers_is_checked_where_it_comes_in(name, samples, tmp_path):
    method, answer, got = WRONG[name]
    for enter in list(entrances(own(method, answer), samples, tmp_path))[: 5 if method in ("distance", "largest") else 4]:
        with pytest.raises(GenclsError, match=rf"^threat Own\.{method}: expected .*{re.escape(got)}"):
            enter()
    assert not list(tmp_path.iterdir())


def test_a_threat_without_a_bound_is_asked_within_one(samples):
    with pytest.raises(GenclsError, match=r"^threat Own\.project: expected .* got None"):
        evaluate(small_cnn(), {"own": Walk(own("project", lambda self, *given: None, epsilon=None))}, [samples])


def test_one_image_is_enough_to_ask(samples):
    one = samples[0][:1], samples[1][:1]
    with pytest.raises(GenclsError, match=r"^threat Own\.distance: expected .* got shape \(\)"):
        evaluate(small_cnn(), {"own": FGSM(own("distance", lambda self, *given: HONEST.distance(*given).max()))}, [one])
    evaluate(small_cnn(), {"own": FGSM(HONEST)}, [one])


def test_methods_that_an_attack_of_its_own_does_without_may_be_missing(samples):
    def missing(self, *given):
        raise NotImplementedError

    attack = Walk(own("step", missing))
    assert (evaluate(small_cnn(), {"own": attack}, [samples]).summary()["excluded"] == 0).all()


@pytest.mark.parametrize("in_place", [False, True])
def test_asking_draws_nothing_and_changes_nothing(in_place, samples):
    def start(self, clean):
        found = clean if in_place else clean.clone()
        return found.add_(random.random() * np.random.rand() * torch.rand_like(clean)).clamp_(0, 1)  # noqa: NPY002

    def drawn():
        return torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002

    reseed(3)
    expected, kept = drawn(), samples[0].clone()
    reseed(3)
    with pytest.raises(GenclsError, match="leaves its arguments") if in_place else nullcontext():
        check_threat(own("start", start), samples[0])
    assert drawn() == expected
    assert torch.equal(samples[0], kept)


def test_lp_balls_are_not_asked(samples, monkeypatch):
    for method in ("step", "start", "project", "distance"):
        monkeypatch.setattr(ThreatModel, method, None)
    check_threat(ThreatModel("l2", 0.5), samples[0])


@dataclass(frozen=True)
class Duck:
    """It looks like an attack, but its threat is none."""

    threat: object
    uses_gradients = False
    passes = (1, 0)

    def __call__(self, model, images, labels):
        return images


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda model, images, labels: images, "expected an attack, .* see gencls.eval.Attack; got function"),
        (PGD, "expected an attack, .* see gencls.eval.Attack; got the class PGD itself"),
        (None, "expected an attack, .* see gencls.eval.Attack; got NoneType"),
        (
            Duck(SimpleNamespace(norm="l2", epsilon=0.5, targeted=False)),
            "expected an attack whose threat is a Threat, .* got Si",
        ),
        (Duck("l2"), "expected an attack whose threat is a Threat, .* got str"),
    ],
    ids=["function", "class", "none", "duck", "key"],
)
def test_what_is_no_attack_is_refused_before_anything_else(attack, message, samples, tmp_path):
    cnn, attacks = small_cnn(), {"first": FGSM(HONEST), "a": attack}
    for what, enter in {
        "evaluate": lambda: evaluate(cnn, attacks, [samples]),
        "study": lambda: Study(tmp_path, defenses={"c": cnn}, attacks=attacks, images=samples[0], labels=samples[1]),
    }.items():
        with pytest.raises(GenclsError, match=f"^{what}: {message}"):
            enter()
    for enter in (lambda: gradient_modes(cnn, attack), lambda: run_cell(cnn, attack, "exact", *samples, Protocol())):
        with pytest.raises(GenclsError, match=f"{message}|expected attack to be an Attack, got"):
            enter()


def test_a_threat_of_ones_own_has_a_norm_of_its_own(samples, tmp_path):
    @dataclass(frozen=True)
    class Wider(ThreatModel):
        def distance(self, clean, adversarial):
            return 0.1 * super().distance(clean, adversarial)

    message = "expected a ThreatModel where the norm is 'l2', got {} .*; give it a norm of its own"
    for threat, name in ((Weighted("l2", 0.5), "Weighted"), (Wider("l2", 0.5), "Wider")):
        for enter in entrances(threat, samples, tmp_path):
            with pytest.raises(GenclsError, match=message.format(name)):
                enter()


def test_what_cannot_be_registered(monkeypatch):
    monkeypatch.setattr(protocol, "_KINDS", dict(kinds()))
    for key in ("linf", "l2", "l1", "l0"):
        with pytest.raises(
            GenclsError, match=f"register: expected a key of its own, got '{key}'; {key} is an Lp norm's already"
        ):
            register(ThreatKind(key, "mine", "", "", lambda epsilon: Weighted(epsilon=epsilon)))
    assert made("l2", 1.0) == ThreatModel("l2", 1.0)
    with pytest.raises(GenclsError, match=r"ThreatKind: expected key to be a string, got None"):
        register(ThreatKind(None, "", "", ""))
    with pytest.raises(GenclsError, match=r"ThreatKind: expected make to be a function or None, got 'Weighted'"):
        ThreatKind("own", "", "", "", "Weighted")
    for other in ("l9", Weighted, None):
        with pytest.raises(GenclsError, match=f"register: expected a ThreatKind, got {re.escape(repr(other))}"):
            register(other)
    for label in ("first", "again"):  # as when a cell of a notebook runs twice
        register(ThreatKind("own", label, "", ""))
    assert kinds()["own"].label == "again"
    assert issubclass(Weighted, Threat)
