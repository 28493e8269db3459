"""Random, stateful and batch-dependent defenses of strangers before the doctor, and intervals of their accuracies."""

import pytest
import torch
from torch import nn

from gencls.defenses import PlainClassifier
from gencls.eval import Protocol, ThreatModel
from gencls.eval.doctor import diagnose
from gencls.eval.doctor.patient import Effort, Patient
from gencls.eval.doctor.randomness import check_company, check_randomness
from gencls.eval.measures.statistics import wilson
from tests.strangers import defenses as strangers
from tests.strangers.test_randomness import COMPANY, SHARED, UNKEYED, declared, each, in_shards, samples, truth

__all__ = ["samples"]


def patient(defense, samples, seed=0):
    """As the doctor sees it, after the first look."""
    protocol = Protocol(eot_samples=4, seed=seed)
    return Patient.of(defense, *samples, ThreatModel("linf", 0.2), protocol).observed()


@each(*SHARED)
def test_the_doctor_names_shared_draws(kind, samples):
    found = check_randomness(patient(declared(SHARED[kind]), samples))
    assert found.status == "note"
    assert found.finding.startswith("one draw serves the whole batch")


@each(*SHARED, *UNKEYED)
def test_the_doctor_sees_undeclared_randomness(kind, samples):
    make = {**SHARED, **UNKEYED}[kind]
    for seed in range(4):  # one network of five is the same in two calls every fifth time
        assert check_randomness(patient(make(), samples, seed)).status == "fail"


@pytest.mark.parametrize("kind", COMPANY)
def test_the_doctor_sees_the_rest_of_the_batch(kind, samples):
    assert check_company(patient(COMPANY[kind](), samples)).status == "fail"
    declares = PlainClassifier(COMPANY[kind](), 4, batch_dependent=True).eval()
    assert check_company(patient(declares, samples)).status == "note"
    assert check_company(patient(nn.Sequential(declares), samples)).status == "note"


def test_the_doctor_examines_a_defense_of_shared_draws_to_the_end(samples):
    effort = Effort(
        "tiny", images=3, probes=2, directions=1, steps=2, few_steps=1, far_steps=2, queries=2, tries=1, smoothing=2
    )
    found = diagnose(declared(strangers.OneOfFive), *samples, epsilon=0.2, eot_samples=2, effort=effort)
    assert {"randomness", "rest of the batch", "finite differences", "unbounded attack"} <= {each.name for each in found.checks}
    (differences,) = (each for each in found.checks if each.name == "finite differences")
    assert differences.status == "ok"  # with the same draws on both sides, gradient and differences agree


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resize, torch randint", "one of five", "rotation"])
def test_the_interval_contains_the_truth(kind, samples):
    """In at least 93 of 100 runs, on clean images and on adversarial ones; the truth is that of 10,000 separate forwards."""
    defense = declared(SHARED[kind])
    source = torch.Generator().manual_seed(9)
    images = torch.rand(30, 1, 8, 8, generator=source)
    labels = strangers.small_cnn()(images).argmax(dim=1)
    noisy = (images + 0.2 * torch.randn(images.shape, generator=source)).clamp(0, 1)
    held = {"clean": 0, "adversarial": 0}
    for name, given in (("clean", images), ("adversarial", noisy)):
        expected = float(truth(defense, given, labels, 10_000).mean())
        for run in range(100):
            shard = (1, 7, 30)[run % 3]
            records = in_shards(defense, (given, labels), shard, seed=run)
            low, high = wilson(records["clean_correct"].mean() * 30, 30)
            held[name] += low <= expected <= high
    assert min(held.values()) >= 93, held
