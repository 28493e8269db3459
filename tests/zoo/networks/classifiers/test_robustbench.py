"""The import shield against the real package: alias, arguments, and what it says when the package is damaged."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from gencls.core import GenclsError
from gencls.zoo.networks.classifiers.robustbench import import_robustbench


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process, but for the architectures, which register themselves in timm and may do so only once."""
    import_robustbench()
    for name in list(sys.modules):
        if name.split(".")[0] in ("robustbench", "autoattack") and "model_zoo" not in name:
            monkeypatch.delitem(sys.modules, name)
    return monkeypatch


def test_the_package_comes_with_everything_that_it_imports():
    package = import_robustbench()
    assert package.__name__ == "robustbench"
    assert callable(package.benchmark)
    assert callable(package.load_model)
    assert import_robustbench() is package
    images = torch.rand(6, 3)
    assert package.utils.clean_accuracy(nn.Identity(), images, images.argmax(1)) == 1.0


def test_the_alias_takes_the_arguments_of_the_original():
    import_robustbench()
    from autoattack import AutoAttack
    from autoattack.state import EvaluationState
    from pyautoattack.state import EvaluationState as Real

    assert EvaluationState is Real
    weight = torch.eye(12)[:11]  # eleven classes: version "standard" wants ten
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 11, bias=False)).requires_grad_(False)
    model[1].weight.copy_(weight)
    images = 0.4 + 0.2 * torch.rand(8, 3, 2, 2)
    labels = model(images).argmax(1)
    attack = AutoAttack(model, norm="L2", eps=0.5, version="standard", device=torch.device("cpu"), log_path=None)
    adversarial = attack.run_standard_evaluation(images, labels, bs=4, state_path=None)
    # two scores are pixels at most 0.2 apart: 0.2 / sqrt(2) < 0.5 makes them equal
    assert (model(adversarial).argmax(1) != labels).all()
    assert (adversarial - images).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
    with pytest.raises(GenclsError, match="log_path"):
        AutoAttack(model, log_path="log.txt")


def test_a_module_of_that_name_is_left_alone(fresh):
    class Theirs:
        """Stands for the original's class."""

    theirs, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    theirs.AutoAttack, state.EvaluationState = Theirs, object
    fresh.setitem(sys.modules, "autoattack", theirs)
    fresh.setitem(sys.modules, "autoattack.state", state)
    assert import_robustbench().eval.AutoAttack is Theirs


def test_setuptools_without_pkg_resources_is_named(fresh):
    fresh.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(GenclsError, match="setuptools < 81"):
        import_robustbench()


def test_a_copy_without_the_benchmark_is_named(fresh):
    fresh.setitem(sys.modules, "robustbench", ModuleType("robustbench"))
    with pytest.raises(GenclsError, match="torchattacks"):
        import_robustbench()
