"""Attacks and sets of attacks by name."""

import pytest
import torch

from gencls._commands.attack import build_attacks
from gencls.core import GenclsError
from gencls.defenses import ABS, PlainClassifier
from gencls.eval import APGD, DDN, FMN, PGD, DefaultBudget, ThreatModel, default_attacks, evaluate, thesis_attacks
from gencls.eval.attacks.parts.smoothing import SIGMAS
from gencls.eval.attacks.presets import FIXED, PRESETS, attack_by_name, names, preset_by_name, settings_of
from gencls.eval.threats.protocol import kinds, made
from tests.toys import NoisyLogits, SigmoidDecoders, small_cnn

LITTLE = DefaultBudget(steps=2, restarts=1, targets=2, smoothing=(0.1,), smoothing_steps=2, smoothing_draws=2, queries=3)


SIZES = {"linf": 0.5, "l2": 0.5, "l1": 2.0, "l0": 2.0}


def test_every_name_is_that_of_an_attack():
    assert len(names()) == len(set(names()))
    found = {}
    for name in names():
        norm = max((key for key in kinds() if name.endswith(f"-{key}")), key=len)
        size = SIZES.get(norm, 0.5)
        given = {"epsilon": size, "steps": 3, "restarts": 2}
        attack = attack_by_name(name, **{key: given[key] for key in settings_of(name)})
        assert attack.threat == made(norm, size if name.removesuffix(f"-{norm}") in FIXED else None)
        found[repr(attack)] = name
    assert len(found) == len(names())  # no two names for the same


LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)


@pytest.mark.parametrize(
    ("name", "epsilon", "attack"),
    [
        ("pgd-margin-linf", 0.1, PGD(LINF, loss="margin")),
        ("pgd-multi-targeted-linf", 0.1, PGD(LINF, loss="multi-targeted", restarts=9)),
        ("pgd-smoothed-l2", 0.5, PGD(L2, smoothing=SIGMAS)),
        ("apgd-dlr-linf", 0.1, APGD(LINF, "dlr")),
        ("apgd-targeted-dlr-linf", 0.1, APGD(LINF, "targeted-dlr")),
        ("apgd-multi-targeted-l2", 0.5, APGD(L2, "multi-targeted")),
        ("apgd-smoothed-l2", 0.5, APGD(L2, smoothing=SIGMAS)),
        ("ddn-smoothed-l2", None, DDN(ThreatModel("l2"), smoothing=SIGMAS)),
        ("fmn-linf", None, FMN(ThreatModel("linf"))),
        ("fmn-l2", None, FMN(ThreatModel("l2"))),
        ("fmn-smoothed-l2", None, FMN(ThreatModel("l2"), smoothing=SIGMAS)),
    ],
)
def test_names_of_losses_and_of_smoothing(name, epsilon, attack):
    assert repr(attack_by_name(name, epsilon)) == repr(attack)


@pytest.mark.parametrize("name", ["fmn", "fmn-smoothed", "pgd-margin", "default-l2", "ddn-smoothed-l3"])
def test_names_that_there_are_not(name):
    with pytest.raises(GenclsError, match="expected a name among fgsm-linf"):
        attack_by_name(name, 0.5)


def test_a_threat_that_an_attack_does_not_search_is_named():
    with pytest.raises(
        GenclsError, match="attack: expected a threat that ddn-smoothed searches, one of l2; got linf in ddn-smo"
    ):
        attack_by_name("ddn-smoothed-linf", 0.5)
    with pytest.raises(
        GenclsError, match="expected a threat that apgd-dlr searches, one of linf, l2, l1; got l0 in apgd-dlr-l0"
    ):
        attack_by_name("apgd-dlr-l0", 0.5)


def test_sets_by_name():
    for name in PRESETS:
        assert preset_by_name(name, SIZES[name.rpartition("-")[2]] if "epsilon" in settings_of(name) else None)
    assert repr(preset_by_name("default-l2", 0.5)) == repr(default_attacks("l2", 0.5))
    assert repr(preset_by_name("default-linf", 0.1)) == repr(default_attacks("linf", 0.1))
    assert list(preset_by_name("default-l1", 12.0)) == ["pgd", "pgd-margin", "pgd-multi-targeted", "apgd", "fmn", "square"]
    assert list(preset_by_name("default-l0", 12.0)) == ["pgd", "pgd-margin", "pgd-multi-targeted", "fmn", "sparse-rs"]
    with pytest.raises(GenclsError, match="thesis_attacks: expected a norm among linf, l2, got 'l1'"):
        thesis_attacks("l1", 12.0)
    with pytest.raises(GenclsError, match="expected an epsilon for default-l2, got none"):
        preset_by_name("default-l2")
    with pytest.raises(GenclsError, match="expected a set among default-linf, default-l2, default-l1, default-l0, thesis-linf"):
        preset_by_name("default-l3", 0.5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_the_default_set_relies_on_no_single_loss_start_or_gradient(norm):
    found = default_attacks(norm, 2.0 if norm == "l0" else 0.5).values()
    descents = [attack for attack in found if isinstance(attack, PGD)]
    assert {attack.loss for attack in descents} == {"cross-entropy", "margin", "multi-targeted"}
    assert all(attack.restarts * len(attack.smoothing) > 1 for attack in descents)
    assert any(attack.threat.epsilon is None for attack in found)
    assert any(not attack.uses_gradients for attack in found)
    assert any(sigma > 0 for attack in descents for sigma in attack.smoothing) == (norm == "l2")
    assert all(0 in attack.smoothing and max(attack.smoothing) > 0 for attack in found if isinstance(attack, DDN))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["deterministic", "random", "Bayes"])
def test_the_default_set_meets_every_kind_of_defense(kind, norm):
    defense = {
        "deterministic": lambda: PlainClassifier(small_cnn(), 4).eval(),
        "random": lambda: NoisyLogits(small_cnn(), sigma=0.2),
        "Bayes": lambda: ABS(SigmoidDecoders(), starts=4, steps=1).eval(),
    }[kind]()
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        labels = defense(images).argmax(1)
    attacks = default_attacks(norm, 0.2, budget=LITTLE)
    records = evaluate(defense, attacks, [(images, labels)], eot_samples=2, judge_draws=2).records
    assert set(records["attack"]) == set(attacks)
    modes = {"deterministic": {"exact"}, "random": {"exact"}, "Bayes": {"frozen", "unrolled"}}[kind]
    assert set(records["gradient"]) == modes | {"none"}


def test_sets_of_the_thesis_are_the_papers_unless_asked_for_more():
    for norm in ("linf", "l2"):
        assert "smoothed" not in thesis_attacks(norm, 0.5)
        assert ("smoothed" in thesis_attacks(norm, 0.5, beyond=True)) == (norm == "l2")


def test_two_attacks_of_one_name_are_refused():
    assert set(build_attacks(["pgd-l2", "default-l2", "default-l2"], 0.5)) == {"pgd-l2", *default_attacks("l2", 0.5)}
    with pytest.raises(GenclsError, match="expected one attack of each name, got two with other settings: pgd"):
        build_attacks(["default-l2", "thesis-l2"], 0.5)
