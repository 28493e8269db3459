"""Trainings of feature networks: one architecture for both, the figures of their cards, a small run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencls.core import seeded
from gencls.defenses import PlainClassifier
from gencls.zoo import ImageData, load
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.training import PRESETS, train
from gencls.zoo.training.methods.classifier import SGDTraining
from gencls.zoo.training.methods.features import FeaturePreset, at_all_levels, under_corruptions
from gencls.zoo.training.views.corruptions import CORRUPTIONS, HELD_OUT, TRAINED_ON, Corruptions, corrupted
from gencls.zoo.training.views.perturbations import Composed
from tests.trainings import logged, resumed


def features(name: str) -> FeaturePreset:
    settings = PRESETS[name]
    assert isinstance(settings, FeaturePreset)
    return settings


@pytest.mark.parametrize(("data", "channels"), [("mnist", 1), ("fashion", 1), ("cifar10", 3)])
def test_only_the_images_of_the_two_trainings_differ(data: str, channels: int) -> None:
    plain, robust = features(f"features-{data}"), features(f"features-corruptions-{data}")
    assert replace(robust, name=plain.name, what=plain.what, perturbation=plain.perturbation) == plain
    assert robust.perturbation == Composed((plain.perturbation, Corruptions()))
    assert plain.shape[0] == len(plain.mean) == len(plain.std) == channels
    module = replace(plain, width=4).training(10)
    assert isinstance(module, SGDTraining)
    side = plain.shape[1]
    assert module.network(torch.rand(2, channels, side, side)).shape == (2, 10)


def bright(name: str, split: str, **_: object) -> ImageData:
    """Two classes of noisy grey images, one with a bright left half."""
    with seeded(0):
        labels = torch.arange(60) % 2
        images = 0.5 * torch.rand(60, 1, 28, 28)
        images[labels == 1, :, :, :14] += 0.4
    return ImageData(name, split, images, labels, ("other", "bright"), torch.arange(60))


class LeftHalf(nn.Module):
    """Is right on :func:`bright` as long as the left half is lighter than the right one."""

    def forward(self, images: Tensor) -> Tensor:
        halves = images.mean((1, 2))
        margin = halves[:, :14].mean(1) - halves[:, 14:].mean(1) - 0.2
        return torch.stack([-margin, margin], dim=1)


def test_the_figures_under_corruptions() -> None:
    test = bright("mnist", "test")
    found = under_corruptions(LeftHalf(), test, 50)
    where = "severities 0.2 to 1, mnist test, 50 images"
    each = {kind: found.pop(f"accuracy under {kind}, {where}") for kind in CORRUPTIONS}
    assert all(0 <= value <= 1 for value in each.values())
    assert each["gaussian-noise"] == each["pixelate"] == 1.0  # halves keep their light
    assert each["contrast"] == pytest.approx(0.8, abs=0.11)  # at the two highest severities no image is bright
    assert found == {
        f"mean accuracy under the 10 kinds of the corruption training, {where}": pytest.approx(
            sum(each[kind] for kind in TRAINED_ON) / 10, abs=1e-6
        ),
        f"mean accuracy under the 2 held-out kinds, {where}": pytest.approx(sum(each[kind] for kind in HELD_OUT) / 2, abs=1e-6),
    }
    assert under_corruptions(LeftHalf(), test, 50)[f"accuracy under contrast, {where}"] == each["contrast"]


def test_severities_come_in_turn() -> None:
    images = 0.3 + 0.4 * torch.rand(10, 1, 8, 8)
    expected = corrupted(images, "contrast", torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0] * 2))
    assert torch.equal(at_all_levels(images, "contrast"), expected)


@pytest.mark.parametrize("name", ["features-mnist", "features-corruptions-mnist"])
def test_a_run_is_saved_loaded_and_resumed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencls.zoo.training.run.load_data", bright)
    settings = replace(features(name), blocks=(1, 1), width=4, batch_size=20)
    arguments: dict[str, Any] = {"epochs": 4, "progress": False, "measured": 10}
    whole = train(settings, **arguments, out=tmp_path / "whole")
    losses = logged(tmp_path / "whole" / name, "loss")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    card = read_card(whole)
    assert card.architecture == "CifarPreActResNet"
    assert card.arguments == {
        "blocks": [1, 1],
        "mean": [0.1307],
        "std": [0.3081],
        "width": 4,
        "image_size": 28,
        "num_classes": 2,
    }
    assert ("Corruptions(kinds=('gaussian-noise'" in card.what) == ("corruptions" in name)
    assert card.metrics["accuracy under fog, severities 0.2 to 1, mnist-embedded test, 50 images"] >= 0
    assert card.metrics["clean accuracy, mnist test, 60 images"] > 0.8
    assert isinstance(load(name, weights=whole), PlainClassifier)
    found = resumed(settings, **arguments, at=5, out=tmp_path / "stopped")  # in the second epoch
    assert found.read_bytes() == whole.read_bytes()
