"""Generators with several latent levels: figures on their cards against closed forms, presets, weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencls.core import GenclsError, MultiLatentModel, seeded
from gencls.zoo import generator_names, load, load_data, load_generator
from gencls.zoo.checkpoints.places import WEIGHTS
from gencls.zoo.networks import NVAE
from gencls.zoo.rows import GENERATORS
from gencls.zoo.training import PRESETS
from gencls.zoo.training.measure import accuracy
from gencls.zoo.training.methods.generators import CLASSIFIERS, GeneratorPreset, autoencoded, samples
from gencls.zoo.training.methods.hierarchical_vae import bits_per_dimension
from tests.contracts.tables import check_rows


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.mark.parametrize("name", [name for name, settings in PRESETS.items() if isinstance(settings, GeneratorPreset)])
def test_every_training_of_a_generator_can_be_loaded(name: str) -> None:
    check_rows([name], GENERATORS, where="GENERATORS in gencls/zoo/rows.py", row='"{name}": its network')


@pytest.mark.parametrize("name", GENERATORS)
def test_presets_say_what_they_are(name: str) -> None:
    settings = PRESETS[name]
    assert isinstance(settings, GeneratorPreset)
    assert f"{settings.epochs} epochs of batches of {settings.batch_size}" in settings.recipe
    assert settings.image_shape == settings.arguments["image_shape"]


class Shifted(MultiLatentModel):
    """Decodes to the image, or to a grey one for sampled codes."""

    num_levels = 1

    def encode_once(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)

    def decode_mixed(self, encoded: tuple[Tensor, ...], mix: Any) -> Tensor:
        used: Tensor = mix(0, encoded[0], torch.full_like(encoded[0], 0.25))
        return used


def test_reconstructions_and_samples_are_the_ends_of_the_mix() -> None:
    images = torch.rand(150, 1, 4, 4)  # more than one chunk
    assert torch.equal(autoencoded(Shifted(), images), images)
    assert torch.equal(samples(Shifted(), images), torch.full_like(images, 0.25))


def test_bits_per_dimension_of_a_network_that_knows_nothing() -> None:
    # With a posterior like the prior there is no divergence; a single wide logistic gives each value about 8 bits.
    network = NVAE((1, 8, 8), groups=(1, 1), cells=1, latent_channels=1, channels=4, block_cells=1, mixtures=1).eval()
    for parameters in (network.to_logits[1], *network.enc_sampler.values()):
        nn.init.zeros_(parameters.bias)
        nn.init.zeros_(parameters.parametrizations["weight"].original0)
    images = torch.randint(256, (120, 1, 8, 8)) / 255
    pixels = (2 * images - 1).double()
    logistic = torch.sigmoid(pixels + 1 / 255) - torch.sigmoid(pixels - 1 / 255)
    logistic = torch.where(images == 0, torch.sigmoid(pixels + 1 / 255), logistic)
    logistic = torch.where(images == 1, 1 - torch.sigmoid(pixels - 1 / 255), logistic)
    assert bits_per_dimension(network, images) == pytest.approx(float(-logistic.log2().mean()), rel=1e-4)


def test_generators_that_cannot_be_loaded() -> None:
    with pytest.raises(GenclsError, match="unknown generator 'biggan'; expected one of nvae-fashion"):
        load_generator("biggan")
    with pytest.raises(GenclsError, match="expected the weights of stylegan2-fashion; got those of nvae-fashion, which load"):
        load_generator("stylegan2-fashion", weights=WEIGHTS / "nvae-fashion.safetensors")
    with pytest.raises(GenclsError, match="Make them with: gencls train nvae-fashion"):
        load_generator("nvae-fashion", weights="/nowhere.safetensors")


@pytest.mark.parametrize("name", generator_names())
def test_committed_generators_keep_the_class(name: str) -> None:
    data = {"mnist": "mnist-embedded"}.get(PRESETS[name].data, PRESETS[name].data)
    try:
        test = load_data(data, "test", limit=100)
    except GenclsError as error:
        pytest.skip(f"needs {data}: {error}")
    network = load_generator(name)
    assert not network.training
    classifier = load(CLASSIFIERS[data])
    with seeded(0):
        assert accuracy(classifier, autoencoded(network, test.images), test.labels) >= 0.8  # of fashion 0.85 on 1,000 images
        assert 0 < float((samples(network, test.images) - test.images).square().mean()) < 0.5
