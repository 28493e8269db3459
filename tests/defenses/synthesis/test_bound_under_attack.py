"""No attack may come in under a bound whose assumption holds."""

import pytest
import torch

from gencls import zoo
from gencls.defenses import compare_to_bound, robustness_bound
from gencls.eval import (
    DDN,
    FAB,
    PGD,
    Boundary,
    CarliniWagner,
    DeepFool,
    GaussianNoiseAttack,
    GrowingNoise,
    LatentDescent,
    ThreatModel,
    evaluate,
    thesis_attacks,
)
from tests.exact_classifiers import SEARCHED, digits, exact_bound, principal_components

MINIMAL, LINF = ThreatModel("l2"), ThreatModel("linf")


def attacked(defense, attacks, images, labels):
    """Attack and gradient mode -> L2 distances (N,) of what the judge verified, also for attacks of another norm."""
    result = evaluate(defense, attacks, [(images, labels)])
    found = {}
    for (attack, mode), rows in result.records.groupby(["attack", "gradient"], sort=False):
        distances = MINIMAL.distance(images, result.adversarials[attack, mode])
        broken = torch.from_numpy(~rows["majority_correct"].to_numpy())
        found[f"{attack} {mode}"] = distances.where(broken, torch.inf)
    return found


def assert_no_violation(bounds, found, *, least_ratio=1.0):
    """No attack came in under either bound, and the comparison says something."""
    for low in (bounds.bound, bounds.sharper):
        table = compare_to_bound(low, found)
        assert not table["violation"].any(), table[table["violation"]]
        held = table[table["bound"] > 0]
        assert len(held) > 0.9 * len(table)
        assert held["distance"].gt(0).all()
        assert held["ratio"].min() > least_ratio
        assert held["ratio"].median() < 5  # the attacks come near: the comparison could have failed


def test_no_attack_comes_in_under_the_bound_of_an_exact_classifier():
    defense = principal_components(pool=2)
    images, labels = digits("test", 2, limit=500)
    bounds = exact_bound(defense, images, labels)
    assert bounds.correct.double().mean() > 0.9
    assert bounds.bound.median() > 0.2
    assert (bounds.sharper >= bounds.bound - 1e-6).all()  # rounding of float32 losses
    assert (bounds.sharper[bounds.correct] > 0).all()
    assert (bounds.bound[~bounds.correct] == 0).all()
    ball = ThreatModel("l2", 0.8)
    attacks = {
        "pgd": PGD(ball, steps=5),
        "pgd multi-targeted": PGD(ball, steps=5, loss="multi-targeted", restarts=9),
        "ddn": DDN(MINIMAL, steps=20),
        "cw": CarliniWagner(MINIMAL, searches=1, steps=20),
        "deepfool": DeepFool(MINIMAL, steps=5),
        "boundary": Boundary(MINIMAL, queries=20),
        "noise": GrowingNoise(MINIMAL, sizes=10),
        "latent descent": LatentDescent(MINIMAL, steps=40, step_size=0.05),
        "pgd linf": PGD(ThreatModel("linf", 0.1), steps=5),
        "deepfool linf": DeepFool(LINF, steps=3),
        "noise linf": GaussianNoiseAttack(ThreatModel("linf", 0.3), tries=3),
    }
    assert_no_violation(bounds, attacked(defense, attacks, images, labels))


@pytest.mark.slow
def test_no_attack_of_the_thesis_comes_in_under_the_bound_of_an_exact_classifier():
    # All budgets are those of the thesis but Boundary's queries, 100,000 there.
    defense = principal_components(pool=1)
    images, labels = digits("test", 1, limit=500)
    bounds = exact_bound(defense, images, labels)
    linf = {f"{name} linf": attack for name, attack in thesis_attacks("linf", 0.3, black_box=False).items()}
    attacks = {
        **thesis_attacks("l2", 1.5, black_box=False),
        **linf,
        "pgd multi-targeted": PGD(ThreatModel("l2", 1.0), steps=20, loss="multi-targeted", restarts=9),
        "fab": FAB(MINIMAL, steps=20, restarts=1),
        "boundary": Boundary(MINIMAL, queries=1000),
        "latent descent": LatentDescent(MINIMAL),
    }
    assert_no_violation(bounds, attacked(defense, attacks, images, labels))


@pytest.mark.slow
def test_no_attack_comes_in_under_the_bound_of_a_converged_abs():
    # Not exact, but near: of the d_k that were found the proof needs no more than d_k <= sqrt(l_k*).
    defense = zoo.load("abs-mnist")
    images, labels = digits("test", 1, limit=8)
    bounds = robustness_bound(defense, images, labels, starts=2)
    assert bounds.assumption == SEARCHED.format(3)
    assert (bounds.bound > 0).sum() >= 6
    assert (bounds.distances < bounds.losses.sqrt()).all()
    attacks = {
        "pgd": PGD(ThreatModel("l2", 2.0), steps=5),
        "ddn": DDN(MINIMAL, steps=10),
        "latent descent": LatentDescent(MINIMAL, steps=12, step_size=0.1),
    }
    found = attacked(defense, attacks, images, labels)
    for low in (bounds.bound, bounds.sharper):
        assert not compare_to_bound(low, found)["violation"].any()
