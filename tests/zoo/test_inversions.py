"""Rows of GAN inversion, with tiny random networks in a folder, as ``gencls train --out`` leaves them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gencls._commands.asked import build_defense, weights_of
from gencls.core import GenclsError, seeded
from gencls.defenses import AnalysisBySynthesis, Direct, EncDPlus
from gencls.defenses.synthesis.regularizers import SquaredNorm, SquaredShift
from gencls.perceptual import Combined, FeatureDistance, SquaredL2
from gencls.zoo import load, load_data
from gencls.zoo.checkpoints.cards import Card
from gencls.zoo.checkpoints.checkpoint import save_checkpoint
from gencls.zoo.distances import feature_layers
from gencls.zoo.inversions import INVERSIONS
from gencls.zoo.networks import CNN, CifarPreActResNet, ResNetEncoder, SelfModulatedGenerator
from gencls.zoo.trained import trained_network

SHAPE = [1, 28, 28]
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "cgan-mnist": (SelfModulatedGenerator, {"num_classes": 10, "latent_dim": 3, "width": 2, "image_shape": SHAPE}),
    "enc-mnist": (ResNetEncoder, {"latent_dim": 3, "image_shape": SHAPE, "width": 2, "blocks": [1, 1]}),
    "enc-d-mnist": (ResNetEncoder, {"latent_dim": 3, "image_shape": SHAPE, "width": 3, "blocks": [1, 1]}),
    "features-mnist": (CifarPreActResNet, {"blocks": [1, 1], "width": 2, "mean": [0.1], "std": [0.3], "image_size": 28}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of all networks, in the two layouts that a folder may have."""
    out: Path = tmp_path_factory.mktemp("runs")
    for number, (name, (kind, arguments)) in enumerate(NETWORKS.items()):
        with seeded(number):
            network = kind(**arguments)
        place = out / name if number % 2 else out
        words = dict.fromkeys(("what", "trained_on", "command", "licence"), "a test")
        card = Card(name=name, architecture=kind.__name__, arguments=arguments, metrics={}, seed=number, **words)
        save_checkpoint(network, place / f"{name}.safetensors", card)
    return out


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def own(kind: type[nn.Module], name: str, folder: Path) -> Any:
    return trained_network(kind, name, folder)


@pytest.mark.parametrize("kind", ["direct", "direct-plus", "enc", "enc-plus", "enc-d", "enc-d-plus"])
def test_every_row_takes_its_networks_from_the_folder(kind: str, folder: Path) -> None:
    defense = load(f"{kind}-mnist", weights=folder, steps=2)
    assert isinstance(defense, AnalysisBySynthesis)
    assert not defense.training
    assert not any(parameter.requires_grad for parameter in defense.parameters())
    assert isinstance(defense.regularizer, SquaredNorm if kind.startswith("direct") else SquaredShift)
    plus = kind.endswith("plus")
    generator = own(SelfModulatedGenerator, "cgan-mnist", folder)
    assert len(defense.generator.latent_shapes) == (1 + generator.num_blocks if plus else 1)
    made = defense.generator.generator if plus else defense.generator
    assert same(made, generator)
    if not kind.startswith("direct"):
        encoder = own(ResNetEncoder, f"{kind.removesuffix('-plus')}-mnist", folder)
        start = defense.start.start if plus else defense.start
        assert same(start.encoder, encoder)


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items())


def test_the_distance_is_eq_3_7(folder: Path, images: torch.Tensor) -> None:
    network = own(CifarPreActResNet, "features-mnist", folder)
    by_hand = Combined(SquaredL2(), FeatureDistance(network, feature_layers(network)), 10.0)
    defense = load("enc-d-plus-mnist", weights=folder, steps=2, percept_weight=10.0, weight=0.1)
    generator = own(SelfModulatedGenerator, "cgan-mnist", folder)
    encoder = own(ResNetEncoder, "enc-d-mnist", folder)
    expected = EncDPlus(generator, encoder, distance=by_hand, steps=2, weight=0.1).eval()
    torch.testing.assert_close(defense(images), expected(images))


def test_words_choose_the_distance(folder: Path, images: torch.Tensor) -> None:
    generator = own(SelfModulatedGenerator, "cgan-mnist", folder)
    robust = trained_network(CNN, "adv-linf-mnist")
    features = Combined(SquaredL2(), FeatureDistance(robust, feature_layers(robust)))
    for word, distance in (("pixels", SquaredL2()), ("robust-linf", features)):
        defense = load("direct-mnist", weights=folder, distance=word, steps=1, starts=5)
        torch.testing.assert_close(defense(images), Direct(generator, distance=distance, steps=1, starts=5).eval()(images))


def test_what_is_missing_is_named_with_its_command(folder: Path) -> None:
    with pytest.raises(
        GenclsError, match="direct-mnist: .*expected distance to be one of features, features-corruptions, robu"
    ):
        load("direct-mnist", weights=folder, distance="vgg")
    with pytest.raises(GenclsError, match="expected the weights of cgan-cifar10 .* Make them with: gencls train cgan-cifar10"):
        load("direct-cifar10", weights=folder)
    with pytest.raises(
        GenclsError, match="enc-d-mnist: expected overrides among weights, distance, percept_weight, weight, steps"
    ):
        load("enc-d-mnist", weights=folder, starts=3)


def test_names_list_those_whose_parts_are_all_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencls.zoo.ready_made.WEIGHTS", folder)
    assert not INVERSIONS["enc-mnist"].is_here("enc-mnist")  # its weights lie in a folder of their own
    for name in ("cgan-mnist", "features-mnist", "enc-mnist"):
        (folder / f"{name}.safetensors").touch()
    assert INVERSIONS["enc-mnist"].is_here("enc-mnist")
    assert INVERSIONS["direct-plus-mnist"].is_here("direct-plus-mnist")
    assert not INVERSIONS["enc-fashion"].is_here("enc-fashion")


def test_the_command_line_takes_a_folder_for_a_defense_of_several_networks(folder: Path) -> None:
    digits = load_data("mnist-embedded", "test", limit=1)
    weights = weights_of(["enc-d-mnist"], folder)
    defense = build_defense("enc-d-mnist", digits, weights["enc-d-mnist"])
    assert isinstance(defense, AnalysisBySynthesis)
    assert same(defense.generator, own(SelfModulatedGenerator, "cgan-mnist", folder))


def test_a_weight_of_features_needs_features(folder: Path) -> None:
    with pytest.raises(
        GenclsError, match="expected percept_weight .* only with a distance of features, got 2.0 with pixels alone"
    ):
        load("direct-mnist", weights=folder, distance="pixels", percept_weight=2.0)
