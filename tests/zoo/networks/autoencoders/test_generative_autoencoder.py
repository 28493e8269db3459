"""The generative autoencoder: sizes of the paper, a decoder that mirrors the encoder, codes with and without a variance."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import GenerativeAutoencoder
from tests.zoo.networks.test_networks import with_statistics


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 16, 16), (2, 29, 35), (1, 1, 1), (3, 17, 4)])
@pytest.mark.parametrize("variational", [True, False])
def test_images_of_any_size_come_back_at_their_size(shape: tuple[int, int, int], variational: bool) -> None:
    network = GenerativeAutoencoder(shape, code_size=7, widths=(4, 5, 6, 3), variational=variational).eval()
    images = torch.rand(3, *shape)
    codes = network.encode(images)
    assert codes.shape == (3, 7)
    made = network(images)
    assert made.shape == images.shape
    assert bool(((made > 0) & (made < 1)).all())
    torch.testing.assert_close(made, network.decode(codes))


def test_the_sizes_of_the_paper() -> None:
    """Section 3.1.2: convolutions of 32, 64, 128 and 64 channels, and the inverse of them."""
    network = GenerativeAutoencoder((1, 28, 28))
    down = [part.weight.shape for part in network.encoder if isinstance(part, nn.Conv2d)]
    up = [part.weight.shape for part in network.decoder if isinstance(part, nn.ConvTranspose2d)]
    assert [tuple(shape[:2]) for shape in down] == [(32, 1), (64, 32), (128, 64), (64, 128)]
    assert up[::-1] == down  # a transposed convolution has inputs and outputs the other way round
    convolutions = 9 * (32 * 1 + 64 * 32 + 128 * 64 + 64 * 128)
    norms = 2 * (32 + 64 + 128 + 64)
    features = 64 * 2 * 2  # 28, 14, 7, 4, 2 pixels
    linear = features * 20 + 20 + 10 * features
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 2 * convolutions + 2 * norms + linear + 1  # the bias of the last layer


def test_a_variational_encoder_gives_a_gaussian_and_a_deterministic_one_a_code() -> None:
    images = torch.rand(5, 1, 8, 8)
    posterior = with_statistics(GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(3, 2))).posterior(images)
    assert posterior.log_variance is not None
    assert posterior.mean.shape == posterior.log_variance.shape == (5, 4)
    assert not torch.equal(posterior.sample(), posterior.sample())
    network = with_statistics(GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(3, 2), variational=False))
    posterior = network.posterior(images)
    assert posterior.log_variance is None
    assert torch.equal(posterior.sample(), network.encode(images))


def test_the_code_of_an_image_is_not_random_and_does_not_depend_on_its_batch() -> None:
    network = with_statistics(GenerativeAutoencoder((2, 12, 9), code_size=4, widths=(3, 5))).double()
    images = torch.rand(4, 2, 12, 9, dtype=torch.float64)
    state = torch.get_rng_state()
    codes = network.encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    alone = torch.cat([network.encode(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(codes, alone)
    torch.testing.assert_close(network.decode(codes)[2:3], network.decode(codes[2:3]))


def test_every_parameter_learns() -> None:
    network = GenerativeAutoencoder((1, 28, 28), widths=(3, 4, 5, 6))
    posterior = network.posterior(torch.rand(8, 1, 28, 28))
    network.decode(posterior.sample()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (28, 28)}, r"expected image_shape \(C, H, W\), .* got \(28, 28\)"),
        ({"image_shape": (1, 0, 28)}, r"all >= 1, got \(1, 0, 28\)"),
        ({"code_size": 0}, r"all >= 1, got \(1, 28, 28\), 0"),
        ({"widths": ()}, r"one width or more, .* 10 and \(\)"),
        ({"widths": (4, 0)}, r"10 and \(4, 0\)"),
        ({"code_size": 2.5}, "expected code_size to be an int, got 2.5"),
    ],
)
def test_sizes_that_make_no_network(settings: dict[str, object], message: str) -> None:
    with pytest.raises(GenclsError, match=f"^GenerativeAutoencoder: .*{message}"):
        GenerativeAutoencoder(**({"image_shape": (1, 28, 28)} | settings))  # type: ignore[arg-type]


def test_images_and_codes_of_another_size() -> None:
    network = GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(3,))
    for images in (
        torch.rand(2, 1, 8, 9),
        torch.rand(2, 3, 8, 8),
        torch.rand(1, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
    ):
        with pytest.raises(GenclsError, match=r"GenerativeAutoencoder: expected floating-point images of shape \(N, 1, 8, 8\)"):
            network.encode(images)
    for codes in (torch.rand(2, 5), torch.rand(4), torch.zeros(2, 4, dtype=torch.int64)):
        with pytest.raises(GenclsError, match=r"expected floating-point codes of shape \(N, 4\), got"):
            network.decode(codes)
