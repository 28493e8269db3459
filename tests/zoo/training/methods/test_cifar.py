"""Trainings on CIFAR10: its augmentation, the optimiser, a small run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from gencls.core import GenclsError, seeded
from gencls.defenses import PlainClassifier
from gencls.zoo import ImageData, load
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.networks import CifarResNet
from gencls.zoo.networks.classifiers.published import KUANGLIU
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.cifar import CifarPreset
from gencls.zoo.training.methods.classifier import SGDTraining
from gencls.zoo.training.views.padded_crops import PaddedCrops
from gencls.zoo.training.views.perturbations import SMOOTHING_NOISE, AddedNoise, Composed
from tests.trainings import logged, resumed


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def views(perturbation: Any, images: Tensor) -> Tensor:
    seen: Tensor = perturbation(nn.Identity(), images, torch.zeros(len(images), dtype=torch.int64), epoch=0.0)
    return seen


def test_crops_are_torchvisions_at_all_places_alike() -> None:
    image = torch.rand(3, 6, 8)
    crops = views(PaddedCrops(padding=1), image.expand(900, -1, -1, -1))
    padded = functional.pad(image, [1, 1, 1, 1])
    expected = [functional.crop(padded, down, right, 6, 8) for down in range(3) for right in range(3)]
    expected += [functional.horizontal_flip(crop) for crop in expected]
    equal = (crops.unsqueeze(1) == torch.stack(expected)).flatten(2).all(2)
    assert (equal.sum(1) == 1).all()
    counts = equal.sum(0)  # of 900 in 18 places, 50 +- 7
    assert int(counts.min()) > 22
    assert int(counts.max()) < 78


def test_crops_without_border_and_flips() -> None:
    images = torch.rand(4, 1, 5, 5)
    assert torch.equal(views(PaddedCrops(padding=0, flip=0.0), images), images)
    assert torch.equal(views(PaddedCrops(padding=0, flip=1.0), images), images.flip(3))
    for wrong in ({"padding": -1}, {"flip": 1.5}):
        with pytest.raises(GenclsError, match=r"PaddedCrops: expected padding >= 0 and flip in \[0, 1\], got "):
            PaddedCrops(**wrong)


@pytest.mark.parametrize(
    ("name", "perturbation"),
    [
        ("resnet18-cifar10", PaddedCrops(4, 0.5)),
        ("resnet18-gaussian-cifar10", Composed((PaddedCrops(4, 0.5), AddedNoise(0.05, clip=False)))),
    ],
)
def test_the_recipe_of_kuangliu(name: str, perturbation: Any) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, CifarPreset)
    assert settings.perturbation == perturbation
    assert (settings.data, settings.epochs, settings.batch_size, settings.image_shape) == ("cifar10", 200, 128, (3, 32, 32))
    with torch.device("meta"):
        network = CifarResNet(num_classes=10, **settings.arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962  # ResNet-18 of that project
    assert {"mean": network.normalization.mean, "std": network.normalization.std} == KUANGLIU
    module = replace(settings, width=4).training(10)
    (optimizer,) = module.optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert {key: optimizer.defaults[key] for key in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "nesterov": False,
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(module.network.parameters()))
    assert isinstance(module, SGDTraining)


def colours(name: str, split: str, **_: object) -> ImageData:
    """Two classes of noisy images, one a little redder."""
    with seeded(0):
        labels = torch.arange(48) % 2
        images = 0.5 * torch.rand(48, 3, 32, 32)
        images[:, 0] += 0.2 * labels.view(-1, 1, 1)
    return ImageData(name, split, images, labels, ("other", "red"), torch.arange(48))


def small(name: str) -> CifarPreset:
    settings = PRESETS[name]
    assert isinstance(settings, CifarPreset)
    return replace(settings, blocks=(1, 1), width=4, batch_size=16)


@pytest.mark.parametrize("name", ["resnet18-cifar10", "resnet18-gaussian-cifar10"])
def test_a_run_is_saved_loaded_and_resumed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencls.zoo.training.run.load_data", colours)
    arguments: dict[str, Any] = {"epochs": 6, "progress": False}
    whole = train(small(name), **arguments, out=tmp_path / "whole")
    losses = logged(tmp_path / "whole" / name, "loss")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    card = read_card(whole)
    assert card.architecture == "CifarResNet"
    assert card.arguments == {
        "blocks": [1, 1],
        "width": 4,
        "mean": list(KUANGLIU["mean"]),
        "std": list(KUANGLIU["std"]),
        "num_classes": 2,
    }
    assert card.command == f"gencls train {name} --data-root DATA --epochs 6"
    assert card.licence == "Apache-2.0"
    assert "SGD from learning rate 0.1 along a cosine to 0 with momentum 0.9 and weight decay 0.0005" in card.what
    defense = load(name, weights=whole)
    assert isinstance(defense, PlainClassifier)
    test = colours("cifar10", "test")
    assert card.metrics["clean accuracy, cifar10 test, 48 images"] == accuracy(defense, test.images, test.labels) > 0.6
    found = resumed(small(name), **arguments, at=5, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()


def test_weights_that_are_not_there() -> None:
    with pytest.raises(
        GenclsError, match=r"got no such file. Make them with: gencls train resnet18-cifar10 \(and --data-root DATA"
    ):
        load("resnet18-cifar10")


def test_the_fashion_classifiers_of_smoothing() -> None:
    gaussian, both = PRESETS["cnn-gaussian-fashion"], PRESETS["adv-linf-gaussian-fashion"]
    assert gaussian == replace(PRESETS["cnn-fashion"], name=gaussian.name, what=gaussian.what, perturbation=SMOOTHING_NOISE)
    alone = PRESETS["adv-linf-fashion"]
    assert both == replace(alone, name=both.name, what=both.what, perturbation=Composed((alone.perturbation, SMOOTHING_NOISE)))
