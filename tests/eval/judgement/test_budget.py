"""Memory: budgets that hold, and batches that shrink when memory runs out."""

import json
import subprocess
import sys

import pytest
import torch

from gencls.core import Defense, GenclsError
from gencls.eval import PGD, AttackModel, Protocol, ThreatModel, run_cell
from gencls.eval.judgement.runner import Runner
from gencls.eval.scores.probe import probe_defense
from tests.toys import small_cnn

# 32 draws of 50 images keep 1600 rows x 0.4 MB if nothing limits them; the imports happen before measuring.
EOT = """
import json, sys, torch
from torch import nn
from gencls.core import Defense
from gencls.eval import PGD, AttackModel, Protocol, ThreatModel, run_cell

class Wide(Defense):
    num_classes, stochastic = 4, True
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1), nn.Tanh(), nn.Conv2d(64, 4, 3, padding=1), nn.Tanh(), nn.Flatten(),
            nn.Linear(4 * 28 * 28, 4))
    def forward(self, images):
        return self.network(images + 0.1 * torch.randn_like(images))

torch.manual_seed(0)
torch.set_num_threads(1)
defense = Wide().eval()
images, count = torch.rand(50, 1, 28, 28), int(sys.argv[2])
images = images[:count]
with torch.no_grad():
    labels = defense(images).argmax(1)
protocol = Protocol(eot_samples=32, judge_draws=4, most_draws=4, memory=float(sys.argv[1]))
attack = PGD(ThreatModel("linf", 0.05), steps=1)
run_cell(defense, attack, "exact", images[:1], labels[:1], Protocol(eot_samples=1, judge_draws=1, most_draws=1))  # warm-up
cell = run_cell(defense, attack, "exact", images, labels, protocol)
print(json.dumps({"peak": cell.peak_memory, "predictions": cell.verdict.predictions.tolist(),
                  "images": cell.verdict.images.flatten(1)[:, ::49].tolist(), "correct": labels.tolist()}))
"""


def in_a_process(memory, count):
    done = subprocess.run([sys.executable, "-c", EOT, str(memory), str(count)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_eot_of_32_draws_and_50_images_stays_within_the_budget():
    small, large = in_a_process(100, 50), in_a_process(1500, 50)
    assert small["peak"] <= 100
    assert large["peak"] > 200  # otherwise the budget was none
    assert small["predictions"] == large["predictions"]
    difference = (torch.tensor(small["images"]) - torch.tensor(large["images"])).abs()
    assert (difference > 1e-6).double().mean() < 0.002  # a gradient that is zero up to rounding may have either sign


class Noisy(Defense):
    num_classes, stochastic = 4, True

    def __init__(self):
        super().__init__()
        self.network = small_cnn()

    def forward(self, images):
        return self.network(images + 0.05 * torch.randn_like(images))


def cell_of(protocol, defense=None):
    torch.manual_seed(0)
    images = torch.rand(9, 1, 8, 8)
    return run_cell(
        defense or Noisy().eval(), PGD(ThreatModel("linf", 0.05), steps=3), "exact", images, torch.arange(9) % 4, protocol
    )


@pytest.mark.parametrize("memory", [1e-6, 0.05, 0.3])
def test_results_do_not_depend_on_the_memory(memory):
    """From one row at a time, over some draws, to some images."""
    settings = {"eot_samples": 6, "judge_draws": 2, "most_draws": 2}
    expected, found = cell_of(Protocol(**settings)), cell_of(Protocol(**settings, memory=memory))
    assert torch.equal(found.verdict.predictions, expected.verdict.predictions)
    assert ((found.verdict.images - expected.verdict.images).abs() > 1e-5).double().mean() < 0.005
    if memory < 1e-3:  # a draw at a time is made once for the value and once for the gradient
        assert found.forwards == expected.forwards + expected.backwards
    else:
        assert found.backwards == expected.backwards


class Hungry(Noisy):
    """Runs out of memory, as torch does, for more than a few rows with gradients."""

    most = 3

    def __init__(self):
        super().__init__()
        self.refused = 0

    def forward(self, images):
        if images.requires_grad and len(images) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB.")
        return super().forward(images)


def test_batches_are_halved_when_memory_runs_out():
    """First the images, then the draws of one image; the result is that of enough memory."""
    settings = Protocol(eot_samples=6, judge_draws=2, most_draws=2)
    hungry = Hungry().eval()
    found, expected = cell_of(settings, hungry), cell_of(settings)
    assert hungry.refused > 3
    assert torch.equal(found.verdict.predictions, expected.verdict.predictions)
    assert ((found.verdict.images - expected.verdict.images).abs() > 1e-5).double().mean() < 0.005


@pytest.mark.parametrize("most", [30, 3])
def test_a_second_trial_begins_with_the_rows_that_fitted(most):
    """Whole images and pieces of one; the results are those of enough memory."""
    protocol, images = Protocol(eot_samples=6, judge_draws=2, most_draws=2), torch.rand(9, 1, 8, 8)
    hungry, attack, refused, trials = Hungry().eval(), PGD(ThreatModel("linf", 0.05), steps=3), [], []
    hungry.most = 1000
    runner = Runner(hungry, "exact", protocol, probe_defense(hungry, images, torch.arange(9) % 4))
    at_first, hungry.most = runner.rows(images), most
    for _ in range(2):
        hungry.refused = 0
        trials.append(runner.run(attack, images, torch.arange(9) % 4))
        refused.append(hungry.refused)
    assert refused[0] > 0
    assert refused[1] == 0
    assert runner.rows(images) <= most < at_first
    expected = run_cell(Noisy().eval(), attack, "exact", images, torch.arange(9) % 4, protocol)
    for trial in trials:
        assert torch.equal(trial.verdict.predictions, expected.verdict.predictions)
        assert ((trial.verdict.images - expected.verdict.images).abs() > 1e-5).double().mean() < 0.005


def test_a_row_that_never_fits_is_an_error():
    hungry = Hungry().eval()
    hungry.most = 0
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        cell_of(Protocol(eot_samples=2, judge_draws=2, most_draws=2), hungry)


@pytest.mark.parametrize(("settings", "message"), [({"memory": 0}, "memory in MiB > 0"), ({"most_draws": 4}, "most_draws >=")])
def test_bad_protocols(settings, message):
    with pytest.raises(GenclsError, match=message):
        Protocol(**settings)


def test_restarts_keep_to_the_rows_that_fit():
    class Widest(Noisy):
        def __init__(self):
            super().__init__()
            self.rows = 0

        def forward(self, images):
            self.rows = max(self.rows, len(images) if images.requires_grad else 0)
            return super().forward(images)

    images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    threat = ThreatModel("linf", 0.001)
    for max_rows, most in ((None, 32 * 4), (8, 8), (40, 40)):
        model = Widest().eval()
        PGD(threat, steps=2, restarts=40)(AttackModel(model, samples=4, max_rows=max_rows), images, labels)
        assert max_rows is None or model.rows <= most


def test_the_judge_survives_a_lack_of_memory():
    class Small(Noisy):
        def forward(self, images):
            if len(images) > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    settings = Protocol(eot_samples=2, judge_draws=8, most_draws=8)
    found, expected = cell_of(settings, Small().eval()), cell_of(settings)
    assert torch.equal(found.verdict.predictions, expected.verdict.predictions)
