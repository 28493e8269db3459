"""A GPU gives what the CPU gives: defenses, their gradients, attacks and verdicts. Skipped where there is none."""

import pytest
import torch

from gencls.core import draws, forward_draws, keyed
from gencls.defenses import MLVGMPurification, PurifiedAccuracy, learn_alphas
from gencls.eval import PGD, ThreatModel, diagnose, evaluate
from tests.contracts.attacks import FIXED, MINIMAL, NORMS
from tests.contracts.defenses import CLASSES, DEFENSES, SHAPE
from tests.contracts.test_attacks import THREATS
from tests.toys import MeanRowsPixels, small_cnn

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

# Sums in another order; inner optimisations repeat the difference some steps.
SCORES, GRADIENTS = {"rtol": 1e-3, "atol": 1e-3}, {"rtol": 1e-2, "atol": 1e-3}
DEVICES = ("cpu", "cuda")
LABELS = torch.arange(7) % CLASSES

every_defense = pytest.mark.parametrize("name", DEFENSES)


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def images():
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(3))


@every_defense
def test_scores_and_gradients(name, images):
    found = {}
    for device in DEVICES:
        defense = DEFENSES[name](seed=0).eval().to(device)
        for mode, module in defense.surrogates().items():
            here = images.to(device).requires_grad_()
            with keyed(range(7)), draws(range(3)):
                scores = forward_draws(module, here, 3)
            (gradient,) = torch.autograd.grad(scores.square().mean(), here)
            assert scores.device.type == gradient.device.type == device
            found[device, mode] = scores.detach().cpu(), gradient.cpu()
    for mode in {mode for _, mode in found}:
        torch.testing.assert_close(found["cuda", mode][0], found["cpu", mode][0], **SCORES)
        torch.testing.assert_close(found["cuda", mode][1], found["cpu", mode][1], **GRADIENTS)


@every_defense
def test_evaluations(name, images):
    attacks, settings = {"pgd": PGD(ThreatModel("linf", 0.1), steps=3)}, {"eot_samples": 2, "judge_draws": 4, "most_draws": 8}
    with torch.no_grad(), keyed(range(7)):
        labels = DEFENSES[name](seed=0).eval()(images).argmax(1)  # what is wrong already would not be attacked
    records = [
        evaluate(DEFENSES[name](seed=0).eval().to(device), attacks, [(images, labels)], **settings).records
        for device in DEVICES
    ]
    assert records[0]["clean_majority_correct"].tolist() == records[1]["clean_majority_correct"].tolist()
    assert len(records[0]) == len(records[1])
    # A sample at the boundary may fall to either side where sums have another order.
    assert (records[0]["majority_correct"] != records[1]["majority_correct"]).mean() <= 1 / 7
    near = torch.tensor(records[0]["distance"].to_numpy()), torch.tensor(records[1]["distance"].to_numpy())
    assert ((near[0] - near[1]).abs() < 1e-3).double().mean() >= 6 / 7


@pytest.mark.parametrize("attack", [*((name, norm) for name in FIXED for norm in NORMS[name]), *MINIMAL], ids="-".join)
def test_attacks(attack, digits):
    images, labels, threat = digits[0][:9], digits[1][:9], THREATS[attack[1]]
    wrong = []
    for device in DEVICES:
        settings, model = FIXED[attack[0]](threat) if attack[0] in FIXED else MINIMAL[attack], small_cnn().to(device)
        if attack[0] == "Transfer":
            settings.source.to(device)
        with keyed(range(9)):
            found = settings(model, images.to(device), labels.to(device))
        assert found.device.type == device
        wrong.append((model(found).argmax(1).cpu() != labels).tolist())
    assert wrong[0] == wrong[1]


def test_alphas_are_measured_alike(images):
    values = []
    for device in DEVICES:
        purification = MLVGMPurification(MeanRowsPixels(), "linear").eval().to(device)
        classifier = small_cnn().to(device)
        accuracy = PurifiedAccuracy(purification, classifier, images.to(device), LABELS.to(device), samples=4)
        search = learn_alphas(accuracy, purification.model.num_levels, steps=2, variance=accuracy.variance)
        values.append([trial.value for trial in search.trials])
    assert values[0] == values[1]


def test_the_doctor_examines_a_defense_there(images):
    defense = DEFENSES["MLVGMPurification"](seed=0).eval().to(DEVICES[1])
    found = diagnose(defense, images.to(DEVICES[1]), LABELS.to(DEVICES[1]), epsilon=0.5, norm="l2", eot_samples=2, budget=5.0)
    assert not [check for check in found.checks if check.status == "fail" and check.name == "randomness"]
    assert len(found.checks) > 5
