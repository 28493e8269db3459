"""Committed conditional GANs and their encoders: samples keep their class, reconstructions are those of the card."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gencls.core import GenclsError, seeded
from gencls.zoo import ImageData, load_data
from gencls.zoo.checkpoints.cards import read_card
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.networks import CNN, ProjectionDiscriminator, ResNetEncoder, SelfModulatedGenerator
from gencls.zoo.trained import trained_network
from gencls.zoo.training import PRESETS
from gencls.zoo.training.base import Preset
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.cgan import ConditionalGANPreset, class_samples
from gencls.zoo.training.methods.gan_encoder import EncoderPreset
from gencls.zoo.training.methods.generators import CLASSIFIERS

SHARED = Path(__file__).parents[3] / "shared" / "data"


def here(kind: type[Preset]) -> list[str]:
    return [name for name, made in PRESETS.items() if isinstance(made, kind) and (WEIGHTS / f"{name}.safetensors").is_file()]


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def images_of(data: str, count: int) -> ImageData:
    for root in (None, os.environ.get("GENCLS_DATA") or SHARED):
        try:
            return load_data(data, "test", root=root, limit=count)
        except GenclsError as error:
            missing = error
    pytest.skip(f"needs {data}: {missing}")


def figure(metrics: dict[str, Any], begin: str) -> float:
    (found,) = [value for key, value in metrics.items() if key.startswith(begin)]
    return float(found)


@pytest.mark.parametrize("name", here(ConditionalGANPreset))
def test_samples_keep_their_class_and_are_not_all_alike(name: str) -> None:
    network = trained_network(SelfModulatedGenerator, name)
    judge = CLASSIFIERS[PRESETS[name].data]
    labels = torch.arange(200) % network.num_classes
    images = class_samples(network, labels)
    expected = figure(read_card(WEIGHTS / f"{name}.safetensors").metrics, f"accuracy of {judge} on as many samples")
    assert expected > 0.75
    assert accuracy(trained_network(CNN, judge), images, labels) == pytest.approx(expected, abs=0.1)  # 200 of thousands
    for label in range(network.num_classes):
        same = images[labels == label].flatten(1)
        assert torch.pdist(same).min() > 0.5


@pytest.mark.parametrize("name", here(ConditionalGANPreset))
def test_the_discriminator_of_a_gan_finds_real_images_more_real_than_samples(name: str) -> None:
    """In the mean; it knows no other images, and may find noise more real than either."""
    critic = trained_network(ProjectionDiscriminator, f"{name}-discriminator")
    test = images_of(PRESETS[name].data, 500)
    real = critic(test.images, test.labels)
    made = critic(class_samples(trained_network(SelfModulatedGenerator, name), test.labels), test.labels)
    error = ((real.var() + made.var()) / len(real)).sqrt()
    assert real.mean() - made.mean() > 3 * error


@pytest.mark.parametrize("name", here(EncoderPreset))
def test_reconstructions_are_as_close_as_the_card_says(name: str) -> None:
    settings, card = PRESETS[name], read_card(WEIGHTS / f"{name}.safetensors").metrics
    assert isinstance(settings, EncoderPreset)
    found = settings.measure(trained_network(ResNetEncoder, name), [images_of(settings.data, 200)], few=200)
    for begin, share in (("mean squared reconstruction error", 0.2), ("mean L2 norm of codes", 0.05)):
        assert figure(found, begin) == pytest.approx(figure(card, begin), rel=share)  # 200 images of 1,000
