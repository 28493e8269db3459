"""Distances by name: which network, which layers, which weights."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError, fingerprint, seeded
from gencls.perceptual import FeatureDistance
from gencls.zoo import distance_names, distances, load_distance
from gencls.zoo.checkpoints.cards import Card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.distances import DISTANCES, TRAINED_FOR_DISTANCES, feature_layers
from gencls.zoo.networks import CNN, VGG_GROUPS, CifarPreActResNet, CifarResNet, CifarVGG
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def by_hand(network: nn.Module, layers: tuple[str, ...], first: Tensor, second: Tensor) -> Tensor:
    """Eq. 3.6, layer by layer."""
    seen: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda part, given, made, name=name: seen.__setitem__(name, made))
        for name in layers
    ]
    with torch.no_grad():
        maps = []
        for images in (first, second):
            network(images)
            maps.append([seen[name] for name in layers])
    for hook in hooks:
        hook.remove()
    total = torch.zeros(len(first))
    for a, b in zip(*maps, strict=True):
        side = (a.shape[2] * a.shape[3]) ** 0.5
        a, b = (part * side / part.flatten(2).norm(dim=2).clamp(min=1e-9)[..., None, None] for part in (a, b))
        total += (a - b).square().sum((1, 2, 3)) / a.shape[1] / len(layers)
    return total


def test_the_robust_distance_is_that_of_the_robust_network() -> None:
    network = trained_network(CNN, "adv-linf-fashion")
    first, second = torch.rand(2, 3, 1, 28, 28)
    distance = load_distance("robust-linf-fashion")
    expected = by_hand(
        network, ("encoder.blocks.2", "encoder.blocks.5", "encoder.blocks.8", "encoder.blocks.11"), first, second
    )
    torch.testing.assert_close(distance(first, second), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(load_distance("robust-linf-fashion", normalize=False)(first, second), expected, rtol=0.1)


@pytest.mark.parametrize("name", distance_names())
def test_what_is_here_loads(name: str) -> None:
    distance = load_distance(name)
    assert isinstance(distance, FeatureDistance)
    shape = (3, 32, 32) if "cifar10" in name else (1, 28, 28)
    first, second = torch.rand(2, 2, *shape)
    found = distance(first, second)
    assert found.shape == (2,)
    assert bool((found > 0).all())
    assert torch.equal(distance(first, first), torch.zeros(2))
    assert fingerprint(distance) == fingerprint(load_distance(name))


def test_the_layers_of_each_network() -> None:
    assert feature_layers(CifarPreActResNet((1, 1), width=2)) == ("layer1", "layer2")
    assert feature_layers(CifarResNet((1, 1, 1), width=2)) == ("layer1", "layer2", "layer3")
    vgg = CifarVGG(((2,), (2, 2)))
    layers = feature_layers(vgg)
    assert layers == ("features.2", "features.9")
    assert all(isinstance(vgg.get_submodule(name), nn.ReLU) for name in layers)
    with torch.device("meta"):
        assert len(feature_layers(CifarVGG(VGG_GROUPS["VGG16"]))) == 5
    with pytest.raises(GenclsError, match="feature layers: expected a residual network, a CifarVGG or a CNN, got a Linear"):
        feature_layers(nn.Linear(2, 2))


def test_a_published_vgg(tmp_path: Path) -> None:
    vgg = CifarVGG(((2,), (2,), (3,))).eval()
    torch.save({"net": vgg.state_dict(), "acc": 90.0, "epoch": 3}, tmp_path / "vgg.pth")
    first, second = torch.rand(2, 2, 3, 32, 32)
    distance = load_distance("vgg-cifar10", weights=tmp_path / "vgg.pth")
    normalized = load_distance("vgg-cifar10", weights=tmp_path / "vgg.pth").network
    expected = by_hand(normalized, feature_layers(vgg), first, second)
    torch.testing.assert_close(distance(first, second), expected, rtol=1e-4, atol=1e-4)
    torch.save(CifarResNet((1, 1), width=2).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(GenclsError, match=r"resnet.pth: expected a VGG of kuangliu/pytorch-cifar, got its CifarResNet"):
        load_distance("vgg-cifar10", weights=tmp_path / "resnet.pth")


@pytest.mark.parametrize(
    ("name", "model", "threat"),
    [
        ("robust-linf-cifar10", "Wong2020Fast", "Linf"),
        ("robust-corruptions-cifar10", "Kireev2021Effectiveness_RLATAugMix", "corruptions"),
    ],
)
def test_a_published_robust_network(name: str, model: str, threat: str, tmp_path: Path) -> None:
    from gencls.zoo.networks.classifiers.published import _robustbench_model

    network = _robustbench_model(model, threat, "cifar10")()
    torch.save({"last": network.state_dict()}, tmp_path / "weights.pt")
    distance = load_distance(name, weights=tmp_path / "weights.pt")
    assert distance.layers == ("layer1", "layer2", "layer3", "layer4")
    first, second = torch.rand(2, 1, 3, 32, 32)
    expected = by_hand(distance.network, ("layer1", "layer2", "layer3", "layer4"), first, second)
    torch.testing.assert_close(distance(first, second), expected, rtol=1e-4, atol=1e-4)
    for key, value in network.state_dict().items():
        assert torch.equal(distance.network.state_dict()[key], value)


def test_names_are_those_of_trainings() -> None:
    assert {row.trained for row in DISTANCES.values() if row.trained} <= set(PRESETS)
    assert set(TRAINED_FOR_DISTANCES) <= set(DISTANCES)
    assert {"robust-linf-fashion", "robust-linf-mnist", "resnet18-autoattack-cifar10"} <= set(distance_names())
    assert not {"vgg-cifar10", "robust-linf-cifar10", "features-cifar10"} & set(distance_names())


def test_weights_of_a_training(tmp_path: Path) -> None:
    arguments = {"blocks": [1, 1], "width": 2, "mean": [0.5], "std": [0.5], "image_size": 28, "num_classes": 2}
    network = CifarPreActResNet(**arguments).eval()
    card = Card(
        name="features-fashion",
        architecture="CifarPreActResNet",
        arguments=arguments,
        what="",
        trained_on="",
        command="",
        metrics={},
        licence="",
        seed=0,
    )
    save_checkpoint(network, tmp_path / "features-fashion.safetensors", card)
    first, second = torch.rand(2, 2, 1, 28, 28)
    expected = by_hand(network, ("layer1", "layer2"), first, second)
    for weights in (tmp_path, tmp_path / "features-fashion.safetensors"):
        found = load_distance("features-fashion", weights=weights)(first, second)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        GenclsError, match=r"unknown distance 'feature-fashion'; did you mean 'features-fashion'\? expected one"
    ):
        load_distance("feature-fashion")
    with pytest.raises(GenclsError, match=r"got no such file. Make them with: gencls train features-cifar10 \(and --data-root"):
        load_distance("features-cifar10", weights=tmp_path)
    with pytest.raises(
        GenclsError, match="robust-linf-cifar10: expected weights=PATH, RobustBench's file of Wong2020Fast; got"
    ):
        load_distance("robust-linf-cifar10")
    with pytest.raises(GenclsError, match="resnet18-autoattack-cifar10: expected no weights, they come with a dependency; got"):
        load_distance("resnet18-autoattack-cifar10", weights=tmp_path)
    missing = re.escape(str(tmp_path / "features-mnist.safetensors"))
    monkeypatch.setattr("gencls.zoo.trained.WEIGHTS", tmp_path)
    with pytest.raises(GenclsError, match=f"{missing}; got no such file. Make them with: gencls train features-mnist"):
        load_distance("features-mnist")
    monkeypatch.setattr(distances, "WEIGHTS", tmp_path)
    assert distance_names() == ("resnet18-autoattack-cifar10",)
    with pytest.raises(GenclsError, match="expected images"):
        load_distance("resnet18-autoattack-cifar10")(*torch.rand(2, 1, 1, 28, 28))
