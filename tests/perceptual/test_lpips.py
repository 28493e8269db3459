import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gencls.core import GenclsError
from gencls.perceptual import LPIPS
from gencls.perceptual.trunks import TRUNKS
from tests.perceptual.lpips_models import NETS, official

WEIGHTS = Path(os.environ.get("GENCLS_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")
TOLERANT = "shift-tolerant-alex"


@pytest.fixture
def pair():
    return tuple(torch.rand(2, 2, 3, 33, 36, dtype=torch.float64))


@pytest.fixture(scope="module")
def squeeze():
    return official("squeeze")[1]


def tolerant_weights(net=TOLERANT):
    """Random weights in the layout of the package stlpips-pytorch."""
    torch.manual_seed(0)
    trunk = TRUNKS[net].make()
    slices = [sum(int(name.split(".")[0]) > end for end in trunk.taken) + 1 for name in trunk.state_dict()]
    named = {f"net.slice{k}.{name}": value for k, (name, value) in zip(slices, trunk.state_dict().items(), strict=True)}
    channels = [part.shape[1] for part in trunk(torch.rand(1, 3, 32, 32))]
    return named | {f"lin{k}.model.1.weight": torch.rand(1, count, 1, 1) for k, count in enumerate(channels)}


@pytest.mark.parametrize(
    ("net", "heads"),
    [
        *((net, True) for net in NETS),
        ("squeeze", False),
        *(pytest.param(net, False, marks=pytest.mark.slow) for net in NETS[:2]),
    ],
)
def test_equals_the_package(pair, net, heads):
    theirs, weights = official(net, heads=heads)
    expected = theirs.double()(*pair, normalize=True).flatten()
    found = LPIPS(weights, net, lpips=heads).double()(*pair)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.max().item())


def test_equals_the_package_in_float32(pair):
    theirs, weights = official("squeeze")
    first, second = (images.float() for images in pair)
    found = LPIPS(weights, "squeeze")(first, second)
    torch.testing.assert_close(found, theirs(first, second, normalize=True).flatten(), rtol=1e-5, atol=1e-6)


def test_gradients_of_the_package(pair):
    theirs, weights = official("squeeze")
    gradients = []
    for distance in (lambda a, b: theirs.double()(a, b, normalize=True), LPIPS(weights, "squeeze").double()):
        images = pair[0].clone().requires_grad_()
        gradients.append(torch.autograd.grad(distance(images, pair[1]).sum(), images)[0])
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("net", "bound"), [("vgg", 5.44), ("alex", 7.73)])
def test_the_most_that_lpips_can_be(net, bound):
    """Features have length 1 and are no less than 0. So at worst each image has one channel alone, and these weigh most.

    The mean over the places is no larger. Table 3.8 of the thesis prints a mean of 6.56.
    """
    distance = LPIPS(official(net)[1], net)
    heads = [distance.get_buffer(f"head{layer}") for layer in range(5)]
    assert all(bool((head >= 0).all()) for head in heads)
    worst = [[F.one_hot(head.topk(2).indices[i], len(head)).float().view(1, -1, 1, 1) for head in heads] for i in (0, 1)]
    most = float(distance.compare(*map(tuple, worst)))
    assert most == pytest.approx(bound, abs=0.005)
    features = [tuple(F.normalize(torch.rand(300, len(head), 1, 1) ** 30, dim=1) for head in heads) for _ in range(2)]
    assert float(distance.compare(*features).max()) < most


def test_rescaled_images(squeeze):
    first, second = torch.rand(2, 3, 3, 12, 12)
    larger = (F.interpolate(images, (64, 64), mode="bilinear", align_corners=False) for images in (first, second))
    assert torch.equal(LPIPS(squeeze, "squeeze", size=64)(first, second), LPIPS(squeeze, "squeeze")(*larger))


def test_grey_images(squeeze):
    first, second = torch.rand(2, 3, 1, 32, 32)
    with pytest.raises(GenclsError, match=r"LPIPS: expected images with 3 channels.*set grey_as_rgb=True"):
        LPIPS(squeeze, "squeeze")(first, second)
    found = LPIPS(squeeze, "squeeze", grey_as_rgb=True)(first, second)
    assert torch.equal(found, LPIPS(squeeze, "squeeze")(first.repeat(1, 3, 1, 1), second.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("heads", [True, False])
def test_pixels_without_features_have_two_finite_derivatives(squeeze, heads):
    """A bias far below 0 leaves no feature at any pixel of the first map, nor behind it."""
    dead = squeeze | {"features.0.bias": torch.full_like(squeeze["features.0.bias"], -100.0)}
    distance = LPIPS(dead, "squeeze", lpips=heads)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert not distance.embed(images)[0].any()
    (first,) = torch.autograd.grad(distance(images, torch.rand(2, 3, 32, 32)).sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert not first.any()
    assert not second.any()


def test_a_file_of_weights(squeeze, tmp_path, pair):
    torch.save(squeeze | {"classifier.1.weight": torch.zeros(3)}, tmp_path / "trunk.pth")
    torch.save({"state_dict": squeeze}, tmp_path / "nested.pth")
    expected = LPIPS(squeeze, "squeeze").double()(*pair)
    for file in (tmp_path / "trunk.pth", str(tmp_path / "nested.pth")):
        assert torch.equal(LPIPS(file, "squeeze").double()(*pair), expected)


def test_blur_is_the_binomial_filter():
    trunk = TRUNKS[TOLERANT].make()
    image = torch.rand(1, 64, 6, 6)
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    taps = [1, 2, 1]
    expected = sum(taps[i] * taps[j] * padded[..., i : i + 8 : 2, j : j + 8 : 2] for i in range(3) for j in range(3)) / 16
    torch.testing.assert_close(trunk[1](image), expected)


@pytest.mark.parametrize("net", ["shift-tolerant-alex", pytest.param("shift-tolerant-vgg", marks=pytest.mark.slow)])
def test_shift_tolerant_weights_load_by_their_layout(net, pair):
    weights = tolerant_weights(net)
    assert (LPIPS(weights, net).double()(*pair) > 0).all()
    del weights["lin2.model.1.weight"]
    with pytest.raises(GenclsError, match="expected lin2.model.1.weight of shift-tolerant .*, got none in the tensors"):
        LPIPS(weights, net)
    assert (LPIPS(weights, net, lpips=False).double()(*pair) > 0).all()


def test_values_of_the_shift_tolerant_package():
    """Values of the code of stlpips-pytorch 0.0.2 with these weights, in float32; but its shift and scale are not rounded."""
    file = WEIGHTS / "stlpips" / "alex_shift_tolerant_fp16.pth"
    if not file.is_file():
        pytest.skip(f"no {file}; GENCLS_WEIGHTS may name the folder of stlpips")
    ramp = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    waves = (torch.arange(3 * 64 * 64).view(1, 3, 64, 64) * 0.7).sin() / 2 + 0.5
    found = LPIPS(file, TOLERANT)(ramp.expand(2, -1, -1, -1), torch.cat((waves, (ramp + waves) / 2)))
    torch.testing.assert_close(found, torch.tensor([0.963224530, 0.836559534]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("missing/vgg.pth",),
            r"expected torchvision's file vgg16-397923af.pth, from https://.*, as missing/vgg.pth, got no such",
        ),
        (
            (),
            r"expected trunk, the weights of VGG-16, got none; take torchvision's file vgg16-397923af.pth, from https://download",
        ),
        (
            ({}, "alex"),
            "expected features.0.weight of AlexNet, got none in the tensors that were given; take torchvision's file al",
        ),
        (({}, TOLERANT), "expected features.0.weight of shift-tolerant AlexNet, got none"),
    ],
)
def test_missing_weights(arguments, message):
    with pytest.raises(GenclsError, match=f"LPIPS: {message}"):
        LPIPS(*arguments)


def test_no_package_with_the_shift_tolerant_weights(monkeypatch):
    monkeypatch.setattr("gencls.perceptual.published.find_spec", lambda name: None)
    with pytest.raises(GenclsError, match="take the file vgg_shift_tolerant.pth of the package stlpips-pytorch"):
        LPIPS(net="shift-tolerant-vgg")
    with pytest.raises(GenclsError, match="expected the package lpips, which holds the learned weights"):
        LPIPS(official("squeeze")[1], "squeeze")


def test_weights_of_another_network(squeeze, tmp_path):
    with pytest.raises(GenclsError, match=r"features.0.weight of shape \(64, 3, 11, 11\), as in AlexNet, got \(64, 3, 3, 3\)"):
        LPIPS(squeeze | {f"features.{k}.{kind}": torch.zeros(1) for k in (3, 6, 8, 10) for kind in ("weight", "bias")}, "alex")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(GenclsError, match=r"expected torchvision's file .*, got .*page.pth, which torch.load cannot read"):
        LPIPS(tmp_path / "page.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(GenclsError, match="list.pth with list inside"):
        LPIPS(tmp_path / "list.pth")


@pytest.mark.parametrize("net", [net for net in TRUNKS if net != "dists"])
def test_small_images(net):
    weights = tolerant_weights(net) if "tolerant" in net else official(net)[1]
    distance, smallest = LPIPS(weights, net), TRUNKS[net].smallest
    images = torch.rand(1, 3, smallest, smallest)
    assert distance(images, 1 - images).isfinite().all()
    with pytest.raises(
        GenclsError, match=rf"at least {smallest} x {smallest} pixels for .*, got {smallest - 1} x {smallest}; set size="
    ):
        distance.embed(images[:, :, 1:])


def test_wrong_size(squeeze):
    with pytest.raises(GenclsError, match="LPIPS: expected size >= 1 pixel, got 0"):
        LPIPS(squeeze, "squeeze", size=0)


@pytest.mark.slow
def test_no_heavy_package_is_imported(tmp_path):
    torch.save(official("squeeze")[1], tmp_path / "trunk.pth")
    code = "import sys, gencls.perceptual as p; p.LPIPS(sys.argv[1], 'squeeze'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "trunk.pth"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"lpips", "torchvision", "torchmetrics", "scipy"} & set(done.stdout.split())
