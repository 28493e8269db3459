"""Reading published checkpoints of BigGAN and FQ-GAN: layouts, classes, bad files."""

from collections import OrderedDict

import pytest
import torch
from torchvision.models import ResNet50_Weights

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import BigGAN, FQDiscriminator
from gencls.zoo.networks.gans.published import (
    IMAGENETTE,
    load_biggan,
    load_fq_discriminator,
    load_fqgan,
    load_imagenette_biggan,
)

LAYOUTS = {
    "imagenet": {"size": 128, "width": 8, "num_classes": 6, "latent_dim": 12, "shared_dim": 4, "attention": (16,)},
    "shared": {
        "size": 64,
        "width": 4,
        "num_classes": 4,
        "latent_dim": 7,
        "shared_dim": 5,
        "hierarchical": False,
        "attention": (8, 32),
    },
    "cifar10": {
        "size": 32,
        "width": 2,
        "num_classes": 10,
        "latent_dim": 6,
        "shared_dim": None,
        "hierarchical": False,
        "attention": (),
    },
    "large": {"size": 256, "width": 1, "num_classes": 2, "latent_dim": 14, "shared_dim": 3, "attention": (8,)},
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def made(**layout):
    with seeded(0):
        return BigGAN(**layout).eval()


@pytest.fixture
def write(tmp_path):
    def save(content, name="G_ema.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def same(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_layout_is_read_off_the_weights(layout, write):
    network = made(**layout)
    path = write(OrderedDict(network.state_dict()))
    for found in (load_biggan(path), load_biggan(path.parent, size=layout["size"])):
        assert same(found, network)
        assert not found.training
        assert not any(parameter.requires_grad for parameter in found.parameters())
        assert (found.size, found.num_classes, found.latent_shapes) == (
            network.size,
            network.num_classes,
            network.latent_shapes,
        )
    if layout["size"] < 128:
        latents, labels = (torch.randn(2, *network.latent_shapes[0]),), torch.tensor([0, 3])
        torch.testing.assert_close(found(latents, labels), network(latents, labels))


def test_a_state_dict_of_parallel_training(write):
    network = made(**LAYOUTS["cifar10"])
    assert same(load_biggan(write({f"module.{key}": value for key, value in network.state_dict().items()})), network)


def test_eps_are_those_of_the_scripts_or_given(write):
    for name, expected in (("imagenet", 1e-6), ("cifar10", 1e-8)):
        path = write(made(**LAYOUTS[name]).state_dict())
        assert load_biggan(path).linear.sn_eps == expected
        found = load_biggan(path, sn_eps=1e-3, bn_eps=1e-2)
        assert (found.linear.sn_eps, found.blocks[0][0].bn1.eps, found.output_layer[0].eps) == (1e-3, 1e-2, 1e-5)


@pytest.mark.parametrize("name", ["shared", "cifar10"])
def test_a_choice_of_classes(write, name):
    network = made(**LAYOUTS[name])
    chosen = load_biggan(write(network.state_dict()), classes=(3, 1), truncation=0.5)
    assert (chosen.num_classes, chosen.truncation) == (2, 0.5)
    latents = (torch.randn(2, *network.latent_shapes[0]),)
    torch.testing.assert_close(chosen(latents, torch.tensor([0, 1])), network(latents, torch.tensor([3, 1])))
    with pytest.raises(
        GenclsError, match=r"expected labels in 0 .. 1, since the generator has 2 classes; got labels from 0 to 2"
    ):
        chosen(latents, torch.tensor([0, 2]))


def test_imagenettes_classes_by_the_names_of_torchvision():
    names = [ResNet50_Weights.DEFAULT.meta["categories"][number] for number in IMAGENETTE]
    assert names == [
        "tench", "English springer", "cassette player", "chain saw", "church",
        "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
    ]  # fmt: skip


def test_the_generator_of_imagenette(write):
    network = made(**{**LAYOUTS["imagenet"], "num_classes": 1000, "width": 2, "attention": ()})
    found = load_imagenette_biggan(write(network.state_dict()).parent, truncation=0.7)
    assert (found.num_classes, found.truncation) == (10, 0.7)
    assert torch.equal(found.shared.weight, network.shared.weight[list(IMAGENETTE)])


def test_fqgan(write):
    network = made(**LAYOUTS["cifar10"])
    assert same(load_fqgan(write(network.state_dict())), network)


def test_fqgans_discriminator(write, tmp_path):
    with seeded(0):
        network = FQDiscriminator(width=2, num_classes=3, quantized=(0, 2), codes=5).eval()
    found = load_fq_discriminator(write(network.state_dict(), "D.pth"))
    assert same(found, network)
    assert same(load_fq_discriminator(tmp_path), network)
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    torch.testing.assert_close(found(images, labels), network(images, labels))


BAD_SETTINGS = {
    "another size": (
        {"size": 128},
        "expected a BigGAN of 128 pixels; got one of 32 pixels, width 2, 10 classes, latents of 6 numbers, no shared "
        "embedding, no attention",
    ),
    "too few classes": (
        {"classes": IMAGENETTE},
        "expected a generator with at least 702 classes, since class 701 is asked for; got one with 10",
    ),
    "no classes": ({"classes": ()}, "expected classes as different numbers >= 0, at least one"),
    "a class twice": ({"classes": (1, 1)}, "expected classes as different numbers"),
    "a class below 0": ({"classes": (-1, 1)}, "expected classes as different numbers"),
    "truncation": ({"truncation": 0}, "expected truncation > 0, got 0"),
}
BAD_TENSORS = {
    "another width": (
        {"blocks.1.0.bn1.stored_mean": torch.zeros(4)},
        r"expected blocks of \[8, 8, 8\] channels, as in the layout of 32 pixels, width 2, .*; got \[8, 4, 8\]",
    ),
    "another count": (
        {"blocks.7.0.conv1.weight": torch.zeros(1)},
        r"expected as many blocks as a layout of 3 \(32 pixels\), .* 7 \(512 pixels\) has; got 8",
    ),
    "another shape": (
        {"blocks.0.0.conv2.bias": torch.zeros(5)},
        r"BigGAN \(32 pixels\) checkpoint: expected blocks.0.0.conv2.bias of shape \(8,\); got \(5,\)",
    ),
    "another rank": ({"linear.weight": torch.zeros(5)}, r"expected linear.weight of rank 2; got shape \(5,\)"),
    "surplus": (
        {"blocks.0.0.conv9.bias": torch.zeros(5)},
        "expected other keys; missing: none; surplus: blocks.0.0.conv9.bias",
    ),
    "deep": (
        {"blocks.0.0.conv3.weight": torch.zeros(5)},
        "expected a generator of BigGAN-PyTorch for 32, 64, 128, 256, 512 pixels; got BigGAN-deep",
    ),
    "other batch norm": ({"blocks.0.0.bn1.bn.stored_mean": torch.zeros(5)}, "got a generator with another batch norm"),
    "a negative variance": (
        {"output_layer.0.stored_var": torch.full((2,), -0.5)},
        "expected output_layer.0.stored_var of variances >= 0; got -0.5",
    ),
    "NaN": ({"linear.bias": torch.full((128,), float("nan"))}, "expected linear.bias of finite numbers; got NaN"),
}


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings(write, settings, message):
    path = write(made(**LAYOUTS["cifar10"]).state_dict())
    with pytest.raises(GenclsError, match=message):
        load_biggan(path, **settings)


@pytest.mark.parametrize(("tensors", "message"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_bad_files(write, tensors, message):
    path = write({**made(**LAYOUTS["cifar10"]).state_dict(), **tensors})
    with pytest.raises(GenclsError, match=message) as caught:
        load_biggan(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_networks(write):
    discriminator = FQDiscriminator(width=1, codes=2).state_dict()
    with pytest.raises(GenclsError, match="expected a generator of BigGAN-PyTorch for .*; got a discriminator of FQ-GAN"):
        load_fqgan(write(discriminator))
    with pytest.raises(GenclsError, match="G_ema.pth: BigGAN checkpoint: .* got keys conv.weight, conv.bias, ..."):
        load_biggan(write({"conv.weight": torch.zeros(1), "conv.bias": torch.zeros(1)}))
    with pytest.raises(GenclsError, match=r"G_ema.pth: FQDiscriminator checkpoint: expected embed.weight of rank 2; got keys"):
        load_fq_discriminator(write(made(**LAYOUTS["cifar10"]).state_dict()))
    with pytest.raises(GenclsError, match="expected a BigGAN of 32 pixels; got one of 64 pixels"):
        load_fqgan(write(made(**LAYOUTS["shared"]).state_dict()))


def test_missing_files(tmp_path):
    with pytest.raises(GenclsError, match=r"G_ema.pth: expected a weights file; got no such file"):
        load_biggan(tmp_path)
    with pytest.raises(GenclsError, match=r"other.pth: expected a weights file; got no such file"):
        load_imagenette_biggan(tmp_path / "other.pth")
