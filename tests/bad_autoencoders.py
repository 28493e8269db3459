"""Bad input of generative autoencoders, for tests/test_bad_input.py."""

from collections.abc import Callable
from pathlib import Path

import torch

from gencls.zoo.networks import GenerativeAutoencoder

SMALL = GenerativeAutoencoder((1, 8, 8), code_size=4, widths=(2,)).eval()

AUTOENCODERS: dict[str, Callable[[Path], object]] = {
    "a generative autoencoder with no number in its codes": lambda _: GenerativeAutoencoder((1, 8, 8), code_size=0),
    "images of another size than the autoencoder's": lambda _: SMALL.encode(torch.zeros(2, 1, 9, 8)),
    "codes of another size than the autoencoder's": lambda _: SMALL.decode(torch.zeros(2, 5)),
}
