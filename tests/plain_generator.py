"""The self-modulated generator as its paper writes it: batch norm, then gains and biases; doubling, then the convolution."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gencls.core import ClassConditionalGenerator, Latents
from gencls.zoo.networks import SelfModulatedGenerator


class PlainGenerator(ClassConditionalGenerator):
    """The same images from the same weights, layer by layer, maps as torch lays them out."""

    def __init__(self, network: SelfModulatedGenerator) -> None:
        super().__init__()
        self.network: Any = network
        self.num_classes, self.latent_shapes = network.num_classes, network.latent_shapes

    def forward(self, latents: Latents, labels: Tensor) -> Tensor:
        network, (latent,) = self.network, latents
        code = latent + network.shift(labels) + network.scale(labels) * latent
        maps = network.first(latent).view(len(labels), -1, network.start, network.start)
        for block in network.blocks:
            inner = block.conv1(F.interpolate(F.relu(_modulated(block.norm1, maps, code)), scale_factor=2))
            inner = block.conv2(F.relu(_modulated(block.norm2, inner, code)))
            maps = inner + F.interpolate(block.skip(maps), scale_factor=2)
        images: Tensor = torch.sigmoid(network.last(F.relu(_modulated(network.norm, maps, code))))
        return images


def _modulated(norm: Any, maps: Tensor, code: Tensor) -> Tensor:
    gain, bias = norm.gain_and_bias(F.relu(norm.hidden(code)))[..., None, None].chunk(2, 1)
    return torch.addcmul(bias, gain, norm.norm(maps))
