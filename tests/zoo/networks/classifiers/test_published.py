"""CIFAR10 classifiers in published layouts: against other libraries, real weights on real images, bad input."""

import argparse
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from gencls.core import GenclsError, fingerprint, seeded
from gencls.zoo import load, load_data
from gencls.zoo.networks import VGG_GROUPS, CifarPreActResNet, CifarResNet, CifarVGG, Normalization
from gencls.zoo.networks.classifiers.published import (
    KUANGLIU,
    akamaster_from_state,
    kuangliu_from_state,
    load_akamaster,
    load_autoattack_resnet18,
    load_kuangliu,
)
from gencls.zoo.networks.classifiers.robustbench import import_robustbench
from gencls.zoo.training.measure import accuracy

SHARED = Path(__file__).parents[5] / "shared"
WEIGHTS = Path(os.environ.get("GENCLS_WEIGHTS") or SHARED / "weights") / "cifar10-resnet-akamaster"
DATA = Path(os.environ.get("GENCLS_DATA") or SHARED / "data")


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def trained(network: nn.Module) -> nn.Module:
    """With statistics of batch norm that are not those of the start."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean):
                tensor.add_(0.2 * torch.randn_like(tensor))
            part.running_var.mul_(torch.rand_like(part.running_var) + 0.5)
    return network.eval().requires_grad_(False)


SMALL = {
    "ResNet": lambda: CifarResNet((1, 2, 1), width=4, num_classes=7),
    "PreActResNet": lambda: CifarPreActResNet((2, 1), width=4),
    "VGG": lambda: CifarVGG(((4,), (4, 6), (8,), (8,), (8, 4, 4)), num_classes=3),
}


@pytest.fixture(params=SMALL)
def small(request):
    return trained(SMALL[request.param]())


@pytest.fixture
def resnet():
    return trained(SMALL["ResNet"]())


def checkpoint(path, network, **changes):
    """As kuangliu's script writes it on a GPU."""
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"net": state, "acc": 95.4, "epoch": 199, **changes}, path)
    return path


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre_activation", [False, True])
def test_residual_networks_against_robustbenchs(pre_activation):
    import_robustbench()
    from robustbench.model_zoo.architectures import resnet as theirs

    if pre_activation:
        other = theirs.PreActResNet(theirs.PreActBlock, [1, 2, 1, 1], out_shortcut=True)
        ours = CifarPreActResNet((1, 2, 1, 1))
    else:
        other, ours = theirs.ResNet(theirs.BasicBlock, [1, 2, 1, 1]), CifarResNet((1, 2, 1, 1))
    ours.load_state_dict(trained(other).state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), other(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["VGG11", "VGG13", "VGG16", "VGG19"])
def test_vgg_against_torchvision(name):
    with torch.device("meta"):
        theirs, ours = (
            network.state_dict() for network in (getattr(models, f"{name.lower()}_bn")(), CifarVGG(VGG_GROUPS[name]))
        )
    features = {key: value.shape for key, value in theirs.items() if key.startswith("features.")}
    assert {key: value.shape for key, value in ours.items() if not key.startswith("classifier.")} == features
    if name != "VGG11":
        return
    other, network = trained(models.vgg11_bn(weights=None)), CifarVGG(VGG_GROUPS[name]).eval()
    network.features.load_state_dict(other.features.state_dict())
    images = torch.rand(2, 3, 32, 32)
    expected = network.classifier(other.features(images).flatten(1))
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


def test_shortcuts_without_parameters():
    network = CifarResNet((1, 1), width=4, projections=False).eval()
    block = network.layer2[0]
    for convolution in (block.conv1, block.conv2):
        convolution.weight.data.zero_()
    maps = torch.rand(2, 4, 6, 6)
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = maps[:, :, ::2, ::2]
    torch.testing.assert_close(block(maps), expected)
    assert not [key for key in network.state_dict() if "shortcut" in key]


@pytest.mark.parametrize(("size", "together"), [(28, True), (63, True), (64, False)])
def test_channels_lie_together_in_small_images_and_change_nothing(size, together):
    """In large ones torch's backward pass would write beyond its memory."""
    network = trained(CifarPreActResNet((1, 1), width=4, mean=(0.3,), std=(0.4,), image_size=size)).double()
    images, seen = torch.rand(2, 1, size, size, dtype=torch.float64, requires_grad=True), []
    hook = network.layer1.register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    found = network(images)
    hook.remove()
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == together
    expected = network.linear(network.layer2(network.layer1(network.conv1((images - 0.3) / 0.4))).mean((2, 3)))
    results = []
    for scores in (found, expected):
        (first,) = torch.autograd.grad(scores.square().sum(), images, create_graph=True)
        results.append((scores, first, *torch.autograd.grad(first.square().sum(), images)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_normalisation_is_inside_and_no_weight(small):
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in KUANGLIU.values())
    network = kuangliu_from_state(small.state_dict())
    torch.testing.assert_close(network(images), small((images - mean) / std))
    assert network.state_dict().keys() == small.state_dict().keys()
    assert fingerprint(network) != fingerprint(kuangliu_from_state(small.state_dict(), normalized=False))
    rounded = network.half().float()
    assert (rounded.normalization.mean, rounded.normalization.std) == (KUANGLIU["mean"], KUANGLIU["std"])
    with pytest.raises(GenclsError, match=r"expected as many means as std > 0, got \(0.5,\) and \(0.5, 0.5\)"):
        Normalization((0.5,), (0.5, 0.5))
    with pytest.raises(GenclsError, match="expected as many means as std > 0"):
        Normalization((0.5,), (0.0,))


@pytest.mark.parametrize("network", [CifarResNet, CifarPreActResNet])
def test_grey_images_of_another_size(network):
    grey = trained(network((1, 1), width=4, mean=(0.3,), std=(0.4,), image_size=28))
    colour = trained(network((1, 1), width=4, image_size=28))
    images = torch.rand(2, 1, 28, 28)
    state = colour.state_dict()
    colour.load_state_dict({**grey.state_dict(), "conv1.weight": state["conv1.weight"]})
    grey.conv1.weight.data.copy_(state["conv1.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(grey(images), colour(((images - 0.3) / 0.4).expand(-1, 3, -1, -1)))
    with pytest.raises(
        GenclsError, match=rf"{network.__name__}: expected floating-point images of shape \(N, 1, 28, 28\), got"
    ):
        grey(torch.rand(2, 1, 32, 32))
    for wrong in ({"image_size": 0}, {"mean": (), "std": ()}):
        with pytest.raises(GenclsError, match=rf"{network.__name__}: expected image_size >= 1 and a mean per channel, got "):
            network((1,), width=4, **wrong)


def test_images_of_another_shape(small):
    name = type(small).__name__
    for shape in ((2, 3, 64, 64), (2, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(GenclsError, match=rf"{name}: expected floating-point images of shape \(N, 3, 32, 32\), got"):
            small(torch.rand(shape))
    with pytest.raises(GenclsError, match="got torch.uint8"):
        small(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(GenclsError, match=r"CifarVGG: expected one to five groups of convolutions, got \(\(4,\), \(\)"):
        CifarVGG(((4,), (), (4,), (4,), (4,)))


# --- files -----------------------------------------------------------------------------------------------------------


def test_sizes_are_read_off_the_weights(small, tmp_path):
    images = torch.rand(2, 3, 32, 32)
    network = load_kuangliu(checkpoint(tmp_path / "ckpt.pth", small), normalized=False)
    assert type(network) is type(small)
    assert network.num_classes == small.num_classes
    assert torch.equal(network(images), small(images))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_alone_and_without_counters(small, tmp_path):
    state = {key: value for key, value in small.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "model.pt")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_kuangliu(tmp_path / "model.pt", normalized=False)(images), small(images))


def test_a_network_without_projections(tmp_path):
    network = trained(CifarResNet((1, 2, 1), width=4, projections=False))
    state = {f"module.{key}": value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save({"state_dict": state, "best_prec1": 91.78}, tmp_path / "resnet.th")
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(load_akamaster(tmp_path / "resnet.th")(images), network((images - mean) / std))
    with pytest.raises(GenclsError, match="CifarResNet checkpoint: expected other keys; missing: layer2.0.shortcut.0.weight"):
        kuangliu_from_state(network.state_dict())
    with pytest.raises(GenclsError, match="surplus: layer2.0.shortcut.0.weight"):
        akamaster_from_state(trained(CifarResNet((1, 1), width=4)).state_dict())


def test_missing_and_surplus_keys_and_other_shapes(small):
    state = small.state_dict()
    counted = [key for key in state if not key.endswith("num_batches_tracked")]
    for key in (counted[0], counted[-1], counted[len(counted) // 2]):
        with pytest.raises(GenclsError, match=f"{type(small).__name__} checkpoint: expected"):
            kuangliu_from_state({other: value for other, value in state.items() if other != key})
    with pytest.raises(GenclsError, match="surplus: head.weight$"):
        kuangliu_from_state({**state, "head.weight": torch.zeros(1)})
    with pytest.raises(GenclsError, match=rf"expected {counted[1]} of shape \(\d+,\); got \(9,\)"):
        kuangliu_from_state({**state, counted[1]: torch.zeros(9)})
    with pytest.raises(GenclsError, match=rf"expected {counted[-1]} of floating point numbers; got torch.int64"):
        kuangliu_from_state({**state, counted[-1]: state[counted[-1]].long()})


@pytest.mark.parametrize("state", [{}, {"conv.weight": torch.zeros(2, 2, 3, 3)}])
def test_weights_of_something_else(state):
    for build in (kuangliu_from_state, akamaster_from_state):
        with pytest.raises(
            GenclsError, match="checkpoint: expected conv1.weight of rank 4; got (no keys|keys conv.weight, ...)"
        ):
            build(state)


def test_files_of_something_else(resnet, tmp_path):
    path = tmp_path / "ckpt.pth"
    for content in ([1, 2], {"acc": 95.0, "epoch": 3}, {"net": 3}):
        torch.save(content, path)
        with pytest.raises(GenclsError, match="ckpt.pth: expected tensors by name; got (a list|a float|an int)"):
            load_kuangliu(path)
    path.write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(GenclsError, match="got an HTML page"):
        load_kuangliu(path)
    with pytest.raises(GenclsError, match="expected a weights file; got no such file"):
        load_akamaster(tmp_path / "resnet20.th")
    checkpoint(path, resnet, args=Fraction(1, 2))
    with pytest.raises(GenclsError, match=r"got a pickle with code or other objects \(fractions.Fraction\)"):
        load_kuangliu(path)


# --- real weights on real images -------------------------------------------------------------------------------------


@pytest.fixture
def exact():
    try:
        return load_data("cifar10-lossless", "test", root=DATA)
    except GenclsError as error:
        pytest.skip(f"needs CIFAR10-lossless-subset under ../shared/data or GENCLS_DATA: {error}")


@pytest.mark.parametrize(
    ("file", "sharp", "jpeg"), [("resnet20-12fca82f.th", 0.925, 0.81), ("resnet56-4bfd9763.th", 0.945, 0.83)]
)
def test_akamasters_networks_have_their_accuracy(file, sharp, jpeg, exact):
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"needs {file} in cifar10-resnet-akamaster under ../shared/weights or GENCLS_WEIGHTS")
    network = load_akamaster(WEIGHTS / file)
    # Published are 91.78 and 93.62 % on all test images; measured elsewhere on these 200.
    assert accuracy(network, exact.images, exact.labels) == pytest.approx(sharp, abs=0.005)
    try:
        lossy = load_data("cifar10-jpeg", "test", root=DATA, limit=300)
    except GenclsError as error:
        pytest.skip(f"needs CIFAR10-jpeg: {error}")
    assert accuracy(network, lossy.images, lossy.labels) == pytest.approx(jpeg, abs=0.07)  # three standard errors


def test_the_example_of_pyautoattack(exact):
    network = load_autoattack_resnet18()
    assert type(network) is CifarResNet
    assert accuracy(network, exact.images, exact.labels) == pytest.approx(0.95, abs=0.005)
    defense = load("resnet18-autoattack-cifar10")
    assert torch.equal(defense(exact.images[:2]), network(exact.images[:2]))


def test_another_example_of_pyautoattack(resnet, tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    spec = argparse.Namespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("gencls.zoo.networks.classifiers.published.find_spec", lambda name: spec)
    with pytest.raises(GenclsError, match="model_test.pt: expected a weights file; got no such file"):
        load_autoattack_resnet18()
    torch.save(resnet.state_dict(), tmp_path / "examples" / "model_test.pt")
    with pytest.raises(GenclsError, match="expected the file of pyautoattack 0.2.0, SHA-256 399f52da.*; got "):
        load_autoattack_resnet18()
    monkeypatch.setattr("gencls.zoo.networks.classifiers.published.find_spec", lambda name: None)
    with pytest.raises(GenclsError, match="expected the package pyautoattack, whose example it is; got none"):
        load_autoattack_resnet18()
