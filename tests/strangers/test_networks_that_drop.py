"""Networks with dropout at test time: declared, it stays on; undeclared, it is refused."""

import pytest
from torch import nn
from torch.nn import functional

from gencls._commands.asked import build_defense
from gencls.core import BPDA, GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval import AttackModel, Transfer, evaluate, judge
from gencls.eval.adapters import as_module
from gencls.eval.doctor import diagnose
from tests.strangers.networks import (
    GLANCE,
    LINF,
    STEP,
    WAYS,
    WithNorm,
    bring,
    data_of,
    declared,
    dropping,
    every_way,
    in_study,
    network,
    same,
    samples,
    state,
)

__all__ = ["samples"]


@every_way
def test_a_part_in_training_mode_is_named(way, samples, tmp_path, monkeypatch):
    module = WithNorm()
    module.layers[1].train()
    before = state(module)
    with pytest.raises(GenclsError, match=r"training mode of (network\.)?layers.1 \(BatchNorm2d\)"):
        bring(way, module, samples, tmp_path, monkeypatch)
    assert same(state(module), before)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "import path"])
def test_dropout_at_test_time_must_be_declared(way, samples, tmp_path, monkeypatch):
    module = dropping()
    with pytest.raises(GenclsError, match="Dropout.*test-time dropout set stochastic = True|stochastic"):
        bring(way, module, samples, tmp_path, monkeypatch)


DROPPING = {
    "Study": lambda module, samples, folder: in_study(declared(module), *samples, folder),
    "evaluate": lambda module, samples, folder: evaluate(declared(module), {"fgsm": STEP}, [samples], eot_samples=2),
    "judge": lambda module, samples, folder: judge(declared(module), samples[0], samples[0], LINF, count=4),
    "doctor": lambda module, samples, folder: diagnose(declared(module), *samples, epsilon=0.05, effort=GLANCE, eot_samples=2),
    "module": lambda module, samples, folder: as_module(declared(module), samples=2)(samples[0]),
    "FGSM": lambda module, samples, folder: STEP(AttackModel(declared(module), samples=2), *samples),
    "Transfer": lambda module, samples, folder: Transfer(declared(module), STEP)(network(), *samples),
}


@pytest.mark.parametrize("way", DROPPING)
def test_dropout_at_test_time_stays_on(way, samples, tmp_path):
    module, drawn = dropping(), []
    before = state(module)
    module.layers[2].forward = lambda images: drawn.append(1) or functional.dropout(images, 0.5, module.layers[2].training)
    DROPPING[way](module, samples, tmp_path)
    assert drawn
    assert same(state(module), before)


def test_dropout_at_test_time_is_found_by_import_path(samples, monkeypatch):
    module = dropping()
    monkeypatch.setattr("tests.strangers.networks.BROUGHT", module, raising=False)
    defense = build_defense("tests.strangers.networks:BROUGHT", data_of(samples[0]))
    assert defense.stochastic
    assert module.layers[2].training
    assert not defense.training
    result = evaluate(defense, {"fgsm": STEP}, [samples], eot_samples=2, judge_draws=16)
    assert any(len(set(row)) > 1 for row in result.records["predictions"])


def test_what_was_never_switched_is_switched_by_import_path(samples, monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = dropping()

        def forward(self, images):
            return self.inner(images)

    class Headed(nn.Module):
        """A network that was switched, and dropout of its own that was not."""

        def __init__(self):
            super().__init__()
            self.inner, self.drop = WithNorm(), nn.Dropout(0.5)

        def forward(self, images):
            return self.inner(self.drop(images))

    for module, stays in ((WithNorm().train(), False), (Wrapper(), True), (Headed(), False), (Headed().eval(), False)):
        monkeypatch.setattr("tests.strangers.networks.BROUGHT", module, raising=False)
        defense = build_defense("tests.strangers.networks:BROUGHT", data_of(samples[0]))
        assert defense.stochastic == stays
        dropout = next(part for part in module.modules() if isinstance(part, nn.Dropout))
        assert (module.training, dropout.training) == (False, stays)


def test_a_new_head_in_training_mode_is_named_by_import_path(samples, monkeypatch):
    module = WithNorm()
    module.layers[5] = nn.Sequential(nn.Dropout(0.5), module.layers[5])
    monkeypatch.setattr("tests.strangers.networks.BROUGHT", module, raising=False)
    with pytest.raises(GenclsError, match=r"training mode of layers.5 \(Sequential\)"):
        build_defense("tests.strangers.networks:BROUGHT", data_of(samples[0]))


SURROGATES = {
    "declares it": lambda defense: BPDA(defense, nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
    "is the network": lambda defense: defense.network,
    "holds the network": lambda defense: nn.Sequential(defense.network),
}


@pytest.mark.parametrize("kind", SURROGATES)
def test_a_surrogate_drops_where_its_defense_does(kind, samples):
    class Smoothed(PlainClassifier):
        def surrogates(self):
            return {"smooth": SURROGATES[kind](self)}

    module = dropping()
    evaluate(Smoothed(module, 3, stochastic=True), {"fgsm": STEP}, [samples], eot_samples=2, judge_draws=4)
    assert module.layers[2].training


@pytest.mark.parametrize("way", DROPPING)
def test_flags_that_change_nothing_stay_too(way, samples, tmp_path):
    module = WithNorm()
    module.layers[3].train()  # the ReLU
    before = state(module)
    DROPPING[way](module, samples, tmp_path)
    assert same(state(module), before)


def test_a_name_alone_is_no_dropout(samples):
    class DropNorm(nn.BatchNorm2d):
        pass

    module = nn.Sequential(DropNorm(1), network()).eval()
    module[0].train()
    before = state(module)
    with pytest.raises(GenclsError, match=r"training mode of network.0 \(DropNorm\)"):
        evaluate(declared(module), {"fgsm": STEP}, [samples])
    assert same(state(module), before)
