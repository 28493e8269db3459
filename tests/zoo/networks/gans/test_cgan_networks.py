"""The networks of the conditional GAN: shapes, codes, spectral norms, the projection by hand."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import ProjectionDiscriminator, SelfModulatedGenerator
from tests.plain_generator import PlainGenerator

SHAPES = [(1, 28, 28), (3, 32, 32)]


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0):
        yield


def generator(shape: tuple[int, ...] = (1, 28, 28), **settings: Any) -> SelfModulatedGenerator:
    return SelfModulatedGenerator(**({"num_classes": 3, "latent_dim": 5, "width": 4, "image_shape": shape} | settings))


def discriminator(shape: tuple[int, ...] = (1, 28, 28), **settings: Any) -> ProjectionDiscriminator:
    return ProjectionDiscriminator(**({"num_classes": 3, "width": 4, "image_shape": shape} | settings))


@pytest.mark.parametrize(("shape", "blocks", "start"), [((1, 28, 28), 2, 7), ((3, 32, 32), 3, 4), ((1, 8, 8), 1, 4)])
def test_sizes_follow_from_the_images(shape: tuple[int, ...], blocks: int, start: int) -> None:
    network = generator(shape).eval()
    assert (network.num_blocks, network.start) == (blocks, start)
    images = network(network.sample_latents(4), torch.tensor([0, 1, 2, 2]))
    assert images.shape == (4, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    assert discriminator(shape)(images, torch.tensor([0, 1, 2, 2])).shape == (4,)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_latent_is_the_same_code_everywhere(shape: tuple[int, ...]) -> None:
    network, labels = generator(shape).eval(), torch.tensor([0, 1])
    (latent,) = network.sample_latents(2)
    assert torch.equal(network((latent,), labels), network.decode_codes((latent,) * (1 + network.num_blocks), labels))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_code_matters(shape: tuple[int, ...]) -> None:
    network = generator(shape).eval()
    codes = tuple(torch.randn(2, 5, requires_grad=True) for _ in range(1 + network.num_blocks))
    images = network.decode_codes(codes, torch.tensor([0, 1]))
    for gradient in torch.autograd.grad(images.square().sum(), codes):
        assert gradient.norm(dim=1).min() > 1e-4


def test_the_class_matters() -> None:
    network = generator().eval()
    (latent,) = network.sample_latents(1)
    images = network((latent.repeat(3, 1),), torch.arange(3))
    assert torch.pdist(images.flatten(1)).min() > 1e-3


def test_the_modulation_by_hand() -> None:
    """Gains and biases come from z + E(y) + E'(y) * z."""
    network = generator().eval()
    seen: dict[str, torch.Tensor] = {}

    def note(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        seen["code"] = arguments[0]

    network.blocks[0].get_submodule("norm1").get_submodule("hidden").register_forward_pre_hook(note)
    code, others = torch.randn(2, 5), torch.randn(2, 5)
    labels = torch.tensor([2, 0])
    network.decode_codes((others, code, others), labels)
    expected = code + network.shift.weight[labels] + network.scale.weight[labels] * code
    torch.testing.assert_close(seen["code"], expected)

    norm = network.blocks[0].get_submodule("norm1")
    maps = torch.randn(2, 16, 7, 7)
    hidden = norm.get_submodule("hidden")(code).clamp(min=0)
    gain, bias = norm.get_submodule("gain_and_bias")(hidden).split(16, dim=1)
    assert (gain - 1).abs().max() < 1  # plain at the start
    plain = maps / (1 + 1e-5) ** 0.5  # running mean 0 and variance 1
    torch.testing.assert_close(norm(maps, code), gain[..., None, None] * plain + bias[..., None, None])


def settled(shape: tuple[int, ...]) -> SelfModulatedGenerator:
    """A generator whose batch norms have seen something and whose codes matter much, in double precision."""
    network = generator(shape).double().eval()
    for name, buffer in network.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 2.0)
    nn.init.normal_(network.scale.weight)
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_images_and_two_derivatives_are_those_of_the_plain_formula(shape: tuple[int, ...]) -> None:
    network, labels = settled(shape), torch.tensor([0, 2, 1])
    results = []
    for made in (network, PlainGenerator(network)):
        latent = torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5).requires_grad_()
        images = made((latent,), labels)
        assert images.is_contiguous()
        (first,) = torch.autograd.grad((images - 0.3).square().sum(), latent, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), latent)
        results.append((images, first, second))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
    single = tuple(made.float()((latent.float(),), labels) for made in (network, PlainGenerator(network)))
    torch.testing.assert_close(*single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_is_that_of_the_plain_formula(shape: tuple[int, ...]) -> None:
    network, labels = settled(shape).train(), torch.tensor([0, 2, 1, 1])
    other = copy.deepcopy(network)
    (latent,) = network.sample_latents(4)
    for made in (network, PlainGenerator(other)):
        (made((latent,), labels) - 0.3).square().sum().backward()
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-10, msg=name)
    torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=1e-12, atol=1e-12)


def matrices(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that the layers use, each as a matrix with a row for each output channel."""
    weights = {}
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            weights[name] = module.weight.detach().flatten(1)
    return weights


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_has_spectral_norm_one(shape: tuple[int, ...]) -> None:
    network = discriminator(shape, auxiliary=True).train()
    for _ in range(100):  # one power iteration each; in eval mode there are none
        matrices(network)
    found = matrices(network.eval())
    assert {"first", "head", "classes", "scores", "blocks.0.conv1", "blocks.0.skip"} < set(found)
    for matrix in found.values():
        assert float(torch.linalg.svdvals(matrix)[0]) == pytest.approx(1.0, abs=1e-3)


def test_weights_in_half_precision_keep_the_norm() -> None:
    network = discriminator().train()
    for _ in range(100):
        matrices(network)
    for matrix in matrices(network.half().float().eval()).values():
        assert float(torch.linalg.svdvals(matrix)[0]) == pytest.approx(1.0, abs=5e-3)


def test_the_projection_by_hand() -> None:
    network = discriminator(auxiliary=True).eval().requires_grad_(False)
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 2, 1, 1])
    features = network.features(images)
    assert features.shape == (4, 8)
    assert features.min() >= 0
    embedded, head = network.classes.weight, network.head
    rows = zip(features, labels, strict=True)
    expected = [embedded[label] @ phi + head.weight[0] @ phi + head.bias[0] for phi, label in rows]
    torch.testing.assert_close(network(images, labels), torch.stack(expected))
    assert network.classify(features).shape == (4, 3)


def test_the_discriminator_judges_each_image_alone() -> None:
    network = discriminator().eval()
    images, labels = torch.rand(3, 1, 28, 28), torch.arange(3)
    torch.testing.assert_close(network(images, labels)[1:2], network(images[1:2], labels[1:2]))


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(GenclsError, match=r"expected image_shape \(C, H, W\) with H = W .* got \(1, 28, 30\)"):
        generator((1, 28, 30))
    with pytest.raises(GenclsError, match=r"halves to less than 8 pixels, as 28 and 32 do, got \(1, 27, 27\)"):
        discriminator((1, 27, 27))
    with pytest.raises(GenclsError, match="num_classes, latent_dim and width of at least 1, got 3, 0 and 4"):
        generator(latent_dim=0)
    with pytest.raises(GenclsError, match="num_classes and width of at least 1, got 3 and 0"):
        discriminator(width=0)
    network = generator()
    with pytest.raises(GenclsError, match="expected 3 codes, of the first layer and of 2 blocks, got 2"):
        network.decode_codes((torch.zeros(1, 5),) * 2, torch.tensor([0]))
    codes, labels = (torch.zeros(2, 5),) * 3, torch.tensor([0, 2])
    for wrong, message in (
        (torch.tensor([0, 3]), "expected labels in 0 .. 2, since the generator has 3 classes; got labels from 0 to 3"),
        (torch.tensor([-1, 0]), "got labels from -1 to 0"),
        (torch.zeros(2), r"expected labels int64 of shape \(2,\), one for each latent; got torch.float32"),
    ):
        with pytest.raises(GenclsError, match=f"SelfModulatedGenerator: .*{message}"):
            network(codes[:1], wrong)
        with pytest.raises(GenclsError, match=f"SelfModulatedGenerator: .*{message}"):
            network.decode_codes(codes, wrong)
    with pytest.raises(GenclsError, match=r"expected one level of latents, of shape \(2, 5\); got \[\(2, 6\)\]"):
        network((torch.zeros(2, 6),), labels)
    with pytest.raises(GenclsError, match=r"expected one level of latents, of shape \(6, 5\); got \[\(4, 5\)\]"):
        network.decode_all((torch.zeros(2, 2, 5),))
    with pytest.raises(GenclsError, match=r"expected codes of shape \(2, 5\), got \(2, 5\), \(2, 6\)"):
        network.decode_codes((*codes[:2], torch.zeros(2, 6)), labels)
    with pytest.raises(GenclsError, match="expected auxiliary=True for class scores, got False"):
        discriminator().classify(torch.zeros(1, 8))
