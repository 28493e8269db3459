"""Small StyleGAN2s with encoders, whose every part has noise, so that nothing hides behind zeros of an initialisation."""

import torch

from gencls.core import seeded
from gencls.zoo.networks import (
    E4EAutoencoder,
    E4EEncoder,
    SmallStyleAutoencoder,
    StyleGAN2,
    StyleTransformerAutoencoder,
    StyleTransformerEncoder,
)

LEVELS, SIZE = 6, 16
BACKBONE = {"widths": (16, 32, 48, 64), "units": (1, 2, 1, 1)}


def stir(network):
    """Parameters that start at 0 or 1 become random; statistics of batch norm as well."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim <= 1:
            tensor.add_(0.1 * torch.randn_like(tensor).abs())
        elif name.endswith("linear.weight"):
            tensor.mul_(3)  # codes of unit size
    return network.eval().requires_grad_(False)


def generator(seed=0, channels=(12, 10, 8), **settings):
    with seeded(seed):
        return stir(StyleGAN2(channels, **{"style_dim": 64, "mapping_layers": 2, **settings}))


def e4e(seed=0, **settings):
    """Images (3, 32, 32)."""
    with seeded(seed):
        encoder = stir(E4EEncoder(LEVELS, **BACKBONE))
        return E4EAutoencoder(encoder, generator(seed), torch.randn(LEVELS, 64), **{"image_size": 32, **settings}).eval()


def style_transformer(seed=0, **settings):
    """Images (3, 32, 32) on a canvas of 64 pixels."""
    with seeded(seed):
        encoder = stir(StyleTransformerEncoder(LEVELS, hidden=32, **BACKBONE))
        settings = {"image_size": 32, "canvas": 64, **settings}
        return StyleTransformerAutoencoder(encoder, generator(seed), torch.randn(1, 64), **settings).eval()


def small(seed=0):
    """Grey images (1, 14, 14)."""
    sizes = {"channels": (12, 10, 8), "style_dim": 16, "mapping_layers": 2, "encoder_widths": (6, 6, 6)}
    with seeded(seed):
        return stir(SmallStyleAutoencoder.of_sizes((1, 14, 14), **sizes))


MODELS = {"e4e": e4e, "style_transformer": style_transformer, "small": small}
