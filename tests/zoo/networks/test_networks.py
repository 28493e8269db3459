"""Architectures of Table 2.1 and the folding of K decoders into one network."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import (
    CNN,
    PHOTOS,
    ClassConditionalAutoencoder,
    ClassDecoders,
    ConvDecoder,
    ConvEncoder,
    ConvLayer,
    DecoderStage,
    GroupedDecoders,
    LatentDiscriminator,
    find_architecture,
    official_abs_decoders,
)

COLUMNS = ("mnist", "supertraffic10", "svhn", *PHOTOS)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def with_statistics(module: nn.Module) -> nn.Module:
    """As after training: statistics, scales and offsets of batch norm that are not those of a new network."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias)
    return module.eval().requires_grad_(False)


def tiny_decoders(num_classes: int = 3) -> ClassDecoders:
    layers = [ConvLayer(4, 3, 1, 0), ConvLayer(3, 3, 2, 1), ConvLayer(2, 1, 1, 0)]
    return with_statistics(ClassDecoders(ConvDecoder(2, layers) for _ in range(num_classes)))


@pytest.mark.parametrize("column", COLUMNS)
def test_the_columns_of_the_table_fit_their_images(column: str) -> None:
    table = find_architecture(column)
    images = torch.rand(2, table.in_channels, table.image_size, table.image_size)
    assert CNN.from_architecture(column).eval()(images).shape == (2, 10)
    latents = torch.randn(2, 10, table.latent_dim)
    assert ClassDecoders.from_architecture(column).eval()(latents).shape == (2, 10, *images.shape[1:])


def test_number_of_parameters_of_the_mnist_cnn() -> None:
    convolutions = 16 * 25 + 32 * 16 * 25 + 64 * 32 * 25 + 64 * 64 * 16
    norms = 2 * (16 + 32 + 64 + 64)
    head = 64 * 3 * 3 * 10 + 10
    count = sum(parameter.numel() for parameter in CNN.from_architecture("mnist").parameters())
    assert count == convolutions + norms + head


def test_unknown_column() -> None:
    with pytest.raises(GenclsError, match="unknown architecture 'cifar'; expected one of mnist"):
        find_architecture("cifar")


def test_kernel_larger_than_the_image() -> None:
    with pytest.raises(GenclsError, match="encoder layer 1: expected an input of at least 5 pixels"):
        ConvEncoder(1, 8, [ConvLayer(4, 5, 2, 0), ConvLayer(4, 5, 1, 0)])


def test_an_image_passes_only_through_the_networks_of_its_class() -> None:
    network = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=3, dropout=0.0, adversarial=True).eval()
    images, labels = torch.rand(6, 1, 28, 28), torch.tensor([2, 0, 2, 2, 0, 2])
    mean, log_variance = network.encode(images, labels)
    decoded, logits = network.decode(mean, labels), network.discriminate(mean, labels, frozen=False)
    for row, label in enumerate(labels):
        expected = network.encoders[label](images[row : row + 1])
        torch.testing.assert_close(mean[row], expected[0][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(log_variance[row], expected[1][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(decoded[row], network.decoders[label](mean[row : row + 1])[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(logits[row], network.discriminators[label](mean[row]), rtol=0, atol=1e-5)
    (decoded.sum() + logits.sum()).backward()
    for parts in (network.decoders.decoders, network.discriminators, network.encoders):
        assert [any(p.grad is not None for p in part.parameters()) for part in parts] == [True, False, True]


@pytest.mark.parametrize("shared", [False, True])
def test_what_inference_asks_the_autoencoder(shared: bool) -> None:
    network = ClassConditionalAutoencoder.from_architecture(
        "svhn", num_classes=3, dropout=0.0, shared_encoder=shared, adversarial=True
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, log_variance = network.class_encoders(images)
    assert mean.shape == log_variance.shape == (2, 3, 40)
    assert network.class_discriminators is not None
    logits = network.class_discriminators(mean)
    assert logits.shape == (2, 3)
    for k in range(3):
        labels = torch.full((2,), k)
        expected = network.encode(images, labels)
        torch.testing.assert_close(mean[:, k], expected[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(logits[:, k], network.discriminate(expected[0], labels, frozen=True), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        network.decode_all(mean[:, 0])[:, 1], network.decode(mean[:, 0], torch.ones(2, dtype=torch.int64)), rtol=0, atol=1e-5
    )


def test_a_frozen_discriminator_collects_no_gradients() -> None:
    discriminator = LatentDiscriminator(4, (8, 6))
    latents = torch.randn(5, 4, requires_grad=True)
    discriminator.frozen(latents).sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    torch.testing.assert_close(discriminator.frozen(latents), discriminator(latents))


def test_autoencoders_of_parts_that_do_not_fit() -> None:
    whole = ClassConditionalAutoencoder.from_architecture("mnist", num_classes=3)
    encoders = [whole.encoders[0], whole.encoders[1]]
    with pytest.raises(GenclsError, match="expected 1 or 3 encoders, got 2"):
        ClassConditionalAutoencoder(encoders, whole.decoders)  # type: ignore[arg-type]
    with pytest.raises(GenclsError, match=r"expected as many discriminators as encoders \(1\) or none, got 2"):
        ClassConditionalAutoencoder(encoders[:1], whole.decoders, [LatentDiscriminator(10, (4,))] * 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", COLUMNS)
def test_grouped_decoders_equal_the_loop(column: str) -> None:
    decoders = with_statistics(ClassDecoders.from_architecture(column))
    grouped = GroupedDecoders.from_decoders(decoders)
    latents = torch.randn(5, 10, find_architecture(column).latent_dim)
    expected = decoders(latents)
    torch.testing.assert_close(grouped.decode_all((latents,)), expected, rtol=0, atol=1e-5)
    labels = torch.arange(10).repeat(5)
    order = torch.randperm(50)  # labels in any order, classes unequally often
    chosen = order[:23]
    decoded = grouped((latents.flatten(0, 1)[chosen],), labels[chosen])
    torch.testing.assert_close(decoded, expected.flatten(0, 1)[chosen], rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="the convolutions of other machines may round by batch")
def test_decoding_does_not_depend_on_the_batch() -> None:
    grouped = GroupedDecoders.from_decoders(with_statistics(ClassDecoders.from_architecture("mnist")))
    latents, targets = torch.randn(33, 10, 10), torch.rand(33, 1, 1, 28, 28)

    def decode_and_differentiate(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, gradients = [], []
        for part, target in zip(latents.split(size), targets.split(size), strict=True):
            codes = part.clone().requires_grad_()
            decoded = grouped.decode_all((codes,))
            images.append(decoded.detach())
            gradients.append(torch.autograd.grad((decoded - target).square().sum(), codes)[0])
        return torch.cat(images), torch.cat(gradients)

    whole = decode_and_differentiate(33)
    for size in (1, 2, 7, 16):
        for found, expected in zip(decode_and_differentiate(size), whole, strict=True):
            assert torch.equal(found, expected)


def test_grouped_decoders_are_a_frozen_generator() -> None:
    grouped = GroupedDecoders.from_decoders(tiny_decoders())
    assert list(grouped.parameters()) == []
    assert not any(buffer.requires_grad for buffer in grouped.buffers())
    assert grouped.num_classes == 3
    assert grouped.latent_shapes == (torch.Size([2]),)
    assert grouped.sample_latents(7)[0].shape == (7, 2)
    latents = torch.randn(4, 2)
    torch.testing.assert_close(grouped.log_prior((latents,)), -latents.square().sum(1) / 2)
    copy = GroupedDecoders.from_decoders(tiny_decoders())
    copy.load_state_dict(grouped.state_dict())
    codes = (torch.randn(2, 3, 2),)
    assert torch.equal(copy.decode_all(codes), grouped.decode_all(codes))


def test_gradients_of_both_orders_match_finite_differences() -> None:
    # Smooth activations: at the kink of ReLU there are no derivatives to compare.
    decoders = [
        [
            DecoderStage(nn.ConvTranspose2d(2, 3, 2), with_statistics(nn.BatchNorm2d(3)), "elu"),
            DecoderStage(nn.ConvTranspose2d(3, 1, 3, 2, 1), None, "sigmoid"),
        ]
        for _ in range(2)
    ]
    grouped = GroupedDecoders(decoders).double()
    latents = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(lambda z: grouped.decode_all((z,)), latents)
    assert torch.autograd.gradgradcheck(lambda z: grouped.decode_all((z,)), latents)
    chosen = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: grouped((z,), labels), chosen)
    assert torch.autograd.gradgradcheck(lambda z: grouped((z,), labels), chosen)


def test_decoders_of_different_layouts() -> None:
    layers = [ConvLayer(4, 3, 1, 0), ConvLayer(1, 3, 1, 0)]
    with pytest.raises(GenclsError, match="expected decoders of one layout; decoder 0 is .* decoder 1 is"):
        GroupedDecoders.from_decoders(ClassDecoders([ConvDecoder(2, layers), ConvDecoder(3, layers)]))
    with pytest.raises(GenclsError, match="at least one decoder"):
        GroupedDecoders([])


def test_official_abs_checkpoint_that_is_none() -> None:
    with pytest.raises(GenclsError, match=r"expected keys VAE_0.Decoder.conv_0.weight, ...; got conv1.weight"):
        official_abs_decoders({"conv1.weight": torch.zeros(1)})
    with pytest.raises(GenclsError, match=r"expected VAE_0.Decoder.conv_0.weight of rank 4, got nothing"):
        official_abs_decoders({"VAE_0.Decoder.conv_0.bias": torch.zeros(1)})
