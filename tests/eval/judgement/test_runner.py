"""One runner for each defense and gradient mode: it measures memory once, and its parts can be asked one by one."""

import pytest
import torch

from gencls.core.images import sample_hashes
from gencls.eval import PGD, GaussianNoiseAttack, Protocol, Study, ThreatModel, evaluate, run_cell
from gencls.eval.attacks.parts.attack_model import AttackModel
from gencls.eval.judgement import runner as runner_module
from gencls.eval.judgement.roles import Roles
from gencls.eval.judgement.runner import Runner
from gencls.eval.judgement.trial import Batch
from gencls.eval.scores.probe import probe_defense
from tests.toys import small_cnn

LINF = ThreatModel("linf", 0.05)
ATTACKS = {"pgd": PGD(LINF, steps=2), "short": PGD(LINF, steps=1), "noise": GaussianNoiseAttack(LINF, tries=2)}


@pytest.fixture
def samples():
    torch.manual_seed(0)
    return torch.rand(6, 1, 8, 8), torch.arange(6) % 4


@pytest.fixture
def measured(monkeypatch):
    """How often memory was measured."""
    calls, measure = [], runner_module.rows_that_fit

    def counted(ask, image, memory):
        calls.append(tuple(image.shape))
        return measure(ask, image, memory)

    monkeypatch.setattr(runner_module, "rows_that_fit", counted)
    return calls


def test_memory_is_measured_once_for_a_defense_and_a_mode(tmp_path, samples, measured):
    evaluate(small_cnn(), ATTACKS, [samples, samples])
    assert len(measured) == 2  # with a gradient and without
    measured.clear()
    networks = {"one": small_cnn(seed=1), "other": small_cnn(seed=2)}
    study = Study(
        tmp_path, defenses=networks, attacks=ATTACKS, images=samples[0], labels=samples[1], seeds=(0, 1), shard_size=3
    )
    study.run()
    assert len(measured) == 4


def test_images_of_another_kind_are_measured_again(measured):
    defense, protocol = small_cnn(), Protocol()
    one, other = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    found = Runner(defense, "exact", protocol, probe_defense(defense, one, torch.tensor([0, 1])))
    assert found.rows(one) == found.rows(one)
    assert len(measured) == 1
    defense.double()
    assert found.rows(other) <= found.rows(one)
    assert len(measured) == 2


def test_the_parts_make_the_whole(samples):
    images, labels = samples
    defense, protocol = small_cnn(), Protocol()
    runner = Runner(defense, "exact", protocol, probe_defense(defense, images, labels))
    batch = Batch(images, labels, Roles(runner.probe, sample_hashes(images, labels), protocol.seed))
    clean = runner.clean(batch)
    found = runner.attack(batch, ATTACKS["pgd"], clean)
    verdict = runner.judge(batch, ATTACKS["pgd"], found)
    whole = run_cell(defense, ATTACKS["pgd"], "exact", images, labels, protocol)
    assert torch.equal(verdict.images, whole.verdict.images)
    assert torch.equal(verdict.predictions, whole.verdict.predictions)
    assert torch.equal(clean.predictions, whole.clean.predictions)
    assert found.spent["backwards"] == whole.backwards * len(images)


def test_a_model_of_another_kind_has_the_same_meter(samples):
    class Doubled(AttackModel):
        def average(self, scores):
            return 2 * super().average(scores)

    model = AttackModel(small_cnn(), samples=4, reduce="probs", chunk=2, max_rows=7, common_draws=True, stochastic=True)
    other = Doubled(model.meter, **model.settings)
    assert other.settings == model.settings
    other(samples[0])
    assert model.meter.spent["forwards"] == 4 * len(samples[0])
