import pytest

from gencls.core import GenclsError
from gencls.eval import PGD, CarliniWagner, DeepFool, RestartedCarliniWagner, ThreatModel
from gencls.eval.presets import FIXED, ThesisBudget, attack_by_name, mlvgm_attacks, names, thesis_attacks


@pytest.mark.parametrize("name", names())
def test_every_name_makes_an_attack_of_its_norm(name):
    fixed = name.rpartition("-")[0] in FIXED
    attack = attack_by_name(name, 0.1 if fixed else None, steps=7, restarts=2)
    assert attack.threat == ThreatModel(name.rpartition("-")[2], 0.1 if fixed else None)
    assert "7" in repr(attack) or name.startswith(("fgsm", "noise"))
    assert repr(attack_by_name(name, 0.1)) == repr(
        attack_by_name(name, 0.1)
    )  # an epsilon that a minimal attack does not need is no error


@pytest.mark.parametrize(
    ("name", "epsilon", "message"),
    [
        ("pgd", 0.1, "expected a name among fgsm-linf, .*; got pgd"),
        ("pgd-l1", 0.1, "got pgd-l1"),
        ("ddn-linf", None, "got ddn-linf"),
        ("pgd-linf", None, "expected an epsilon for pgd-linf, got none"),
    ],
)
def test_bad_names(name, epsilon, message):
    with pytest.raises(GenclsError, match=message):
        attack_by_name(name, epsilon)


def test_the_settings_of_the_thesis():
    """Section 2.3."""
    linf = thesis_attacks("linf", 0.3, budget=ThesisBudget(restarts=20))
    assert linf["pgd"] == PGD(ThreatModel("linf", 0.3), steps=80, restarts=20)
    assert linf["deepfool"] == DeepFool(ThreatModel("linf"), steps=100)
    assert linf["nes"].steps == 50
    assert set(linf) == {"pgd", "deepfool", "noise", "nes"}
    l2 = thesis_attacks("l2", 1.5)
    assert set(l2) == {"pgd", "deepfool", "ddn", "cw", "noise", "nes", "boundary"}
    assert l2["pgd"].restarts == 5
    assert l2["ddn"].steps == 80
    assert l2["cw"] == CarliniWagner(ThreatModel("l2"), searches=5, steps=100)
    assert l2["boundary"].queries == 100_000
    assert "boundary" not in thesis_attacks("l2", 1.5, black_box=False)


def test_beyond_the_thesis():
    linf, l2 = (thesis_attacks(norm, 0.5, black_box=False, beyond=True) for norm in ("linf", "l2"))
    assert set(linf) == {"pgd", "deepfool", "noise", "multi-targeted"}
    assert set(l2) - set(linf) == {"ddn", "cw", "latent-descent"}
    assert linf["multi-targeted"].loss == "multi-targeted"
    assert "latent-descent" not in thesis_attacks("l2", 0.5, beyond=True, synthesis=False)


def test_a_budget_reaches_every_attack():
    spent = ThesisBudget(**{name: 3 + i for i, name in enumerate(ThesisBudget.__dataclass_fields__) if name != "descent_rate"})
    numbers = set()
    for norm in ("linf", "l2"):
        for attack in thesis_attacks(norm, 0.5, budget=spent, beyond=True).values():
            numbers |= {value for value in vars(attack).values() if type(value) is int}
    assert {getattr(spent, name) for name in ThesisBudget.__dataclass_fields__ if name != "descent_rate"} <= numbers


@pytest.mark.parametrize(
    ("task", "deepfool", "cw"),
    [
        ("gender", (0.01, 1024, 2), (64, 0.01, 1024, 8, 1e-3)),
        ("identities", (0.02, 128, 8), (16, 0.05, 1024, 8, 5e-3)),
        ("cars", (0.02, 256, 4), (24, 0.02, 1024, 8, 2e-3)),
    ],
)
def test_the_settings_of_the_mlvgm_paper(task, deepfool, cw):
    """Supplement C, tables 2 and 3."""
    found = mlvgm_attacks(task)
    assert (found["deepfool"].overshoot, found["deepfool"].steps, found["deepfool"].candidates) == deepfool
    attack = found["cw"]
    assert isinstance(attack, RestartedCarliniWagner)
    assert (attack.regularisation, attack.confidence, attack.steps, attack.restarts, attack.learning_rate) == cw


def test_an_unknown_task():
    with pytest.raises(GenclsError, match="expected a task among gender, identities, cars, got 'dogs'"):
        mlvgm_attacks("dogs")
