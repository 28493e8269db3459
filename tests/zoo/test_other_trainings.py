"""Weights of another training are refused by the name on their card, wherever their network would do."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gencls.core import GenclsError
from gencls.perceptual import FeatureDistance
from gencls.zoo import load, load_distance, load_generator
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.checkpoint import restore, save_checkpoint
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.distances import DISTANCES
from gencls.zoo.networks import CifarVGG, ResNetEncoder
from gencls.zoo.registry import ARCHITECTURES
from gencls.zoo.rows import GENERATORS, PARTS, ROWS
from gencls.zoo.trained import trained_network

OTHER = WEIGHTS / "cgan-mnist.safetensors"
"""Small, and of no row by this name."""


def committed(name: str) -> Path:
    return WEIGHTS / f"{name}.safetensors"


def renamed(source: str, name: str, folder: Path) -> Path:
    """Weights of a training with another name on their card."""
    network, card = restore(committed(source), ARCHITECTURES)
    save_checkpoint(network, folder / "mine.safetensors", replace(card, name=name))
    return folder / "mine.safetensors"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.network is not None])
def test_no_defense_takes_another_training(name: str) -> None:
    needed = ROWS[name].trained or name
    other = committed("enc-mnist") if needed == "cgan-mnist" else OTHER
    file = re.escape(str(other))
    with pytest.raises(GenclsError, match=f"^{file}: expected the weights of {needed}; got those of {other.stem}, which load"):
        load(name, weights=other)


@pytest.mark.parametrize("name", DISTANCES)
def test_no_distance_takes_another_training(name: str) -> None:
    row = DISTANCES[name]
    if not row.trained and not row.file:
        pytest.skip("it takes no weights")
    with pytest.raises(GenclsError, match=f"expected the weights of {row.trained or name}; got those of cgan-mnist, which"):
        load_distance(name, weights=OTHER)


@pytest.mark.parametrize("name", GENERATORS)
def test_no_generator_takes_another_training(name: str) -> None:
    with pytest.raises(GenclsError, match=f"expected the weights of {name}; got those of cgan-mnist, which load by"):
        load_generator(name, weights=OTHER)


@pytest.mark.parametrize("name", PARTS)
def test_no_part_takes_another_training(name: str) -> None:
    other = committed("enc-mnist")
    with pytest.raises(GenclsError, match=f"expected the weights of {name}; got those of enc-mnist, which load by"):
        trained_network(PARTS[name], name, other)


@pytest.mark.parametrize(
    ("make", "file", "calls"),
    [
        # networks of one class and size, so that nothing but the card tells them apart
        (lambda file: load("enc-d-fashion", weights=file), "enc-fashion", "zoo.load('enc-fashion', weights=FILE) or "),
        (lambda file: load("adv-linf-fashion", weights=file), "trades-fashion", "zoo.load('trades-fashion', weights=FILE)"),
        (lambda file: load("abs-mnist", weights=file), "abs-fashion", "zoo.load('abs-fashion', weights=FILE)"),
        (lambda file: load("a-abs-mnist", weights=file), "eabs-mnist", "zoo.load('eabs-mnist', weights=FILE)"),
        (lambda file: load("a-vae-mnist", weights=file), "a-vae-fashion", "zoo.load('a-vae-fashion', weights=FILE)"),
        (lambda file: load_generator("nvae-mnist", weights=file), "nvae-fashion", "zoo.load_generator('nvae-fashion', weigh"),
        (
            lambda file: load_distance("features-fashion", weights=file),
            "features-corruptions-fashion",
            "zoo.load('features-corruptions-fashion', weights=FILE) or zoo.load_distance('features-corruptions-fashion', w",
        ),
        (
            lambda file: load_distance("features-corruptions-mnist", weights=file),
            "contrastive-mnist",
            "zoo.load_distance('contrastive-mnist', weights=FILE)",
        ),
        (lambda file: load("direct-fashion", weights=file), "cgan-mnist", "zoo.load('direct-mnist', weights=FILE) or zoo."),
    ],
    ids=lambda value: value if isinstance(value, str) and "zoo" not in value else "",
)
def test_the_same_network_of_another_training_is_told_how_it_loads(make, file: str, calls: str) -> None:
    with pytest.raises(GenclsError, match=rf"got those of {file}, which load by {re.escape(calls)}"):
        make(committed(file))


def test_a_discriminator_is_told_apart_from_its_generator() -> None:
    with pytest.raises(GenclsError, match="expected the weights of cnn-mnist; got those of cgan-mnist-discriminator, a Proj"):
        load("cnn-mnist", weights=committed("cgan-mnist-discriminator"))
    with pytest.raises(GenclsError, match="expected the weights of a SelfModulatedGenerator for cgan-mnist; got a Projection"):
        load("direct-mnist", weights=committed("cgan-mnist-discriminator"))


def test_the_name_of_the_file_does_not_decide(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"enc-mnist{suffix}", tmp_path / f"enc-d-mnist{suffix}")
    with pytest.raises(GenclsError, match="expected the weights of enc-d-mnist; got those of enc-mnist, which load by"):
        load("enc-d-mnist", weights=tmp_path)


def test_rows_of_one_training_share_its_file() -> None:
    assert load("cnn-blur-mnist", weights=committed("cnn-mnist")).num_classes == 10
    assert isinstance(load_distance("robust-linf-mnist", weights=committed("adv-linf-mnist")), FeatureDistance)
    for name in ("enc-d-mnist", "enc-d-plus-mnist"):
        assert load(name, weights=committed("enc-d-mnist"), distance="pixels", steps=1).num_classes == 10


@pytest.mark.parametrize("name", ["enc-mnist-longer", "mine"])
def test_a_variant_and_ones_own_name_are_taken(name: str, tmp_path: Path) -> None:
    path = renamed("enc-mnist", name, tmp_path)
    network, expected = trained_network(ResNetEncoder, "enc-mnist", path), trained_network(ResNetEncoder, "enc-mnist")
    images = torch.rand(2, 1, 28, 28)
    # the file keeps half precision's numbers, so nothing is rounded again
    assert torch.equal(network(images), expected(images))


def test_a_variant_of_another_training_is_refused(tmp_path: Path) -> None:
    path = renamed("enc-mnist", "enc-mnist-longer", tmp_path)
    with pytest.raises(GenclsError, match="expected the weights of enc-d-mnist; got those of enc-mnist-longer, which load by"):
        load("enc-d-mnist", weights=path)


def test_published_weights_need_no_card(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in CifarVGG(((2,), (2,), (3,))).state_dict().items()}
    save_file(state, tmp_path / "vgg.safetensors")
    assert isinstance(load_distance("vgg-cifar10", weights=tmp_path / "vgg.safetensors"), FeatureDistance)
    (tmp_path / "vgg.json").write_text(json.dumps({"clean_acc": "93.2"}))  # as projects put figures beside weights
    assert isinstance(load_distance("vgg-cifar10", weights=tmp_path / "vgg.safetensors"), FeatureDistance)
    assert read_card(OTHER).name == "cgan-mnist"
