"""RobustBench's checkpoints: as its own loader reads them, and bad input."""

import json
from fractions import Fraction

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.zoo.networks.classifiers.published import (
    load_robustbench,
    robustbench_from_state,
    wide_resnet_from_state,
)
from gencls.zoo.networks.classifiers.robustbench import import_robustbench
from tests.golden.vectors import ROOT

MODELS = {
    "Wong2020Fast": "Linf",
    "Kireev2021Effectiveness_RLATAugMix": "corruptions",
    "Kireev2021Effectiveness_AugMixNoJSD": "corruptions",
    "Andriushchenko2020Understanding": "Linf",
}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def package():
    return import_robustbench()


def weights(package, name):
    """Random weights of a model, as published: without the numbers of the normalisation."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    with seeded(1):
        network = model_dicts[BenchmarkDataset.cifar_10][ThreatModel(MODELS[name])][name]["model"]()
    return {key: value for key, value in network.state_dict().items() if key not in ("mu", "sigma")}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_as_by_the_packages_own_loader(name, package, tmp_path):
    threat = MODELS[name]
    state = {f"module.{key}": value for key, value in weights(package, name).items()}
    content = {"last": state, "best": dict.fromkeys(state, torch.zeros(1))} if name != "Wong2020Fast" else state
    path = tmp_path / "cifar10" / threat / f"{name}.pt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    theirs = package.load_model(name, model_dir=tmp_path, threat_model=threat)
    ours = load_robustbench(path, name, threat=threat)
    assert torch.equal(ours(IMAGES), theirs(IMAGES))
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_prefixes_and_nested_weights(package, tmp_path):
    state = weights(package, "Wong2020Fast")
    torch.save(
        {"state_dict": {f"module.model.{key}": value.half() for key, value in state.items()}, "epoch": 3}, tmp_path / "a.pt"
    )
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "b.pt")
    first, second = (load_robustbench(tmp_path / file, "Wong2020Fast") for file in ("a.pt", "b.pt"))
    assert torch.equal(first(IMAGES), second(IMAGES))


def test_numbers_of_the_normalisation_that_are_in_the_file(package):
    state = weights(package, "Wong2020Fast")
    bare = robustbench_from_state({**state, "mu": torch.zeros(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1)}, "Wong2020Fast")
    inside = robustbench_from_state(state, "Wong2020Fast")
    mean, std = (torch.tensor(n).view(1, 3, 1, 1) for n in ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)))
    torch.testing.assert_close(inside(IMAGES), bare((IMAGES - mean) / std))


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(
        GenclsError, match="expected a model of one file for cifar10 Linf, one of .*Wong2020Fast.*; got 'Wong2020'"
    ):
        load_robustbench(tmp_path / "none.pt", "Wong2020")
    with pytest.raises(GenclsError, match="got 'Chen2020Adversarial'"):  # three files
        load_robustbench(tmp_path / "none.pt", "Chen2020Adversarial")
    for arguments in ({"threat": "L1"}, {"data": "imagenet"}):
        with pytest.raises(GenclsError, match="expected data and threat to be one of cifar10 Linf, cifar10 L2, .*; got "):
            load_robustbench(tmp_path / "none.pt", "Wong2020Fast", **arguments)
    with pytest.raises(GenclsError, match="none.pt: expected a weights file; got no such file"):
        load_robustbench(tmp_path / "none.pt", "Wong2020Fast")


def test_weights_of_another_model(package, tmp_path):
    state = weights(package, "Kireev2021Effectiveness_RLATAugMix")
    with pytest.raises(
        GenclsError, match="RobustBench Wong2020Fast checkpoint: expected other keys; missing: none; surplus: bn.weight"
    ):
        robustbench_from_state(state, "Wong2020Fast")
    with pytest.raises(GenclsError, match=r"expected linear.weight of shape \(10, 512\); got \(100, 512\)"):
        robustbench_from_state(
            {**state, "linear.weight": torch.zeros(100, 512)}, "Kireev2021Effectiveness_RLATAugMix", threat="corruptions"
        )
    for content, message in (
        ([1], "got a list"),
        ({"last": state, "best": 3}, "surplus"),
        ({"best": state}, "got a dict under 'best'"),
    ):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(GenclsError, match=message):
            load_robustbench(tmp_path / "a.pt", "Wong2020Fast")
    torch.save({"state_dict": state, "args": Fraction(1, 2)}, tmp_path / "a.pt")
    with pytest.raises(GenclsError, match=r"got a pickle with code or other objects \(fractions.Fraction\)"):
        load_robustbench(tmp_path / "a.pt", "Wong2020Fast")


def test_wide_networks_of_any_size(package):
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    with seeded(2):
        network = WideResNet(depth=16, widen_factor=1, num_classes=7).eval()
    assert torch.equal(wide_resnet_from_state(network.state_dict())(IMAGES), network(IMAGES))
    with pytest.raises(GenclsError, match="WideResNet checkpoint: expected fc.weight of rank 2; got keys conv1.weight"):
        wide_resnet_from_state({key: value for key, value in network.state_dict().items() if key != "fc.weight"})
    with pytest.raises(GenclsError, match="WideResNet checkpoint: expected other keys; missing: block1.layer.0.bn1.bias"):
        wide_resnet_from_state({key: value for key, value in network.state_dict().items() if key != "block1.layer.0.bn1.bias"})
    with pytest.raises(GenclsError, match="WideResNet checkpoint: expected .*; got no keys"):
        wide_resnet_from_state({})


def test_the_standard_model_is_28_layers_deep_and_ten_times_as_wide():
    path = ROOT / "robustbench_preact" / "manifest_standard_wrn28_10.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}; set GENCLS_GOLDEN")
    state = {key: torch.zeros(shape, dtype=getattr(torch, kind)) for key, shape, kind in json.loads(path.read_text())}
    named, read_off = robustbench_from_state(state, "Standard"), wide_resnet_from_state(state)
    assert type(named) is type(read_off)
    assert named.state_dict().keys() == read_off.state_dict().keys() == state.keys()
