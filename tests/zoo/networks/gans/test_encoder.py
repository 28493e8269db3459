"""The encoder of a conditional GAN: shapes, sizes, every pixel."""

from typing import Any

import pytest
import torch
from torch import nn

from gencls.core import GenclsError, seeded
from gencls.zoo.networks import ResNetEncoder


def encoder(**settings: Any) -> ResNetEncoder:
    given = {"latent_dim": 5, "image_shape": (1, 28, 28), "width": 4, "blocks": (1, 2)}
    with seeded(0):
        return ResNetEncoder(**(given | settings)).eval()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 33, 20)])
@pytest.mark.parametrize("blocks", [(1,), (2, 1, 1)])
def test_codes_of_images(shape: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    with seeded(1):
        images = torch.rand(3, *shape, requires_grad=True)
    codes = encoder(image_shape=shape, blocks=blocks)(images)
    assert codes.shape == (3, 5)
    (gradient,) = torch.autograd.grad(codes[1].square().sum(), images)
    assert (gradient[1].abs().sum(0) > 0).all()
    assert gradient[[0, 2]].abs().max() == 0


def test_the_default_is_as_deep_as_resnet_18() -> None:
    with torch.device("meta"):
        network = ResNetEncoder(latent_dim=10, image_shape=(3, 32, 32))
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    shortcuts = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert len(layers) - len(shortcuts) == 18
    assert len(shortcuts) == 3
    assert sum(value.numel() for value in network.parameters()) == 11_173_962  # ResNet-18 of CIFAR, as kuangliu's, 10 outputs


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(GenclsError, match=r"expected image_shape \(C, H, W\), and latent_dim, width and blocks of at least 1"):
        encoder(blocks=())
    with pytest.raises(GenclsError, match=r"got \(28, 28\), 5, 4 and \(1, 2\)"):
        encoder(image_shape=(28, 28))
    with pytest.raises(GenclsError, match=r"expected images of shape \(1, 28, 28\), got \(1, 32, 32\)"):
        encoder()(torch.zeros(1, 1, 32, 32))
