from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F

from gencls.core import GenclsError
from gencls.perceptual import DISTS
from tests.perceptual.lpips_models import official


@pytest.fixture(scope="module")
def weights():
    return official("vgg")[1]


@pytest.fixture
def pair():
    return tuple(torch.rand(2, 2, 3, 24, 20, dtype=torch.float64))


def by_torchmetrics(weights):
    """The network of torchmetrics, which would download its VGG-16."""
    from torchmetrics.functional.image import dists
    from torchvision.models import vgg

    def without_classifier(**_):
        features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
        features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
        return type("Network", (), {"features": features})

    with patch.object(dists, "vgg16", without_classifier):
        return dists.DISTSNetwork().double()


def test_equals_torchmetrics(weights, pair):
    expected = by_torchmetrics(weights)(*pair)
    torch.testing.assert_close(DISTS(weights).double()(*pair), expected, rtol=1e-6, atol=1e-9)


def test_gradients_of_torchmetrics(weights, pair):
    gradients = []
    for distance in (lambda a, b: by_torchmetrics(weights)(a, b, require_grad=True), DISTS(weights).double()):
        images = pair[0].clone().requires_grad_()
        gradients.append(torch.autograd.grad(distance(images, pair[1]).sum(), images)[0])
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-10)


def test_pooling_is_a_root_of_mean_squares(weights):
    maps = torch.rand(1, 64, 6, 7)
    padded = F.pad(maps, (1, 1, 1, 1)).square()
    taps = [1, 2, 1]
    power = sum(taps[i] * taps[j] * padded[..., i : i + 6 : 2, j : j + 7 : 2] for i in range(3) for j in range(3)) / 16
    torch.testing.assert_close(DISTS(weights).trunk[4](maps), power.sqrt())


def test_images_without_features_have_two_finite_derivatives(weights):
    dead = weights | {"features.0.bias": torch.full_like(weights["features.0.bias"], -100.0)}
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    (first,) = torch.autograd.grad(DISTS(dead)(images, torch.rand(1, 3, 16, 16)).sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_grey_images(weights):
    first, second = torch.rand(2, 1, 1, 16, 16)
    with pytest.raises(GenclsError, match=r"DISTS: expected images with 3 channels.*set grey_as_rgb=True"):
        DISTS(weights)(first, second)
    found = DISTS(weights, grey_as_rgb=True)(first, second)
    assert torch.equal(found, DISTS(weights)(first.repeat(1, 3, 1, 1), second.repeat(1, 3, 1, 1)))


def test_missing_weights():
    with pytest.raises(
        GenclsError, match=r"DISTS: expected trunk, the weights of VGG-16, got none; take torchvision's file vgg16-"
    ):
        DISTS()
    with pytest.raises(GenclsError, match="DISTS: expected features.0.weight of shape .*, as in VGG-16, got .* in the tensors"):
        DISTS(official("vgg")[1] | {"features.0.weight": torch.zeros(96, 3, 7, 7)})
